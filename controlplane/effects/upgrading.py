"""Upgrades: what becomes of a parked turn when its agent has newer code.

The agent's spec says it: the turn stays on the code that it began on, for ever or for so long; or its
journal is replayed on the newer code, and it goes on there when it comes to the same place by the same
effects; or it fails. It is decided once a generation, about a turn that rests as a row, and recorded
with the turn. A proof is a run that can do nothing: its journal ends where the turn is parked, so
that the next thing it asks for is either that very await, or a difference. What differs stays.
"""

from collections import Counter
from collections.abc import Set
from typing import Any

import orjson
from msgspec.structs import replace

from controlplane.effects import eventing, journaling
from controlplane.effects.node import Done, Node
from controlplane.effects.resuming import pinned_by
from controlplane.effects.slots import Slot
from controlplane.effects.turnref import Aftermath, Row, TurnRef
from controlplane.resources.problems import problem
from controlplane.store import statements as sql
from controlplane.store import upgrades
from schemas.base import canonical
from schemas.branches import FORMATS_READ, Place
from schemas.problem import Next, Problem
from schemas.wire import Evict

LOOK_S = 30.0
PROOFS_MAX = 2  # hosts that a proof may take along


def _noted(_outcome: str, _detail: str) -> None:
    """What was not recorded is decided again by the next look."""


