"""Budgets, as agents meet them: an effect is held, refused or put off before it is sent, a turn before it begins.

What open turns and effects may use at most is reserved until their commit says what they used. An agent
that waits for its budget is suspended and keeps its messages; the sweep lets it go on once there is room:
in the next window, or after the budget was raised. A chain has no next window: a turn that it leaves nothing
for fails, and whoever asked hears of it; one that others of the chain stand in the way of waits for them.
"""

import asyncio
import contextlib
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Literal

import orjson
from msgspec.structs import replace

from controlplane.economy import meters
from controlplane.economy.accounts import Excess, Labels, Work
from controlplane.economy.chains import Room
from controlplane.economy.ledger import Ledger
from controlplane.economy.rating import RateCard
from controlplane.effects import eventing, journaling
from controlplane.effects.admission import fitted
from controlplane.effects.chaining import Chain
from controlplane.effects.node import Node
from controlplane.effects.reading import Away
from controlplane.effects.resuming import chain_id
from controlplane.effects.sending import RESULT_BYTES_MAX, Act
from controlplane.effects.slots import Slot
from controlplane.effects.turnref import TurnRef
from controlplane.protocols.finding import effector_of
from controlplane.resources.problems import problem
from controlplane.store import external, statements
from schemas.base import rfc3339
from schemas.effect import Verdict
from schemas.ports import Costing
from schemas.problem import Next, Problem
from schemas.wire import Ask, Evict

WAITING_MAX = 10_000
Key = tuple[str, str, int]  # turn, branch and position


