"""From rows to the next turn: the open one first, then the oldest message; and the frame that runs it.

An open turn of before (parked, or cut off by a crash) is finished before anything new. One that is
parked on an await which nobody has resolved is no work: the agent stays a row.
"""

from collections import Counter
from datetime import datetime
from typing import Any

import msgspec
import orjson
from msgspec.structs import replace

from controlplane.effects.consuming import finished_of_queue
from controlplane.effects.filed import Filed, waiting
from controlplane.effects.node import Node
from controlplane.effects.slots import Slot
from controlplane.effects.turnref import TurnRef
from controlplane.store import chains, states, workspaces
from controlplane.store import statements as sql
from controlplane.store.external import WAITS_AT
from schemas.base import turn_of
from schemas.branches import FORMATS_READ, ROOT, Place
from schemas.wire import Recorded, Run
from schemas.workspace import Folder, Saved, Workspace

CARRIED = ("onbehalfof", "intentid", "chainid", "deadline", "scope", "taint", "traceparent")
PINNED = ("entrypoint", "config", "limits", "llm", "workspace", "on_hold")


class Head(msgspec.Struct):
    """What the gate reads of a message; its data stays unread."""

    source: str = ""
    replyto: str | None = None
    onbehalfof: str | None = None
    traceparent: str | None = None
    deadline: datetime | None = None
    intentid: str | None = None
    chainid: str | None = None
    scope: str | None = None
    taint: str | None = None
    expires: datetime | None = None

    @property
    def by_operator(self) -> bool:
        """Whether a plane made it for an operator: what agents and channels send has a source of three parts."""
        return self.source.startswith("/operators/") and self.source.count("/") == 2


_head = msgspec.json.Decoder(Head)


def next_turn(node: Node, slot: Slot) -> bool:
    """Whether the slot has a turn to run now; it is put into `slot.turn`."""
    if slot.turn is not None and not slot.awaits:
        return True
    if slot.state == "free" and _open_turn(node, slot):
        return not slot.awaits
    if slot.turn is not None:
        return False
    if slot.coming is not None:
        (turn_id, message_id, body), slot.coming = slot.coming, None
        slot.turn = _ref(node, slot, turn_id, message_id, "message", body, 0, "", node.clock(), None)
        slot.last, slot.asked = True, ""
        node.handing.taken(slot, slot.turn)
        return True
    if slot.emptied:
        return False
    slot.unread = True
    row = node.reader.one(sql.NEXT_MESSAGE, slot.uid, slot.uid, slot.uid)
    slot.more = False  # whatever rang before is in what was read
    if row is None:
        slot.unread = False
        return False
    message_id, trigger, body, attempts, waiting, *placed = row
    if trigger == "start" and not _reached(node, slot):
        return False
    turn_id = turn_of(slot.uid, message_id)
    turn = _ref(node, slot, turn_id, message_id, trigger, body, attempts, "", node.clock(), None)
    turn = _placed(turn, *placed)
    finished, asked = node.reader.rows(sql.TURN_BEFORE, turn_id, turn.replyto or "")[0]
    if finished is not None:
        _consume_again(node, turn)
        return False
    slot.turn, slot.last, slot.asked = turn, waiting == 1, asked or ""
    slot.unread = not slot.last
    return True


def _reached(node: Node, slot: Slot) -> bool:
    """Whether the slot is of the generation that is to start, whose bell may come after others; else it must go."""
    row = node.reader.one(sql.GENERATION, slot.uid)
    if row is None or row[0] == slot.generation:
        return True
    if slot.state == "free":
        node.slots.refresh(slot)
        return True
    slot.stale = slot.more = True
    return False


def _placed(turn: TurnRef, queue: str | None, key: str | None, attempts_max: int | None) -> TurnRef:
    """With what its message came by, where that says anything."""
    if queue is None and key is None and attempts_max is None:
        return turn
    return replace(turn, queue=queue, key=key, attempts_max=attempts_max)


def _consume_again(node: Node, turn: TurnRef) -> None:
    """A message that was handled before came once more, by a channel that was joined anew: it is done."""
    rows = [*finished_of_queue(turn), (sql.CONSUME, (turn.agent, turn.message_id), -1)]

    def repeated(outcome: str, _detail: str) -> None:
        if outcome == "ok":
            node.ownership.ring(turn.agent)
            if turn.queue is not None:
                node.delivery.queues.finished(turn.queue, turn.agent)

    node.commit("repeat", rows, repeated)


def _open_turn(node: Node, slot: Slot) -> bool:
    """Take up an open turn, if there is one; `awaits` says what it still waits for."""
    row = node.reader.one(sql.OPEN_TURN, slot.uid)
    if row is None:
        return False
    turn_id, message_id, digest, started_at, entries, pinned, looked_for, ends_by, written = row
    message = node.reader.one(sql.MESSAGE, slot.uid, message_id)
    if message is None:
        return False
    about = (message[1], message[2], message[3], digest, started_at, entries)
    turn = _ref(node, slot, turn_id, message_id, *about)
    turn = _placed(replace(turn, looked_for=looked_for or 0, ends_by=ends_by), *message[4:])
    if pinned is not None:
        turn = replace(turn, pinned=orjson.loads(pinned))
    if written not in FORMATS_READ:  # nobody here can run it: it rests, until it is ended
        slot.turn, slot.awaits = replace(turn, format=written), {(ROOT, entries)}
        return True
    last = node.reader.rows(sql.JOURNAL_LAST, turn_id)
    branched = [Filed(*row) for row in node.reader.rows(sql.JOURNAL_BRANCHES, turn_id)]

    def held(place: Place) -> bool:
        return node.reader.one(WAITS_AT, turn_id, *place) is not None

    root = [Filed(ROOT, position, kind, "{}", outcome) for position, kind, outcome in last]
    awaits = waiting(root, held) or waiting(branched, held)  # all of it is read before any of it counts
    slot.turn, slot.awaits = replace(turn, branches=dict(Counter(it.branch for it in branched))), awaits
    return True


