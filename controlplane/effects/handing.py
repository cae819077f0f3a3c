"""What one agent has for another, handed on while its unit is still on its way to the disk.

A message to an agent that is awake and has nothing to do, the answer to one whose turn rests in its host, and the
receipt of an effect are handed over right after their unit went to the writer. Whoever was handed something builds on
it: its units begin with a guard, a statement that finds it, and come behind that unit in the same lane. So nothing is
ever committed that builds on what was not. Nothing is sent to the world before that is committed, since what is sent
is written ahead, behind the guard; and whoever asked from outside waits. Where it is not, it is taken back: the
attempt is forgotten, and what is committed decides how it goes on. An agent is handed nothing while a unit of its own
is on its way; so at most one thing is unsure in each. While the writer does not keep up, nothing is handed on.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any

from msgspec.structs import replace

from controlplane.effects.endings import too_much
from controlplane.effects.hosts import Host
from controlplane.effects.node import TURNS, Node
from controlplane.effects.reading import Away
from controlplane.effects.segments import Unfit
from controlplane.effects.slots import Slot
from controlplane.effects.surviving import survived
from controlplane.effects.turnref import Aftermath, Row, TurnRef
from controlplane.protocols.finding import effector_of
from controlplane.store import handing
from controlplane.store import statements as sql
from controlplane.store.batching import Behind, Guard
from schemas import faults
from schemas.base import turn_of
from schemas.branches import Place
from schemas.ports import Lasting, Preview
from schemas.wire import Ask, Evict, Resolved, Run

log = logging.getLogger("steward.gate")
WAITING_MAX = 64  # jobs of the writer; with more, it is behind
HANDED_MAX = 64  # questions in an inbox whose asker is known
UNCOUNTED = "NOT_READY: what it was handed is not committed"


@dataclass(slots=True, eq=False)
class Handed:
    """A message for an agent, and which turn of whom waits for the answer where, if one does."""

    to: Slot
    message_id: str
    body: str
    lane: int
    alone: bool = True
    asker: Slot | None = None
    turn_id: str = ""
    place: Place | None = None
    open: bool = True  # whether its unit is still on its way


@dataclass(slots=True, eq=False)
class Answer:
    """The answer to one."""

    of: Handed
    body: str
    at: float
    lane: int
    open: bool = True
    told: bool = False


class Handing:
    """What the agents of this gate hand to each other, and what their turns wait for."""

    def __init__(self, node: Node) -> None:
        self._node = node

    # Messages

    def passed(self, slot: Slot, turn: TurnRef, after: Aftermath, lane: int) -> Callable[[bool], None]:
        """A unit that sends these is the writer's: hand them on. What is answered is told what became of it."""
        many = Counter(it.to for it in after.passed)
        found: list[Handed] = []
        for it in after.passed:
            to = self._node.slots.awake(*it.to)
            if to is not None and to is not slot:
                alone = it.alone and many[it.to] == 1
                found.append(Handed(to, it.message_id, it.body, lane, alone, slot, turn.turn_id, it.asked_at))
        self._hand(found)

        def ended(committed: bool) -> None:
            for to in self._ended(found, committed):
                after.agents.discard((to.namespace, to.name))

        return ended

    def published(
        self, agents: Sequence[str], message_id: str, body: str, lane: int
    ) -> Callable[[bool], Collection[str]]:
        """The same of a publication that these will have; whoever is at it already is answered."""
        slots = [slot for uid in agents if (slot := self._node.slots.get(uid)) is not None]
        found = [Handed(to, message_id, body, lane) for to in slots]
        self._hand(found)
        return lambda committed: {to.uid for to in self._ended(found, committed)}

    def _hand(self, found: list[Handed]) -> None:
        for handed in found:
            if handed.message_id not in handed.to.handed:
                handed.to.handed[handed.message_id] = handed
                self.next(handed.to)

    def _ended(self, found: list[Handed], committed: bool) -> list[Slot]:
        """Their unit has ended; whoever is at one already need not be rung."""
        here = [it for it in found if it.to.handed.get(it.message_id) is it]
        for it in here:
            it.open, it.body = False, ""
        at_it = [it.to for it in here if self._is_at(it)]
        for it in here:
            if not committed or it.asker is None or len(it.to.handed) > HANDED_MAX:
                del it.to.handed[it.message_id]
        for to in at_it:
            self._sure(to) if committed else self._retract(to)
        return at_it

    def _is_at(self, handed: Handed) -> bool:
        to = handed.to
        return self._node.slots.holds(to) and to.turn is not None and to.turn.message_id == handed.message_id

    def next(self, slot: Slot) -> None:
        """An agent that rests, and whose inbox is empty as far as is known, begins with what is on its way to it."""
        if not slot.handed or not slot.rests or slot.stale or slot.stopped:
            return
        handed = next((it for it in slot.handed.values() if it.open), None)
        if handed is not None and handed.alone and self._node.committer.waiting < WAITING_MAX:
            turn_id = turn_of(slot.uid, handed.message_id)
            self._node.ownership.come(slot, (turn_id, handed.message_id, handed.body))
            self._at_once(slot)

    def taken(self, slot: Slot, turn: TurnRef) -> None:
        """The agent's turn begins, of a message that it may have been handed."""
        handed = slot.handed.get(turn.message_id)
        if handed is not None and handed.open:
            slot.turn = replace(turn, given=(self._guard(handing.IN_INBOX, slot.uid, turn.message_id),))
            slot.unsure, slot.lane = [], handed.lane

    # Answers

    def answered(self, slot: Slot, turn: TurnRef, after: Aftermath, lane: int, at: float) -> Callable[[bool], None]:
        """A unit that ends a turn is the writer's: who asked goes on with the answer now, or as soon as it rests."""
        handed = slot.handed.get(turn.message_id)
        asker = None if handed is None else handed.asker
        if handed is None or asker is None or handed.place is None or after.replied is None:
            return nobody
        answer = Answer(handed, after.replied, at, lane)
        if handed.open:
            asker.answer = answer
        else:
            self._tell(asker, answer)

        def ended(committed: bool) -> None:
            answer.open = False
            if not answer.told or not self._at(asker, handed):
                return
            if committed and self._is_answered(handed.message_id, at):
                after.answered.remove(handed.message_id)
                self._sure(asker)
            elif asker.turn is not None and asker.turn.given:
                self._retract(asker)

        return ended

    def parked(self, slot: Slot) -> None:
        """A turn has come to a rest: its answer may be on its way."""
        answer, slot.answer = slot.answer, None
        if answer is not None and answer.open:
            self._tell(slot, answer)

    def _tell(self, slot: Slot, answer: Answer) -> None:
        place = answer.of.place
        waits = self._at(slot, answer.of) and slot.state == "parked" and place in slot.awaits and slot.unsure is None
        if not waits or place is None or slot.leave or slot.stale or slot.held or slot.stopped:
            return  # it hears of it when that is committed
        if self._node.committer.waiting >= WAITING_MAX:
            return
        self.resume(slot, place, "answered", answer.body, answer.at)
        if slot.turn is not None and slot.state == "running":
            given = self._guard(handing.ANSWERED, slot.turn.turn_id, *place, answer.at)
            slot.turn, slot.unsure, slot.lane = replace(slot.turn, given=(given,)), [], answer.lane
            answer.told = True
            self._at_once(slot)

    def _at_once(self, slot: Slot) -> None:
        """What its host is told goes out now, and not with all else of this tick, as long as that is little."""
        if slot.host is not None and not self._node.committer.waiting:
            slot.host.wire.flush()

    def _at(self, slot: Slot, handed: Handed) -> bool:
        return self._node.slots.holds(slot) and slot.turn is not None and slot.turn.turn_id == handed.turn_id

    def _is_answered(self, await_id: str, at: float) -> bool:
        """Whether it was the first: its time may have been over, and that is committed."""
        try:
            row = self._node.reader.one(sql.AWAIT_ROW, await_id)
        except Away:
            return False
        return row is not None and row[5] == "answered" and row[7] == at

    # Receipts

    def hears(self, key: tuple[str, str, int]) -> Slot | None:
        """Whose turn hears of an effect's receipt before that is committed: one of which nothing else is unsure."""
        slot = self._node.turns.running(key[0])
        if slot is None or slot.turn is None or slot.writing or slot.unsure is not None or slot.turn.given:
            return None
        waits = key[1:] in slot.effects and self._node.committer.waiting < WAITING_MAX
        return slot if waits else None

    def patient(self, slot: Slot | None) -> bool:
        """Whether nobody waits for the commit of a receipt that a turn hears of; where a budget bounds it, one does."""
        try:
            return slot is not None and not self._node.budgeting.counts(slot)
        except Away:
            return False

    def confirmed(
        self, slot: Slot | None, key: tuple[str, str, int], at: float, tell: Callable[[], None]
    ) -> Callable[[bool], None]:
        """A unit with an effect's receipt is the writer's: the turn that hears of it, if one does, is told now."""
        if slot is None or slot.turn is None:
            return nobody
        guard = self._guard(handing.CONFIRMED, *key, at)
        slot.turn, slot.unsure, slot.lane = replace(slot.turn, given=(guard,)), [], TURNS
        tell()
        self._at_once(slot)

        def ended(committed: bool) -> None:
            builds = self._node.slots.holds(slot) and slot.turn is not None and guard in slot.turn.given
            if builds:
                self._sure(slot) if committed else self._retract(slot)

        return ended

    # What is unsure

    def _guard(self, sql: Guard, *params: Any) -> Row:
        """What finds the thing that was handed over just now: its unit is the writer's already."""
        return sql, Behind.of(params, self._node.committer.last), 1

    def _sure(self, slot: Slot) -> None:
        """What its turn was handed is committed."""
        if slot.turn is not None and slot.turn.given:
            slot.turn = replace(slot.turn, given=())
        if slot.unsure:  # what fails of it shall not fail whoever has committed
            asyncio.get_running_loop().call_soon(self._heard, slot, slot.unsure)
        else:
            slot.unsure = None

    def _heard(self, slot: Slot, waiting: list[Callable[[], None]]) -> None:
        """What the host said meanwhile; until then what it says comes behind that."""
        if slot.unsure is not waiting:
            return
        slot.unsure = None
        for act in waiting:
            if not self.take_up(slot, act):
                return

    def take_up(self, slot: Slot, act: Callable[[], None]) -> bool:
        """Do what had to wait; with the database away, what its host said ends with the connection, all of it."""
        try:
            survived(act, f"what was said of a turn of {slot.address}")
        except Away as away:
            log.warning("the database is away: %s", away)
            if slot.host is not None:
                slot.host.wire.close()
            return False
        return True

    def _retract(self, slot: Slot) -> None:
        self._node.ownership.fenced(slot, "handing", "conflict", UNCOUNTED)

    # Whatever a turn waits for

    def resume(self, slot: Slot, place: Place, outcome: str, result: str, at: float) -> None:
        """The answer to what a turn waits for, handed to the coroutine that still lives."""
        turn, host, awaited = slot.turn, slot.host, place in (slot.awaits | slot.held | slot.lasting)
        if turn is None or host is None or slot.state not in ("parked", "running") or not awaited:
            slot.more = True
            if slot.state in ("free", "idle"):  # it is not with its host: by replay, then
                slot.awaits.clear()
                self._node.ownership.pump(slot)
            return
        if outcome in ("retry", "retried"):
            self._replay(slot)
            return
        if slot.state == "parked" and self._node.budgeting.shuts(slot):
            slot.leave = True  # and it is looked at as any that goes on
            self._node.ownership.let_go(slot)
            return
        left_s = inf
        if slot.state == "parked":
            self._node.turns.goes_on(slot, turn)
            left_s = slot.turn_s_left
        for of_attempt in (slot.awaits, slot.held, slot.lasting, slot.effects):
            of_attempt.discard(place)
        slot.told.add(place)
        slot.said += 1
        faults.at("gate.resume")
        self.offer(slot, host, Resolved(turn.turn_id, *place, outcome, result.encode(), at, left_s))

    def offer(self, slot: Slot, host: Host, frame: Run | Resolved) -> None:
        """Tell the host of a turn, unless that is more than a host takes: it would be lost. The turn is over, then."""
        if size := host.wire.offer(frame):
            self._node.turns.in_line(slot, lambda: self._too_much(slot, frame.turn_id, size))

    def _too_much(self, slot: Slot, turn_id: str, size: int) -> None:
        turns = self._node.turns
        if slot is turns.running(turn_id) and slot.turn is not None:
            turns.refuse(slot, slot.turn, Unfit(too_much(size), retry=False), 0)

    def _replay(self, slot: Slot) -> None:
        """An operator wants an effect sent once more: whoever asks for it again has it sent."""
        assert slot.host is not None
        slot.host.wire.send(Evict(slot.uid, slot.epoch, abort=True))
        slot.state, slot.more = "parked", True
        slot.effects.clear()
        self._node.hosts.turn_over(slot)
        self._node.ownership.let_go(slot)


def nobody(committed: bool) -> None:
    """Nobody was told."""


def ahead(node: Node, frame: Ask, slot: Slot, turn: TurnRef) -> bool:
    """Whether an effect may be written ahead before what its turn builds on is committed: when it is asked for the
    first time, has no preview, and no budget waits for what was used before."""
    if turn.proving or node.budgeting.counts(slot):
        return False
    known = effector_of(frame.effect, node.effectors, None)
    first = frame.position == turn.length(frame.branch) + sum(it.branch == frame.branch for it in frame.entries)
    return first and known is not None and not isinstance(known, Preview | Lasting)
