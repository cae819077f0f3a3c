"""Work that nobody waits for any more: whoever asked has failed, was deleted, or has answers enough.

A question that is cancelled takes along the turn that handles it, unless that turn is on its host just now:
one that has not begun does not begin, one that is parked ends, and what it had asked itself is cancelled
with it, all the way down. What such a turn has sent stays sent. A turn that runs is left to its next rest;
an answer that it gives before is late.
"""

from collections.abc import Iterable

import orjson
from msgspec.structs import replace

from controlplane.effects.node import Node
from controlplane.effects.slots import Slot
from controlplane.resources.problems import problem
from controlplane.store import cancelling as sql

Asked = tuple[str, str]  # the agent that was asked, and the await


class Cancelling:
    """The questions to this gate's agents that were cancelled."""

    def __init__(self, node: Node) -> None:
        self._node = node

    def asked_by(self, turn_id: str) -> list[Asked]:
        """What a turn still waits for."""
        return [(row[0], row[1]) for row in self._node.reader.rows(sql.ASKED_BY_TURN, turn_id)]

    def asked_by_agent(self, uid: str) -> list[Asked]:
        """What an agent still waits for."""
        return [(row[0], row[1]) for row in self._node.reader.rows(sql.ASKED_BY_AGENT, uid)]

    def recover(self) -> None:
        """What was cancelled, and the gate died before it told."""
        self.cancelled([(row[0], row[1]) for row in self._node.reader.rows(sql.CANCELLED_OPEN)])
        continued = [(row[0], orjson.loads(row[1])) for row in self._node.reader.rows(sql.CONTINUED_OPEN)]
        asked = [(agent, str(message["replyto"])) for agent, message in continued if message.get("replyto")]
        self.cancelled([it for it in asked if self._is(it[1])])

    def settled(self, group: str) -> None:
        """A gathering has its answers: whoever was asked besides need not go on."""
        self.cancelled([(row[0], row[1]) for row in self._node.reader.rows(sql.CANCELLED_MEMBERS, group)])

    def cancelled(self, asked: Iterable[Asked]) -> None:
        """These questions were cancelled: end what handles them, where it rests."""
        for uid, await_id in asked:
            slot = self._node.slots.get(uid)
            if slot is None or slot.state == "free":
                self._node.ownership.ring(uid)
            elif slot.state == "parked" and slot.turn is not None and slot.turn.replyto == await_id:
                slot.leave = True
                self._node.ownership.let_go(slot)
            elif slot.state == "leaving":  # it is looked at when it has left, by nobody else
                slot.more = True

    def parked(self, slot: Slot) -> None:
        """A turn has come to a rest; its question may have been cancelled meanwhile."""
        if slot.turn is not None and slot.turn.replyto is not None and self._is(slot.turn.replyto):
            self.cancelled([(slot.uid, slot.turn.replyto)])

    def ends(self, slot: Slot) -> bool:
        """Whether the turn of an agent that rests is for nobody; then it ends."""
        turn = slot.turn
        if turn is None or turn.replyto is None or turn.proving:
            return False
        if not (self._is(turn.replyto) if slot.asked is None else slot.asked == "cancelled"):
            return False
        if self._node.holding.holds(turn.turn_id):  # what is in doubt is settled first; then it is looked at again
            return False
        detail = f"nobody waits for the answer of {slot.address} to {turn.replyto} any more"
        found = problem("CANCELLED", detail, await_id=turn.replyto, agent=slot.address, turn_id=turn.turn_id)
        owner = slot.host.host_id if slot.host is not None else ""
        ref = replace(turn, owner=owner, epoch=slot.epoch, version=slot.version)
        self._node.turns.bury(slot, ref, found.model_dump(mode="json"), 0, owned=slot.state == "idle")
        return True

    def _is(self, await_id: str) -> bool:
        row = self._node.reader.one(sql.OUTCOME, await_id)
        return row is not None and row[0] == "cancelled"
