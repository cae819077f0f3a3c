"""From rows to the next turn: the open one first, then the oldest message; and the frame that runs it.

An open turn of before (parked, or cut off by a crash) is finished before anything new. One that is
parked on an await which nobody has resolved is no work: the agent stays a row.
"""

from dataclasses import replace

import msgspec
import orjson

from controlplane.effects.entries import TurnRef
from controlplane.effects.node import Node
from controlplane.effects.slots import Slot
from controlplane.store import statements as sql
from controlplane.store.external import HELD_AT
from schemas.base import short_id
from schemas.wire import Recorded, Run

AWAITED = ("ask", "sleep", "gather")
PINNED = ("entrypoint", "config", "limits")


class Head(msgspec.Struct):
    """What the gate reads of a message; its data stays unread."""

    replyto: str | None = None
    onbehalfof: str | None = None
    traceparent: str | None = None


_head = msgspec.json.Decoder(Head)


def next_turn(node: Node, slot: Slot) -> bool:
    """Whether the slot has a turn to run now; it is put into `slot.turn`."""
    if slot.turn is not None and slot.await_position is None:
        return True
    if slot.state == "free" and _open_turn(node, slot):
        return slot.await_position is None
    if slot.turn is not None:
        return False
    row = node.reader.one(sql.NEXT_MESSAGE, slot.uid)
    if row is None:
        return False
    message_id, trigger, body, attempts = row
    turn_id = short_id("turn", slot.uid, message_id)
    if node.reader.one(sql.TURN_FINISHED, turn_id) is not None:
        _consume_again(node, slot.uid, message_id)
        return False
    slot.turn = _ref(slot, turn_id, message_id, trigger, body, attempts, "", node.clock(), None)
    return True


def _consume_again(node: Node, uid: str, message_id: str) -> None:
    """A message that was handled before came once more, by a channel that was joined anew: it is done."""
    row = (sql.CONSUME, (uid, message_id), -1)
    node.commit("repeat", [row], lambda outcome, _: node.ownership.ring(uid) if outcome == "ok" else None)


def _open_turn(node: Node, slot: Slot) -> bool:
    """Take up an open turn, if there is one; `await_position` says what it still waits for."""
    row = node.reader.one(sql.OPEN_TURN, slot.uid)
    if row is None:
        return False
    turn_id, message_id, digest, started_at, entries, pinned = row
    message = node.reader.one(sql.MESSAGE, slot.uid, message_id)
    if message is None:
        return False
    slot.turn = _ref(slot, turn_id, message_id, message[1], message[2], message[3], digest, started_at, entries)
    if pinned is not None:
        slot.turn = replace(slot.turn, pinned=orjson.loads(pinned))
    last = node.reader.rows(sql.JOURNAL_LAST, turn_id)
    waiting = bool(last) and last[0][2] is None and (last[0][1] in AWAITED or _held(node, turn_id, *last[0][:2]))
    slot.await_position = int(last[0][0]) if waiting else None
    return True


def _held(node: Node, turn_id: str, position: int, kind: str) -> bool:
    """Whether the entry is an effect that waits for an operator."""
    row = node.reader.one(HELD_AT, turn_id, "0", position) if kind == "effect" else None
    return row is not None and row[3] is None


def _ref(
    slot: Slot, turn_id: str, message_id: str, trigger: str, body: str,
    attempts: int, digest: str, started_at: float, entries: int | None,
) -> TurnRef:  # fmt: skip
    about = _head.decode(body)
    return TurnRef(
        agent=slot.uid,
        namespace=slot.namespace,
        name=slot.name,
        owner="",
        epoch=slot.epoch,
        version=slot.version,
        turn_id=turn_id,
        message_id=message_id,
        trigger=trigger,
        message=body,
        attempts=attempts,
        digest=digest or str(slot.spec["code"]["digest"]),
        started_at=started_at,
        entries=entries or 0,
        recorded=entries is not None,
        spec=slot.spec,
        pinned={name: slot.spec.get(name) for name in PINNED},
        onbehalfof=about.onbehalfof,
        traceparent=about.traceparent,
        replyto=about.replyto,
    )


def run_frame(node: Node, slot: Slot, turn: TurnRef) -> Run:
    """The frame that runs the turn; the state goes along unless the host holds it."""
    state = b""
    if slot.resident != slot.version and slot.version > 0:
        if slot.state_text is None:
            row = node.reader.one(sql.AGENT_BY_UID, slot.uid)
            slot.state_text = row[8] if row else ""
        state = (slot.state_text or "").encode()
    slot.resident, slot.state_text = slot.version, None
    pinned = turn.pinned
    limits = pinned.get("limits") or {}
    return Run(
        agent=slot.uid,
        namespace=slot.namespace,
        name=slot.name,
        epoch=slot.epoch,
        version=slot.version,
        entrypoint=pinned["entrypoint"],
        config=orjson.dumps(pinned.get("config") or {}),
        state=state,
        turn_id=turn.turn_id,
        trigger=turn.trigger,
        message=turn.message.encode(),
        started_at=turn.started_at,
        journal=recorded(node, turn) if turn.recorded else [],
        effects_max=int(limits.get("effects_max", 1000)),
        journal_bytes_max=int(limits.get("journal_bytes_max", 1_048_576)),
        turn_s_max=float(limits.get("turn_s_max", 60)),
    )


def recorded(node: Node, turn: TurnRef) -> list[Recorded]:
    """The journal of an open turn, for its replay."""
    return [
        Recorded(branch, position, kind, body.encode(), outcome or "", (result or "").encode(), finished_at or at)
        for branch, position, kind, body, outcome, result, finished_at, at in node.reader.rows(
            sql.JOURNAL, turn.turn_id
        )
    ]
