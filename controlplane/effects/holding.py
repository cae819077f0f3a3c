"""Effects in doubt: held for an operator, who settles them; never repeated and never dropped in silence.

A held effect is a record that says what is known, since when and until when; its turn is parked and its
agent suspended. What settles it first wins: a receipt that comes late, an operator, or the end of its
time, after which the turn hears that it is in doubt. Nothing is settled while it may still be on its
way: before `send_by` and the timeout have passed, or while this gate waits for the far side.
"""

import asyncio
from dataclasses import dataclass
from typing import Any, Literal

import msgspec
import orjson

from controlplane.economy import meters
from controlplane.economy.accounts import Excess, Work
from controlplane.effects import journaling
from controlplane.effects.budgeting import words
from controlplane.effects.controls import Answer
from controlplane.effects.journaling import HELD_BACK
from controlplane.effects.node import Done, Node
from controlplane.effects.reading import Away
from controlplane.effects.segments import outside
from controlplane.effects.slots import Slot
from controlplane.effects.turnref import Row, TurnRef
from controlplane.protocols.finding import effector_of
from controlplane.resources.problems import problem
from controlplane.store import external
from schemas.branches import HELD, ROOT, Place
from schemas.effect import Verdict
from schemas.frames import Control
from schemas.problem import Next, Problem
from schemas.wire import Ask, Evict, Receipt

AGAIN_S = 0.25
TIMEOUT_S_MAX = 300.0  # of a connection that is not there any more
Outcome = Literal["succeeded", "failed", "retry"]


class Asked(msgspec.Struct):
    """What an operator says of a held effect; `result` is JSON."""

    turn_id: str
    branch: str
    position: int
    outcome: Outcome
    reason: str
    principal: str
    result: msgspec.Raw = msgspec.Raw(b"null")
    dry_run: bool = False


@dataclass(frozen=True)
class Held:
    """A held effect, as it is recorded."""

    await_id: str
    outcome: str | None
    result: str | None
    effect: str
    connection: str | None
    send_by: float


