"""What one agent has for another, handed on while its unit is still on its way to the disk.

A message to an agent that is awake and has nothing to do, and the answer to one whose turn rests in its host, are
handed over as soon as their unit is the writer's. Whoever was handed something builds on it: its units begin with a
guard, a statement that finds it, and come behind that unit in the same queue. So nothing is ever committed that
builds on what was not. What a turn asks of the world waits until it is committed, and so does whoever asked from
outside. Where it is not, it is taken back: the attempt is forgotten, and what is committed decides how it goes on.
An agent is handed nothing while a unit of its own is on its way; so at most one thing is unsure in each.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from msgspec.structs import replace

from controlplane.effects.node import Node
from controlplane.effects.reading import Away
from controlplane.effects.slots import Slot
from controlplane.effects.turnref import Aftermath, Row, TurnRef
from controlplane.store import handing
from controlplane.store import statements as sql
from schemas import faults
from schemas.base import short_id
from schemas.branches import Place
from schemas.wire import Evict, Resolved

HANDED_MAX = 64  # messages that an agent is known to be about to get
UNCOUNTED = "NOT_READY: what it was handed is not committed"


@dataclass(slots=True, eq=False)
class Handed:
    """A message from agent to agent, and who waits for the answer where."""

    to: Slot
    message_id: str
    body: str
    alone: bool
    asker: Slot
    turn_id: str
    place: Place | None
    open: bool = True  # whether its unit is still on its way


@dataclass(slots=True, eq=False)
class Answer:
    """The answer to one."""

    of: Handed
    body: str
    at: float
    open: bool = True
    told: bool = False


class Handing:
    """What the agents of this gate hand to each other, and what their turns wait for."""

    def __init__(self, node: Node) -> None:
        self._node = node

    # Messages

    def passed(self, slot: Slot, turn: TurnRef, after: Aftermath) -> Callable[[bool], None]:
        """A unit that sends these is the writer's: hand them on. What is answered is told what became of it."""
        many = Counter(it.to for it in after.passed)
        found: list[Handed] = []
        for it in after.passed:
            to = self._node.slots.awake(*it.to)
            if to is None or to is slot or len(to.handed) >= HANDED_MAX:
                continue
            alone = it.alone and many[it.to] == 1
            handed = Handed(to, it.message_id, it.body, alone, slot, turn.turn_id, it.asked_at)
            to.handed[it.message_id] = handed
            found.append(handed)
            self.next(to)

        def ended(committed: bool) -> None:
            for handed in found:
                self._committed(handed, after) if committed else self._taken_back(handed)

        return ended

    def next(self, slot: Slot) -> None:
        """An agent that rests, and whose inbox is empty as far as is known, begins with what is on its way to it."""
        if not slot.handed or not slot.rests or slot.stale or slot.stopped:
            return
        handed = next((it for it in slot.handed.values() if it.open), None)
        if handed is not None and handed.alone:
            turn_id = short_id("turn", slot.uid, handed.message_id)
            self._node.ownership.come(slot, (turn_id, handed.message_id, handed.body))

    def taken(self, slot: Slot, turn: TurnRef) -> None:
        """The agent's turn begins, of a message that it may have been handed."""
        handed = slot.handed.get(turn.message_id)
        if handed is not None and handed.open:
            slot.turn = replace(turn, given=((handing.IN_INBOX, (slot.uid, turn.message_id), 1),))
            slot.unsure = []

    def _committed(self, handed: Handed, after: Aftermath) -> None:
        """It is in the inbox. Whoever is at it already need not be rung."""
        handed.open, handed.body, to = False, "", handed.to
        if self._node.slots.holds(to) and to.turn is not None and to.turn.message_id == handed.message_id:
            after.agents.discard((to.namespace, to.name))
            self._sure(to)

    def _taken_back(self, handed: Handed) -> None:
        handed.open, to = False, handed.to
        to.handed.pop(handed.message_id, None)
        if to.turn is not None and to.turn.message_id == handed.message_id:
            self._retract(to)

    # Answers

    def answered(self, slot: Slot, turn: TurnRef, after: Aftermath, at: float) -> Callable[[bool], None]:
        """A unit that ends a turn is the writer's: who asked goes on with the answer, or will as soon as it rests."""
        handed = slot.handed.get(turn.message_id)
        if handed is None or handed.place is None or after.replied is None:
            return _nobody
        answer, asker = Answer(handed, after.replied, at), handed.asker
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
        waits = self._at(slot, answer.of) and slot.state == "parked" and place in slot.awaits
        if not waits or place is None or slot.leave or slot.stale or slot.held or slot.stopped:
            return  # it hears of it when that is committed
        self.resume(slot, place, "answered", answer.body, answer.at)
        if slot.turn is not None and slot.state == "running":
            given: Row = (handing.ANSWERED, (slot.turn.turn_id, *place, answer.at), 1)
            slot.turn, slot.unsure, answer.told = replace(slot.turn, given=(given,)), [], True

    def _at(self, slot: Slot, handed: Handed) -> bool:
        return self._node.slots.holds(slot) and slot.turn is not None and slot.turn.turn_id == handed.turn_id

    def _is_answered(self, await_id: str, at: float) -> bool:
        """Whether it was the first: its time may have been over, and that is committed."""
        try:
            row = self._node.reader.one(sql.AWAIT_ROW, await_id)
        except Away:
            return False
        return row is not None and row[5] == "answered" and row[7] == at

    # What is unsure

    def _sure(self, slot: Slot) -> None:
        """What its turn was handed is committed."""
        if slot.turn is not None:
            slot.turn = replace(slot.turn, given=())
        waiting, slot.unsure = slot.unsure or [], None
        for act in waiting:
            act()

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
        if slot.state == "parked":
            self._node.turns.goes_on(slot, turn)
        for of_attempt in (slot.awaits, slot.held, slot.lasting, slot.effects):
            of_attempt.discard(place)
        slot.told.add(place)
        slot.said += 1
        faults.at("gate.resume")
        host.wire.send(Resolved(turn.turn_id, *place, outcome, result.encode(), at))

    def _replay(self, slot: Slot) -> None:
        """An operator wants an effect sent once more: whoever asks for it again has it sent."""
        assert slot.host is not None
        slot.host.wire.send(Evict(slot.uid, slot.epoch, abort=True))
        slot.state, slot.more = "parked", True
        slot.effects.clear()
        self._node.hosts.turn_over(slot)
        self._node.ownership.let_go(slot)


def _nobody(committed: bool) -> None:
    """Nobody was told."""
