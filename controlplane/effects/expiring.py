"""Questions whose message expires in the inbox: who asked is answered at once, and not at the deadline.

A message that is next is judged where its turn would begin; here are those that lie behind others, or whose agent is
parked, stopped or without a host. One with which a turn has begun has only its deadline left.
"""

from functools import partial
from typing import NamedTuple

from controlplane.effects import journaling
from controlplane.effects.endings import too_late
from controlplane.effects.node import MESSAGES, Node
from controlplane.effects.slots import Slot
from controlplane.effects.turnref import Row
from controlplane.store import expired as sql
from controlplane.store import statements
from schemas.base import canonical, turn_of

AGAIN_S = 1.0


class Late(NamedTuple):
    """A question whose message has expired, and whom it is for."""

    await_id: str
    target: str
    uid: str
    namespace: str
    name: str


class Expiring:
    """The open questions to this gate's agents whose message has a time to live."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._ending: set[str] = set()

    def due(self, now: float) -> list[partial[None]]:
        """Those whose time is over."""
        return [partial(self._look_at, Late(*row), now) for row in self._node.reader.rows(sql.EXPIRED, now)]

    def _look_at(self, it: Late, now: float) -> None:
        await_id, target, uid, namespace, name = it
        if await_id in self._ending:
            return
        slot, turn_id = self._node.slots.get(uid), turn_of(uid, await_id)
        if slot is not None and slot.turn is not None and slot.turn.message_id == await_id and _about_to_begin(slot):
            self._node.ownership.pump(slot)  # it is judged there
        if _begun(slot, await_id) or self._node.reader.one(sql.HAS_TURN, turn_id, uid, await_id) is not None:
            self._end(uid, await_id, [(sql.BEGUN, (await_id,), -1)])
            return
        found = too_late(await_id)
        body = found.model_dump(mode="json")
        told = canonical({"message_id": await_id, "reason": found.reason, "detail": found.detail, "trigger": "message"})
        event = ("message.dead_lettered", now, "Agent", namespace, name, None, turn_id, told.decode())
        rows: list[Row] = [
            (sql.OVER, (turn_id, now, now, canonical(body).decode(), uid, await_id, turn_id), 1),
            (sql.LETTER, (namespace, name, found.detail, turn_id, now, uid, await_id), 1),
            (statements.CONSUME, (uid, await_id), 1),
            (statements.EVENT, event, 1),
            *journaling.refusal(target, await_id, body, now),
        ]
        self._end(uid, await_id, rows)

    def _end(self, uid: str, await_id: str, rows: list[Row]) -> None:
        self._ending.add(await_id)

        def ended(outcome: str, _detail: str) -> None:
            self._ending.discard(await_id)
            if outcome == "ok":
                if (slot := self._node.slots.get(uid)) is not None:
                    slot.handed.pop(await_id, None)
                self._node.timers.resolved(await_id)
            else:  # its turn began, or ended, at that very moment
                self._node.timers.arm(self._node.clock() + AGAIN_S)

        self._node.commit("expired", rows, ended, MESSAGES)


def _about_to_begin(slot: Slot) -> bool:
    return slot.state in ("free", "idle")


def _begun(slot: Slot | None, message_id: str) -> bool:
    """Whether it is with its host, or its turn is being ended; that one may not be on record."""
    if slot is None:
        return False
    if slot.coming is not None and slot.coming[1] == message_id:
        return False
    return slot.turn is not None and slot.turn.message_id == message_id and not _about_to_begin(slot)