class Budgeting:
    """The budgets of this gate's agents."""

    def __init__(self, node: Node, card: RateCard) -> None:
        self._node = node
        self._ledger = Ledger(node.reader.rows, card)
        self._waiting: dict[str, Work] = {}  # agents that were put off, and the effect that there was no room for
        self._behind: set[str] = set()  # agents whose turns wait for others of their chain
        self._doubted: dict[str, set[Key]] = {}  # by agent: effects that are in doubt

    def moved(self) -> None:
        """A plane wrote something: it may be a budget."""
        self._ledger.moved()

    def relabelled(self, namespace: str, name: str) -> None:
        """A plane wrote labels of an agent: it may have come under a budget, or left one."""
        self._node.slots.relabelled(namespace, name)
        self._ledger.relabelled(namespace)

    def chain(self, chain_id: str | None) -> Chain | None:
        """The chain of a name, with what lies above it."""
        return None if chain_id is None else Chain(chain_id, *self._ledger.chains.limits(chain_id))

    # Turns

    def bars(self, slot: Slot) -> Excess | None:
        """Why the agent may not begin or go on with a turn now."""
        self._node.slots.label(slot)
        room = self._room(slot)
        if room.excess is not None:
            self._behind.add(slot.uid)
            return room.excess
        now, asked = self._node.clock(), self._waiting.get(slot.uid)
        if not self._ledger.known(slot.namespace, now):
            return None
        with self._ledger.without(self._doubts_of(slot)):  # it may go on to have that settled
            found = self._lacks(slot, room, now)
            if found is None and asked is not None:
                found = self._ledger.lacks(asked, now)
                if found is None or found.alone:  # no window will have room by now: it goes on, and is told so
                    del self._waiting[slot.uid]
                    found = None
        return found

    def began(self, slot: Slot) -> None:
        """The turn is with its host."""
        room = self._room(slot)
        slot.turn_s, slot.narrowed = (None if room.narrowed is None else room.turn_s), room.narrowed
        if self.counts(slot):
            self._ledger.reserve(slot.uid, _turn(slot, room))

    def spends(self, slot: Slot) -> bool:
        """Whether the turn of an agent that rests has nothing left in its chain; then it ends."""
        turn, room = slot.turn, self._room(slot)
        if turn is None or turn.proving or room.excess is None or not room.for_good:
            return False
        owner = slot.host.host_id if slot.host is not None else ""
        ref = replace(turn, owner=owner, epoch=slot.epoch, version=slot.version)
        found = exceeded(room.excess, self._node.clock()).model_dump(mode="json")
        self._node.turns.bury(slot, ref, found, 0, owned=slot.state == "idle", counts=turn.recorded)
        return True

    def shuts(self, slot: Slot) -> bool:
        """Whether a parked turn must not go on in place: a budget or its chain leaves it nothing, or nothing now."""
        room = self._room(slot)
        if room.excess is not None:
            return True
        now = self._node.clock()
        if not self._ledger.known(slot.namespace, now):
            return False
        self._node.slots.label(slot)
        with self._ledger.without(self._doubts_of(slot)):
            return self._lacks(slot, room, now) is not None

    def _lacks(self, slot: Slot, room: Room, now: float) -> Excess | None:
        """The first budget that has no room for what is left of the turn."""
        return self._ledger.spent(slot.who, slot.labels, now) or self._ledger.lacks(_turn(slot, room), now)

    def cut(self, slot: Slot, found: Problem) -> Problem:
        """What a turn that took too long failed of, when it is its chain that left it no more time."""
        if found.reason != "TURN_TIMEOUT" or slot.turn_s is None or slot.narrowed is None:
            return found
        told = exceeded(slot.narrowed, self._node.clock())
        detail = f"the turn was active for all the {slot.turn_s:g} s that were left to it: {told.detail}"
        return told.model_copy(update={"detail": detail})

    def _room(self, slot: Slot) -> Room:
        most, turn = max(0.0, slot.turn_s_max - slot.active_s), slot.turn
        if turn is None or turn.chain is None:
            return Room(most)
        with self._ledger.without(self._doubts_of(slot)):
            return self._ledger.chains.room(turn.chain.chain_id, most, begins=not turn.recorded, gpus=slot.gpus)

    def counts(self, slot: Slot) -> bool:
        """Whether anything bounds the work of an agent."""
        self._node.slots.label(slot)
        return slot.who.chain != "" or self._ledger.known(slot.namespace, self._node.clock())

    def ended(self, slot: Slot, *, committed: bool) -> None:
        """A segment of the turn is over; what it used counts if it was committed."""
        self._ledger.release(slot.uid)
        used, slot.used = slot.used, {}
        if committed and used:
            self._ledger.add(Work(slot.who, slot.labels, meters.TURN, used), self._node.clock())
        self._free()

    def why(self, slot: Slot) -> str | None:
        """What a suspended agent waits for, in words, if it is a budget."""
        found = self.bars(slot)
        return None if found is None else f"it is suspended, since {words(found)}"

    # Effects

    def lacks(self, slot: Slot, frame: Ask, act: Act) -> Excess | None:
        """Why there is no room for the effect; where there is, it is reserved."""
        if not self.counts(slot):
            return None
        work = _effect(slot, frame, act)
        found = self._ledger.lacks(work, self._node.clock()) or self._ledger.chains.lacks(work)
        if found is None:
            self._ledger.reserve(_key(frame), work)
        return found

    def reserve(self, slot: Slot, frame: Ask, act: Act) -> None:
        """An effect that was let in before, or that an operator wants: it is not asked whether there is room."""
        if self.counts(slot):
            self._ledger.reserve(_key(frame), _effect(slot, frame, act))

    def over(self, frame: Ask, used: Work | None = None) -> None:
        """Nothing of the effect is on its way any more; what it used counts if its receipt is committed."""
        self._ledger.release(_key(frame))
        if used is not None:
            self._ledger.add(used, self._node.clock())
        self._free()

    def _free(self) -> None:
        """Something has ended: whoever waits behind it may go on."""
        if self._behind:
            behind, self._behind = self._behind, set()
            for uid in behind:
                asyncio.get_running_loop().call_soon(self._node.ownership.ring, uid)

    def free(self, key: Key) -> None:
        """Nobody waits for an effect any more; what it might have used is free."""
        self._ledger.release(key)
        self._free()

    def spent(self, used: Work) -> None:
        """What was committed of an effect that goes on."""
        self._ledger.add(used, self._node.clock())

    def count(self, key: Key, used: Work) -> None:
        """An effect that was waited for has ended, and used this."""
        self._ledger.add(used, self._node.clock())
        self.free(key)

    # Effects that nobody may know the end of, and those of before this gate

    def doubts(self, agent: str, key: Key) -> None:
        """Nothing of the effect is on its way, and it may have been done: it stays reserved until it is settled."""
        if self._ledger.holds(key):
            self._doubted.setdefault(agent, set()).add(key)

    def doubted(self, slot: Slot, frame: Ask, act: Act) -> None:
        """The same, of an effect that another gate had sent."""
        self.reserve(slot, frame, act)
        self.doubts(slot.uid, _key(frame))

    def over_with(self, agent: str) -> None:
        """The agent's turn is over: what it leaves in doubt stays reserved until that is settled."""
        for key in self._doubted.pop(agent, ()):
            if not self._unsettled(key):
                self.free(key)

    def gone(self, agent: str) -> None:
        """There is no such agent any more, and nobody settles what it had in doubt."""
        for key in self._doubted.pop(agent, ()):
            self.free(key)

    def _unsettled(self, key: Key) -> bool:
        """Whether something may still come of an effect in doubt: it is held, about to be, or on its way once more."""
        with contextlib.suppress(Away):  # then it stays reserved
            held = self._node.reader.one(external.HELD_AT, *key)
            return held is None or held[3] is None or self._node.execution.flying(key)
        return True

    def _doubts_of(self, slot: Slot) -> list[Key]:
        """What the agent's own turn has in doubt; what a turn before it left so is as anybody's."""
        doubted, turn = self._doubted.get(slot.uid, set()), slot.turn
        return [key for key in doubted if turn is None or key[0] == turn.turn_id]

    def recover(self) -> None:
        """What this gate finds in doubt may have been done, and stays reserved."""
        for agent, turn_id, branch, position, body in self._node.reader.rows(
            external.IN_DOUBT, f"{journaling.HELD_BACK}%"
        ):
            key = turn_id, branch, position
            self.again(agent, key, body)
            self.doubts(agent, key)

    def again(self, agent: str, key: Key, body: str) -> None:
        """An effect that is waited for, by its record: what it may use is reserved, unless it is already."""
        if self._ledger.holds(key) or (found := self.whose(agent, key[0])) is None:
            return
        who, labels = found
        if who.chain == "" and not self._ledger.known(who.namespace, self._node.clock()):
            return
        said = orjson.loads(body)
        what = meters.What(said["effect"], said["connection"] or "")
        declared = self._node.connections.named(who.namespace, what.connection) if what.connection else None
        effector = effector_of(what.effect, self._node.effectors, declared)
        most: dict[str, float] = {}
        if effector is not None and isinstance(effector, Costing):
            with contextlib.suppress(ValueError):  # it was let in by another release
                given = fitted(effector, said["arguments"])
                most = effector.most(given, declared.spec if declared is not None else None)
        size = len(orjson.dumps(said["arguments"]))
        self._ledger.reserve(key, Work(who, labels, what, _most(size, most)))

    def whose(self, agent: str, turn_id: str) -> tuple[meters.Who, Labels] | None:
        """Whose work an open turn is, wherever its agent is; None where there is no such agent."""
        row = self._node.reader.one(statements.AGENT_BY_UID, agent)
        if row is None:
            return None
        chain = chain_id(self._node, row[15], turn_id)
        return meters.Who(row[1], row[2], row[12] or "", chain), orjson.loads(row[11])

    def pause(self, slot: Slot, turn: TurnRef, frame: Ask, act: Act, excess: Excess) -> None:
        """Suspend the agent in front of the effect; its turn is done again, up to here, once there is room."""
        if len(self._waiting) >= WAITING_MAX:
            self._waiting.clear()  # they are put off again where they must
        self._waiting[slot.uid] = _effect(slot, frame, act)
        now, uid, epoch = self._node.clock(), slot.uid, slot.epoch
        told = {"effect": frame.effect, "why": words(excess), **asdict(excess)}
        rows = [
            (statements.RELEASE_EPOCH, (now, uid, epoch), 1),
            eventing.event("agent.paused", turn, told, now),
        ]
        if slot.host is not None:
            slot.host.wire.send(Evict(uid, epoch, abort=True))
        self._node.ownership.forget(slot)
        self._node.commit("pause", rows, lambda *_: None)