class Holding:
    """The effects of this gate's agents that are in doubt."""

    def __init__(self, node: Node) -> None:
        self._node = node

    def holds(self, turn_id: str) -> bool:
        """Whether a turn waits for an operator to settle an effect: it does not end over that."""
        return self._node.reader.one(external.HOLDS, turn_id) is not None

    def hold(self, frame: Ask, why: str) -> None:
        """Park the turn, or the branch, that waits for the effect. A turn that does not run now asks again then.

        One that has failed meanwhile, in another branch, asks nothing more: it is held for the record.
        """
        slot = self._node.turns.running(frame.turn_id)
        if slot is not None:
            self._node.turns.in_line(slot, lambda: self._hold(slot, frame, why))
        elif self._node.turns.running(frame.turn_id, "committing") is not None:
            asyncio.get_running_loop().call_later(AGAIN_S, self.hold, frame, why)
        else:
            try:
                self._hold_after(frame, why)
            except Away:
                asyncio.get_running_loop().call_later(AGAIN_S, self.hold, frame, why)

    def _hold_after(self, frame: Ask, why: str) -> None:
        """The turn may be over; then it is held for the record, unless it is already."""
        address = self._node.reader.one(external.ENDED, frame.turn_id)
        if address is None:
            return
        held = self._node.reader.one(external.HELD_AT, frame.turn_id, frame.branch, frame.position)
        if held is None or held[3] is not None:
            now = self._node.clock()
            until = now + self._node.bounds.hold_s
            rows = journaling.hold_after((address[0], address[1]), frame, why, now, until)
            self._write(rows, lambda outcome, _: self._written(frame, why, until, outcome))

    def _written(self, frame: Ask, why: str, until: float, outcome: str) -> None:
        if outcome == "ok":
            self._node.timers.arm(until)
        else:
            asyncio.get_running_loop().call_later(AGAIN_S, self.hold, frame, why)

    def _write(self, rows: list[Row], done: Done) -> None:
        self._node.commit("hold", rows, done)

    def _hold(self, slot: Slot, frame: Ask, why: str) -> None:
        if slot is not self._node.turns.running(frame.turn_id) or slot.turn is None:
            return
        if (place := (frame.branch, frame.position)) not in slot.effects or place in slot.held:
            return
        now = self._node.clock()
        until = now if slot.turn.raises else now + self._node.bounds.hold_s
        rows = journaling.hold(slot.turn, frame, why, now, until)
        self._rests(slot, frame)
        self._write(rows, lambda *came: self._held_now(slot, frame, until, *came))

    def still(self, slot: Slot, frame: Ask) -> None:
        """A replay has come to an effect that is held already."""
        if frame.branch == ROOT:
            self.suspend(slot, (frame.branch, frame.position))
        else:
            self._tell(slot, frame)

    def _rests(self, slot: Slot, frame: Ask) -> None:
        """Nothing else of the turn goes on until this is written; of a branch's effect, nothing else is written."""
        slot.writing = True
        if frame.branch == ROOT:
            slot.state = "committing"

    def _tell(self, slot: Slot, frame: Ask) -> None:
        """One branch waits; its host says so when all of them do."""
        place = frame.branch, frame.position
        if slot.host is not None and slot.state == "running" and place in slot.effects:
            slot.held.add(place)
            slot.said += 1
            slot.host.wire.send(Receipt(frame.turn_id, *place, HELD, b"null", self._node.clock()))

    def hold_back(self, slot: Slot, turn: TurnRef, frame: Ask, verdict: Verdict, excess: Excess) -> None:
        """Write the effect ahead and hold it at once: it was not sent, and is only when an operator says `retry`."""
        now = self._node.clock()
        until = now + self._node.bounds.hold_s
        beyond = outside(self._node, slot, turn, frame.entries)
        rows, after = journaling.intent(turn, frame, verdict.model_dump_json(), now, now, beyond)
        grown = turn.grown([*(it.branch for it in frame.entries), frame.branch])
        by = f"{HELD_BACK}{excess.namespace}/{excess.budget}: "
        rows += journaling.hold(grown, frame, words(excess), now, until, kind="effect.held", by=by)
        self._rests(slot, frame)

        def held(outcome: str, detail: str) -> None:
            if outcome == "ok":
                if slot.turn is turn:
                    slot.turn = grown
                self._node.turns.settle(after)
            self._held_now(slot, frame, until, outcome, detail)

        self._node.commit("withhold", rows, held)

    def _held_now(self, slot: Slot, frame: Ask, until: float, outcome: str, detail: str) -> None:
        if outcome != "ok":
            self._node.ownership.fenced(slot, "holding", outcome, detail)
            return
        self._node.timers.arm(until)
        if not self._node.slots.holds(slot):
            return
        if frame.branch == ROOT:
            self.suspend(slot, (frame.branch, frame.position))
            return
        self._tell(slot, frame)
        self._node.turns.wrote(slot)

    def suspend(self, slot: Slot, place: Place) -> None:
        """The coroutine waits for a receipt that may never come: forget it, a replay goes on."""
        assert slot.host is not None
        slot.host.wire.send(Evict(slot.uid, slot.epoch, abort=True))
        slot.state, slot.awaits = "parked", {place}
        slot.effects.clear()
        self._node.hosts.turn_over(slot)
        self._node.ownership.let_go(slot)

    # What an operator says

    def settle(self, frame: Control, done: Answer) -> None:
        """Settle a held effect, once."""
        asked = msgspec.json.decode(frame.argument, type=Asked)
        held = self._held(asked)
        if isinstance(held, Problem):
            done(held)
            return
        told = {"effect": held.effect, "connection": held.connection}
        over = self._node.reader.one(external.ENDED, asked.turn_id) is not None
        if over and asked.outcome == "retry":
            done(_not_held(asked, "its turn has ended, and sends nothing again; say whether it succeeded or failed"))
            return
        if held.outcome is not None:
            done(told if _same(held, asked) else _not_held(asked, f"it was settled before: {held.outcome}"))
            return
        if (wait_s := self._on_its_way_s(frame.agent, asked, held)) > 0:
            detail = f"{held.effect} may still be on its way; nobody can say yet what comes of it"
            done(problem("STILL_SENDING", detail, retry_after_s=wait_s, **_about(asked), effect=held.effect))
        elif asked.dry_run:
            done(told)
        else:
            self._settled(frame.agent, asked, held, done)

    def _held(self, asked: Asked) -> Held | Problem:
        reader, at = self._node.reader, (asked.turn_id, asked.branch, asked.position)
        row = reader.one(external.EFFECT_AT, *at)
        if row is None:
            detail = f"turn {asked.turn_id} has no effect at {asked.branch}:{asked.position}"
            return problem("NOT_FOUND", detail, field="/position", next=[_look(asked)], **_about(asked))
        held = reader.one(external.HELD_AT, *at)
        if held is None:
            return _not_held(asked, f"it came to {row[1]}" if row[1] is not None else "nobody waits for an operator")
        body = orjson.loads(row[0])
        return Held(held[0], held[3], held[4], body["effect"], body["connection"], float(row[3]))

    def _on_its_way_s(self, agent: str, asked: Asked, held: Held) -> float:
        """For how long it may still be on its way."""
        key = asked.turn_id, asked.branch, asked.position
        if self._node.execution.ended(key):
            return 0.0
        effector = effector_of(held.effect, self._node.effectors, None)
        timeout_s = effector.timeout_s if effector is not None else TIMEOUT_S_MAX
        if held.connection is not None:
            slot = self._node.slots.load(agent)
            declared = self._node.connections.named(slot.namespace, held.connection) if slot is not None else None
            timeout_s = declared.spec.limits.timeout_s if declared is not None else TIMEOUT_S_MAX
        wait_s = held.send_by + timeout_s - self._node.clock()
        if self._node.execution.flying(key):
            return max(wait_s, timeout_s)
        return wait_s

    def _settled(self, agent: str, asked: Asked, held: Held, done: Answer) -> None:
        slot = self._node.slots.load(agent)
        if slot is None:
            done(problem("NOT_FOUND", f"there is no agent of uid {agent}", uid=agent, verb="settle"))
            return
        result = bytes(asked.result).decode()
        if asked.outcome == "failed":
            detail = f"an operator says that {held.effect} failed: {asked.reason}"
            found = problem("EFFECT_FAILED", detail, effect=held.effect, principal=asked.principal)
            result = found.model_dump_json()
        told = {"effect": held.effect, "connection": held.connection}
        about = {**_about(asked), **told, "outcome": asked.outcome, "reason": asked.reason}
        now = self._node.clock()
        rows = journaling.settled(
            held.await_id,
            asked.outcome,
            result,
            (slot.namespace, slot.name),
            asked.principal,
            about,
            now,
        )
        who, labels = self._node.budgeting.whose(agent, asked.turn_id) or (slot.who, slot.labels)
        used = Work(who, labels, meters.What(held.effect, held.connection or ""), meters.of_effect(0, 0))
        if asked.outcome == "succeeded":
            rows += meters.rows(used.who, used.what, used.amounts, now)

        def settled(outcome: str, detail: str) -> None:
            if outcome == "ok":
                if asked.outcome == "succeeded":
                    self._node.budgeting.count((asked.turn_id, asked.branch, asked.position), used)
                self._node.timers.resolved(held.await_id)
                done(told)
                return
            reason, _, text = detail.partition(": ")
            failed = reason if outcome == "error" else "CONFLICT"
            done(problem(failed, f"nothing was settled: {text or outcome}", cause=text or outcome, retry_after_s=0.1))

        self._node.commit("settle", rows, settled)


def _same(held: Held, asked: Asked) -> bool:
    if asked.outcome == "succeeded":
        return held.outcome == "succeeded" and orjson.loads(held.result or "null") == orjson.loads(bytes(asked.result))
    return held.outcome in (("retry", "retried") if asked.outcome == "retry" else ("failed",))


def _about(asked: Asked) -> dict[str, Any]:
    return {"turn_id": asked.turn_id, "branch": asked.branch, "position": asked.position}


def _look(asked: Asked) -> Next:
    return Next(operation="turns.get", arguments={"turn_id": asked.turn_id}, why="shows what came of each effect")


def _not_held(asked: Asked, why: str) -> Problem:
    detail = f"the effect at {asked.branch}:{asked.position} of turn {asked.turn_id} is not held: {why}"
    return problem("NOT_HELD", detail, next=[_look(asked)], **_about(asked), why=why)