def chain_id(node: Node, of_agent: str | None, turn_id: str) -> str:
    """The chain that a turn of before was within, if only that of its agent; empty where there was none."""
    row = node.reader.one(chains.MESSAGE_OF, turn_id)
    found = _head.decode(row[0]).chainid if row is not None else None
    return found or of_agent or ""


def _going_on(node: Node, body: str) -> str:
    """A reply, with what the turn that made the request went on: it is part of the same."""
    reply = orjson.loads(body)
    row = node.reader.one(chains.ASKED_IN, reply.get("causationid"))
    if row is None:
        return body
    asked = orjson.loads(row[0])
    kept = {name: asked[name] for name in CARRIED if asked.get(name) is not None and reply.get(name) is None}
    return orjson.dumps(reply | kept).decode() if kept else body


def _ref(
    node: Node, slot: Slot, turn_id: str, message_id: str, trigger: str, body: str,
    attempts: int, digest: str, started_at: float, entries: int | None,
) -> TurnRef:  # fmt: skip
    body = _going_on(node, body) if trigger == "reply" else body
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
        pinned=pinned_by(slot.spec),
        onbehalfof=about.onbehalfof,
        traceparent=about.traceparent,
        replyto=about.replyto,
        by_operator=about.by_operator,
        deadline=about.deadline.timestamp() if about.deadline is not None else None,
        intentid=about.intentid,
        scope=slot.scope or about.scope,
        scoped=slot.scope is not None,
        taint=about.taint,
        expires=about.expires.timestamp() if about.expires is not None else None,
        chain=node.budgeting.chain(about.chainid or slot.chain),
    )


def pinned_by(spec: dict[str, Any]) -> dict[str, Any]:
    """What of a spec a turn that begins now stays on."""
    return {name: spec.get(name) for name in PINNED}


def run_frame(node: Node, slot: Slot, turn: TurnRef) -> Run:
    """The frame that runs the turn; the state goes along unless the host holds it."""
    state = b""
    if slot.resident != slot.version and slot.version > 0:
        if slot.state_text is None:
            row = node.reader.one(sql.AGENT_BY_UID, slot.uid)
            slot.state_text = _state(node, row) if row else ""
        state = (slot.state_text or "").encode()
    workspace = _workspace(node, slot, turn)
    slot.resident, slot.state_text = slot.version, None
    journal = recorded(node, turn) if turn.recorded else []
    slot.journaled = sum(len(it.body) for it in journal)
    pinned = turn.pinned
    limits = pinned.get("limits") or {}
    return Run(
        agent=slot.uid,
        namespace=slot.namespace,
        name=slot.name,
        epoch=slot.epoch,
        version=slot.version,
        entrypoint=pinned["entrypoint"],
        config=orjson.dumps(pinned.get("llm") or pinned.get("config") or {}),
        state=state,
        turn_id=turn.turn_id,
        trigger=turn.trigger,
        message=turn.message.encode(),
        started_at=turn.started_at,
        journal=journal,
        effects_max=int(limits.get("effects_max", 1000)),
        journal_bytes_max=turn.journal_bytes_max,
        turn_s_max=float(limits.get("turn_s_max", 60)),
        state_version=slot.state_version,
        workspace=workspace,
        turn_s_left=slot.turn_s_left,
    )


def _workspace(node: Node, slot: Slot, turn: TurnRef) -> Folder | None:
    """The agent's folder, if its turn has one; files go along unless the host holds them."""
    declared = turn.pinned.get("workspace")
    if declared is None:
        slot.foldered = False
        return None
    limits = Workspace.model_validate(declared)
    files = None
    if slot.resident != slot.version or not slot.foldered:
        rows = node.reader.rows(workspaces.FILES, slot.uid)
        files = [Saved(path, digest, bool(executable), bytes(body)) for path, digest, executable, body in rows]
    slot.foldered = True
    return Folder(limits.bytes_max, limits.files_max, files)


def _state(node: Node, row: tuple[Any, ...]) -> str | None:
    """The committed state, whole."""
    uid, text, chunks = row[0], row[8], row[13]
    if chunks is None:
        return None if text is None else str(text)
    return states.whole(chunks, [(name, bytes(body)) for name, body in node.reader.rows(states.PIECES, uid)])


def recorded(node: Node, turn: TurnRef) -> list[Recorded]:
    """The journal of an open turn, for its replay."""
    found = []
    for row in node.reader.rows(sql.JOURNAL, turn.turn_id):
        branch, position, kind, body, outcome, result, finished_at, at, state = row
        said, value = outcome or "", (result or "").encode()
        state = "" if turn.proving else state or ""  # newer code may keep other things
        if turn.proving and (branch, position) in turn.rests_at:  # it ends there, even if the answer has come meanwhile
            said, value = "", b""
        found.append(Recorded(branch, position, kind, body.encode(), said, value, finished_at or at, state))
    return found