def words(excess: Excess) -> str:
    """A limit and how far it is used, as a sentence's end."""
    until = "" if excess.until is None else f" until {_time(excess.until)}"
    reserved = "" if excess.reserved == "0" else f" and {excess.reserved} reserved"
    asked = "" if excess.asked == "0" else f", and this may use {excess.asked}"
    asked += ", which is more than all of it" if excess.alone else ""
    name = f"the budget of chain {excess.budget}" if excess.chain else f"budget {excess.namespace}/{excess.budget}"
    return f"of {excess.limit} {excess.meter} that {name} allows{until} {excess.used} are used{reserved}{asked}"


def exceeded(excess: Excess, now: float) -> Problem:
    """The refusal of an effect; one that a budget would hold back is refused where its agent shall hear of that."""
    wait_s = None if excess.until is None or excess.alone else max(0.0, excess.until - now)
    about = asdict(excess) | {"until": None if excess.until is None else _time(excess.until)}
    by_agent = {"namespace": excess.namespace, "by": "agent"} | ({"chain": excess.budget} if excess.chain else {})
    steps = [Next(operation="usage.report", arguments=by_agent, why="shows who used how much")]
    if not excess.chain:
        declared = Next(
            operation="budgets.get",
            arguments={"namespace": excess.namespace, "name": excess.budget},
            why="shows the budget, which budgets.propose changes",
        )
        steps.append(declared)
    if excess.action == "hold" and not excess.chain:
        detail = f"it would be held for an operator, since {words(excess)}"
        return problem("HELD", detail, next=steps, retry_after_s=wait_s, **about)
    return problem("BUDGET_EXCEEDED", words(excess), next=steps, retry_after_s=wait_s, **about)