class Upgrading:
    """The parked turns of this gate's agents, held against newer code."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._lost: Counter[str] = Counter()
        self._look_at = 0.0

    def sweep(self) -> None:
        """Pinned turns whose time is over; and, once in a while, upgrades that no bell was heard of."""
        for (uid,) in self._node.reader.rows(upgrades.OVERDUE, self._node.clock()):
            self._take_up(uid)
        if self._node.steady() >= self._look_at:
            self._look_at = self._node.steady() + LOOK_S
            for (uid,) in self._node.reader.rows(upgrades.UNDECIDED):
                self._take_up(uid)

    def look_soon(self) -> None:
        """A plane is back: it may have died between an upgrade and its bell."""
        self._look_at = 0.0

    def _take_up(self, uid: str) -> None:
        """Have it decided: at once when the agent is a row, else when its turn rests."""
        slot = self._node.slots.get(uid)
        if slot is None or slot.state == "free":
            self._node.ownership.ring(uid)
            return
        slot.leave = True
        self._node.ownership.let_go(slot)

    def ends(self, slot: Slot) -> bool:
        """Decide about the parked turn of an agent that is a row; whether the turn fails now.

        One that shall be proved is the slot's turn afterwards, to be run on the newer code.
        """
        turn = slot.turn
        if slot.state != "free" or turn is None or not slot.awaits:
            return False
        if turn.format not in FORMATS_READ:
            why = f"its journal is of format {turn.format}, and this release reads {FORMATS_READ}"
            return self._fail(slot, turn, why)
        wanted = str(slot.spec["code"]["digest"])
        if turn.digest == wanted:
            if turn.ends_by is not None:  # it went back to the code that the turn is on
                self._pin([(upgrades.RELEASED, (turn.turn_id,), -1)])
            return False
        if turn.ends_by is not None and turn.ends_by <= self._node.clock():
            return self._fail(slot, turn, "it stayed on its code for as long as upgrade.pinned_s_max allows")
        if turn.looked_for >= slot.generation:
            return False
        policy = (slot.spec.get("upgrade") or {}).get("parked", "pin_until")
        if policy == "fail":
            return self._fail(slot, turn, "upgrade.parked of its agent is fail")
        if policy == "prove" and self._lost[turn.turn_id] < PROOFS_MAX:
            rests_at = frozenset(slot.awaits)
            slot.turn = replace(
                turn, proving=turn.digest, rests_at=rests_at, digest=wanted, pinned=pinned_by(slot.spec)
            )
            slot.awaits = set()
        elif policy == "prove":
            found = problem("INTERNAL", f"{PROOFS_MAX} hosts ended while they replayed it", hosts=PROOFS_MAX)
            self._pin(self._differing(slot, turn, wanted, found.model_dump(mode="json")))
        else:
            self._pin([self._pinning(slot, turn, "pinned", None)])
        return False

    def _fail(self, slot: Slot, turn: TurnRef, why: str) -> bool:
        """Unless an effect of it is in doubt: that is settled first, and the turn goes on to its next rest."""
        if self._node.holding.holds(turn.turn_id):
            return False
        wanted = slot.spec["code"]["digest"]
        detail = f"the turn of {slot.address} was parked on {turn.digest}, and can not go on with {wanted}: {why}"
        about = {"turn_id": turn.turn_id, "digest": turn.digest, "wanted": wanted, "agent": slot.address, "why": why}
        found = problem("UPGRADED", detail, next=[_look(turn)], **about)
        ref = replace(turn, owner="", epoch=slot.epoch, version=slot.version)
        self._node.turns.bury(slot, ref, found.model_dump(mode="json"), 0, owned=False)
        return True

    # Proofs

    def reached(
        self, slot: Slot, turn: TurnRef, *, here: bool, waits: Set[Place] = frozenset(), held: bool = False
    ) -> None:
        """The replay on newer code has come to what the journal does not answer: `here`, where the turn is parked.

        `waits` are the places where it waits; `held` is an effect that waits for an operator, which its handler awaits.
        """
        if not here:
            beyond = problem("INTERNAL", "the replay went on beyond its journal", turn_id=turn.turn_id)
            self.differs(slot, turn, beyond.model_dump(mode="json"))
            return
        self._node.budgeting.ended(slot, committed=False)
        self._lost.pop(turn.turn_id, None)
        slot.state = "committing"
        now = self._node.clock()
        told = {"from": turn.proving, "to": turn.digest, "entries": turn.entries}
        pinned = orjson.dumps(turn.pinned).decode()
        rows: list[Row] = [
            journaling.fence(turn, now),
            (upgrades.PROVED, (slot.generation, turn.digest, pinned, turn.turn_id, turn.entries), 1),
            (upgrades.UNMARKED, (turn.turn_id,), -1),
            eventing.event("turn.upgraded", turn, told, now),
        ]
        proved = replace(turn, proving="")
        self._node.commit("prove", rows, lambda *came: self._proved(slot, proved, set(waits), held, *came))

    def _proved(self, slot: Slot, turn: TurnRef, waits: set[Place], held: bool, outcome: str, detail: str) -> None:
        """It goes on under the newer code, and rests where it is, as after any replay."""
        if outcome != "ok":
            self._node.ownership.fenced(slot, "proving", outcome, detail)
        elif not held:
            self._node.turns.parked(slot, turn, Aftermath(), waits)
        elif self._node.slots.holds(slot):
            slot.turn = turn
            self._node.holding.suspend(slot, *waits)

    def differs(self, slot: Slot, turn: TurnRef, cause: dict[str, Any]) -> None:
        """The replay did not come to the same: the turn stays on its code, and is a row again."""
        assert slot.host is not None
        slot.state = "committing"
        uid, host = slot.uid, slot.host
        host.wire.send(Evict(uid, slot.epoch, abort=True))
        release: Row = (sql.RELEASE, (self._node.clock(), uid, slot.epoch, host.host_id), 1)
        was = replace(turn, digest=turn.proving, proving="")
        rows = [release, *self._differing(slot, was, turn.digest, cause)]

        def pinned(outcome: str, detail: str) -> None:
            if outcome != "ok":
                self._node.ownership.fenced(slot, "pinning", outcome, detail)
            elif self._node.slots.holds(slot):
                self._node.ownership.forget(slot)
                self._node.ownership.ring(uid)

        self._pin(rows, pinned)

    def lost(self, turn: TurnRef) -> None:
        """The host ended in the middle of a proof."""
        if len(self._lost) > 10_000:
            self._lost.clear()
        self._lost[turn.turn_id] += 1

    # Records

    def _pin(self, rows: list[Row], done: Done = _noted) -> None:
        self._node.commit("pin", rows, done)

    def _differing(self, slot: Slot, turn: TurnRef, wanted: str, cause: dict[str, Any]) -> list[Row]:
        found = _difference(slot, turn, wanted, cause).model_dump(mode="json")
        told = {key: found[key] for key in ("reason", "detail", "metadata")}
        return [
            self._pinning(slot, turn, "differs", canonical(found).decode()),
            eventing.event("turn.differs", turn, told, self._node.clock()),
        ]

    def _pinning(self, slot: Slot, turn: TurnRef, decided: str, differs: str | None) -> Row:
        most = (slot.spec.get("upgrade") or {}).get("pinned_s_max")
        ends_by = None if most is None else self._node.clock() + float(most)
        return upgrades.PINNED, (slot.generation, decided, ends_by, differs, turn.turn_id, slot.generation), -1


def _difference(slot: Slot, turn: TurnRef, wanted: str, cause: dict[str, Any]) -> Problem:
    """What the proof found, and what can be done."""
    most = (slot.spec.get("upgrade") or {}).get("pinned_s_max")
    until = "it ends" if most is None else f"it ends, for {most:g} s at most"
    detail = f"{turn.turn_id} does not replay on {wanted}, and stays on {turn.digest} until {until}: {cause['detail']}"
    steps = [
        _look(turn),
        Next(
            operation="agents.propose",
            why="with code that does the same up to there; or with upgrade.parked: fail, to be rid of the turn",
        ),
    ]
    return problem(
        "UPGRADE_DIFFERS", detail, next=steps, turn_id=turn.turn_id, digest=turn.digest, wanted=wanted,
        pinned_s_max=most, cause={key: cause[key] for key in ("reason", "detail", "metadata")},
    )  # fmt: skip


def _look(turn: TurnRef) -> Next:
    return Next(operation="turns.get", arguments={"turn_id": turn.turn_id}, why="shows how far it came")