def beyond(excess: Excess, granted: Verdict) -> Verdict:
    """The verdict on an effect that is granted, and that there is no room for."""
    outcome: Literal["hold", "deny"] = "hold" if excess.action == "hold" else "deny"
    rules = [f"{'chain' if excess.chain else 'budget'} {excess.budget}"]
    return Verdict(outcome=outcome, rules=rules, features=granted.features, containment=granted.containment)


def _turn(slot: Slot, room: Room) -> Work:
    return Work(slot.who, slot.labels, meters.TURN, meters.most_of_turn(room.turn_s, slot.gpus))


def _effect(slot: Slot, frame: Ask, act: Act) -> Work:
    spec = act.declared.spec if act.declared is not None else None
    most = act.effector.most(act.arguments, spec) if isinstance(act.effector, Costing) else {}
    return Work(slot.who, slot.labels, _what(frame), _most(len(frame.arguments), most))


def _most(size: int, most: dict[str, float]) -> meters.Amounts:
    """What an effect of arguments of that size may use, with what its effector says."""
    return meters.of_effect(size, RESULT_BYTES_MAX, meters.bounded(most))


def _what(frame: Ask) -> meters.What:
    return meters.What(frame.effect, frame.connection or "")


def _key(frame: Ask) -> Key:
    return frame.turn_id, frame.branch, frame.position


def _time(seconds: float) -> str:
    return rfc3339(datetime.fromtimestamp(seconds, UTC))
