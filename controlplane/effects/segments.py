"""What a segment may not hold: found before it is committed, by what the records say now.

An entry must be what its kind says, at the next position; data for a channel must meet the channel's
schema; a message must find room in the inbox it goes to. A full inbox is a reason to try again
later, with the same ids; anything else fails the turn for good. Nothing is dropped.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec
import orjson

from controlplane.effects.bodies import require_body
from controlplane.effects.node import Node
from controlplane.effects.slots import Slot
from controlplane.effects.turnref import Outside, TurnRef, split
from controlplane.mesh.making import too_many
from controlplane.resources.problems import problem
from controlplane.store import channels, invitations, workspaces
from controlplane.store import statements as sql
from schemas.branches import ORDER, is_branch
from schemas.chain import DEPTH_MAX
from schemas.channel import CHANNELS_MAX
from schemas.endpoint import UNTRUSTED
from schemas.problem import Refusal
from schemas.wire import Ask, Commit, Entry
from schemas.workspace import Workspace, over, saved, unfit_paths

ORDER_BYTES = 64  # of an answer's place in the order, at most
_json = msgspec.json.Decoder(msgspec.Raw)


class Unfit(NamedTuple):
    """Why a turn can not go on as it is; `problem` is a Problem as a dict."""

    problem: dict[str, Any]
    retry: bool


def unfit(
    node: Node, slot: Slot, turn: TurnRef, entries: Sequence[Entry], *, ends: bool = False, asks: Ask | None = None
) -> Unfit | None:
    """Why a segment can not be committed; None when it can. `ends` is said of the last one of a turn.

    `asks` is the external effect that it stands before.
    """
    if (beyond := _beyond(slot, turn, entries, asks)) is not None:
        return beyond
    last = len(entries) - 1 if ends and turn.trigger != "start" else None
    lengths: dict[str, int] = {}
    for index, entry in enumerate(entries):
        position = lengths.get(entry.branch, turn.length(entry.branch))
        lengths[entry.branch] = position + 1
        found = _misshapen(entry, position)
        if found is None and entry.kind == "continue" and index != last:
            found = _unjournaled(entry, "a turn goes on as another at its end alone")
        if found is None and turn.chain is not None and turn.chain.depth >= DEPTH_MAX and _budget(entry):
            found = _too_deep(turn.chain.depth)
        if found is None and entry.kind in ("send", "publish"):
            found = _delayed_elsewhere(turn, entry)
        if found is None and entry.kind in ("publish", "join", "leave"):
            found = _of_channel(node, slot, turn, entry)
        if found is None and entry.kind in ("send", "ask", "request"):
            body = orjson.loads(entry.body)
            found = _no_room(node, turn, entry.kind, body["to"]) or _too_many_wait(node, turn, entry.kind, body)
        if found is not None:
            return found
    return _no_home(node, turn, sum(it.kind == "spawn" for it in entries))


def weight(entries: Sequence[Entry], asks: Ask | None) -> int:
    """How many bytes it adds to the journal."""
    return sum(len(it.body) for it in entries) + (0 if asks is None else len(asks.arguments))


def unfit_end(frame: Commit, state_bytes_max: int) -> Unfit | None:
    """Why a turn can not end as its host says."""
    try:
        frame.state.decode()
        _json.decode(frame.state)
        frame.reply.decode()
        _json.decode(frame.reply)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        detail = f"the host sent a state or an answer that is no JSON: {error}"
        return Unfit(problem("INTERNAL", detail, fault=str(error)).model_dump(mode="json"), retry=False)
    if len(frame.state) > state_bytes_max:
        detail = f"the state has {len(frame.state)} bytes, and at most {state_bytes_max} are kept"
        found = problem("LIMIT_REACHED", detail, limit="state_bytes_max", bytes=len(frame.state), max=state_bytes_max)
        return Unfit(found.model_dump(mode="json"), retry=False)
    return None


def unfit_folder(node: Node, turn: TurnRef, frame: Commit) -> Unfit | None:
    """Why the files of a turn can not be kept."""
    if not frame.files and not frame.gone:
        return None
    declared = turn.pinned.get("workspace")
    if declared is None:
        found = problem("INTERNAL", "the host sent files of an agent that has no workspace")
        return Unfit(found.model_dump(mode="json"), retry=False)
    limits = Workspace.model_validate(declared)
    sizes = {row[0]: row[1] for row in node.reader.rows(workspaces.SIZES, turn.agent)}
    if missing := [path for path in frame.gone if sizes.pop(path, None) is None]:
        found = problem("INTERNAL", f"the host says that {missing[0]!r} is gone, which was not there", path=missing[0])
        return Unfit(found.model_dump(mode="json"), retry=False)
    if wrong := [it.path for it in frame.files if saved(it.path, it.body, executable=False).digest != it.digest]:
        found = problem("INTERNAL", f"the host sent {wrong[0]!r} under a digest that is another's", path=wrong[0])
        return Unfit(found.model_dump(mode="json"), retry=False)
    sizes |= {it.path: len(it.body) for it in frame.files}
    fault = unfit_paths(it.path for it in frame.files) or over(sizes, limits.bytes_max, limits.files_max)
    if fault is None:
        return None
    reason = "INVALID_WORKSPACE" if fault.limit is None else "LIMIT_REACHED"
    return Unfit(problem(reason, fault.detail, **fault.values).model_dump(mode="json"), retry=False)


def outside(node: Node, slot: Slot, turn: TurnRef, entries: Sequence[Entry]) -> Outside:
    """What of the world beyond its agent a segment is committed by, as it is now."""
    generations: dict[str, int] = {}
    opened: dict[tuple[str, str], str] = {}
    trusts: dict[str, str] = {}
    for entry in entries:
        if entry.kind == "spawn":
            name = orjson.loads(entry.body)["name"]
            row = node.reader.one(sql.RESOURCE, turn.namespace, name)
            generations[name] = 1 if row is None else int(row[1]) + 1
        elif entry.kind in invitations.EFFECTS:
            body = orjson.loads(entry.body)
            address = body.get("channel") or body["to"]
            if split(address)[0] != turn.namespace and (by := invited(node, turn, entry.kind, address)) is not None:
                opened[entry.kind, address] = by
            if (name := body.get("received_over")) is not None and name not in trusts:
                link = node.connections.named(turn.namespace, name)
                trusts[name] = UNTRUSTED if link is None else link.spec.trust  # it may be gone by now
        elif entry.kind == "leave":  # whoever is a guest may always go
            address = orjson.loads(entry.body)["channel"]
            if split(address)[0] != turn.namespace and is_member(node, turn, address):
                opened["leave", address] = ""
    absent = frozenset((turn.namespace, it) for it in slot.first_uses)
    return Outside(generations, opened, absent, node.delivery.room, trusts)


def is_member(node: Node, turn: TurnRef, address: str) -> bool:
    """Whether the agent reads a channel."""
    return node.reader.one(invitations.IS_MEMBER, *split(address), turn.agent) is not None


def invited(node: Node, turn: TurnRef, kind: str, address: str) -> str | None:
    """The invitation that opens an address of another namespace, at this moment, to this kind of entry."""
    namespace, name = split(address)
    what, effect = "Channel" if kind in ("publish", "join") else "Agent", invitations.pattern(invitations.EFFECTS[kind])
    given = (turn.namespace, namespace, name, what, turn.name, effect, node.clock())
    row = node.reader.one(invitations.OPENED, *given)
    return None if row is None else str(row[0])


def _budget(entry: Entry) -> bool:
    return entry.kind in ("send", "ask", "request", "spawn") and orjson.loads(entry.body).get("budget") is not None


def _too_deep(depth: int) -> Unfit:
    detail = f"the message lies within {depth} budgets already, and at most {DEPTH_MAX} lie within each other"
    return Unfit(problem("LIMIT_REACHED", detail, limit="budgets", max=DEPTH_MAX).model_dump(mode="json"), retry=False)


def _beyond(slot: Slot, turn: TurnRef, entries: Sequence[Entry], asks: Ask | None) -> Unfit | None:
    """The bounds of a turn, which its host keeps, too: it counts answers as well, but not their order."""
    limits = turn.pinned.get("limits") or {}
    most, bytes_max = int(limits.get("effects_max", 1000)), turn.journal_bytes_max
    effects = turn.entries - turn.length(ORDER) + sum(it.branch != ORDER for it in entries) + (asks is not None)
    if effects > most:
        found = problem("LIMIT_REACHED", f"a turn has at most {most} effects", limit="effects_max", max=most)
    elif slot.journaled + weight(entries, asks) > bytes_max + most * ORDER_BYTES:
        detail = f"the journal of a turn holds at most {bytes_max} bytes"
        found = problem("LIMIT_REACHED", detail, limit="journal_bytes_max", max=bytes_max)
    else:
        return None
    return Unfit(found.model_dump(mode="json"), retry=False)


def _no_home(node: Node, turn: TurnRef, children: int) -> Unfit | None:
    found = node.quota.lacks(turn.namespace, children) if children else None
    return None if found is None else Unfit(found.model_dump(mode="json"), retry=False)


def _misshapen(entry: Entry, position: int) -> Unfit | None:
    try:
        require_body(entry.kind, entry.body)
        placed = entry.branch == ORDER if entry.kind == ORDER else is_branch(entry.branch)
        if placed and entry.position == position:
            return None
        fault = f"it stands at {entry.branch[:20]}:{entry.position}, where {position} of a branch was to come"
    except ValueError as error:
        fault = str(error)
    return _unjournaled(entry, fault)


def _unjournaled(entry: Entry, fault: str) -> Unfit:
    detail = f"the host sent an entry that can not be journaled: {fault}"
    return Unfit(problem("INTERNAL", detail, kind=entry.kind[:40], fault=fault).model_dump(mode="json"), retry=False)


def _of_channel(node: Node, slot: Slot, turn: TurnRef, entry: Entry) -> Unfit | None:
    """What is said of a channel: one that is not there can be made, one that is watched is not left."""
    body = orjson.loads(entry.body)
    namespace, name = split(body["channel"])
    own = namespace == turn.namespace
    if not own and (entry.kind == "leave" or not invited(node, turn, entry.kind, body["channel"])):
        return None  # it reaches nobody there, and hears nothing of what is there
    if entry.kind == "leave":
        watched = any(it.get("channel") == name for it in turn.spec.get("watches") or ())
        return _watched(turn, name) if watched else None
    reader = node.reader
    row = reader.one(sql.CHANNEL_SPEC, namespace, name)
    if row is None and not own:
        return None
    if row is None:
        slot.first_uses.add(name)
        most = reader.rows(channels.COUNT, namespace, CHANNELS_MAX)[0][0] >= CHANNELS_MAX
        return Unfit(too_many(namespace).model_dump(mode="json"), retry=True) if most else None
    if own:
        slot.first_uses.discard(name)
    if entry.kind == "join":
        return None
    spec = orjson.loads(row[0])
    unfit = _against_schema(body, spec.get("dataschema"))
    if unfit is None and spec.get("mode") == "queue":
        full = node.delivery.queues.full(row[1], body["channel"], spec["backlog_messages_max"])
        unfit = None if full is None else Unfit(full.model_dump(mode="json"), retry=True)
    return unfit or _too_many_wait(node, turn, entry.kind, body)


def _too_many_wait(node: Node, turn: TurnRef, kind: str, body: dict[str, Any]) -> Unfit | None:
    """Of what is not due yet, only so much waits for one inbox or channel that it can reach."""
    to = body["channel"] if kind == "publish" else body["to"]
    namespace, name = split(to)
    waits = body.get("delay_s") and namespace == turn.namespace
    full = node.delaying.full("Channel" if kind == "publish" else "Agent", namespace, name) if waits else None
    return None if full is None else Unfit(full.model_dump(mode="json"), retry=True)


def _delayed_elsewhere(turn: TurnRef, entry: Entry) -> Unfit | None:
    """An invitation is looked at when a message is sent: it would be over, and the message not."""
    body = orjson.loads(entry.body)
    to = body["channel"] if entry.kind == "publish" else body["to"]
    if not body.get("delay_s") or split(to)[0] == turn.namespace:
        return None
    detail = f"a message to {to}, in another namespace, can not be delayed; send it when its time has come"
    found = problem("INVALID_VALUE", detail, field="/delay_s", to=to)
    return Unfit(found.model_dump(mode="json"), retry=False)


def _watched(turn: TurnRef, name: str) -> Unfit:
    detail = f"agent {turn.address} watches {name} by its spec; propose it without that watch"
    found = problem("OWNED", detail, namespace=turn.namespace, name=name, agent=turn.name)
    return Unfit(found.model_dump(mode="json"), retry=False)


def _against_schema(body: dict[str, Any], schema: Any) -> Unfit | None:
    if schema is None:
        return None
    namespace, name = split(body["channel"])
    from controlplane.mesh.dataschema import require_match  # JSON Schema is dear to import, and few channels have one

    try:
        require_match(schema, body["data"], namespace, name)
    except Refusal as refusal:
        return Unfit(refusal.problem.model_dump(mode="json"), retry=False)
    return None


def _no_room(node: Node, turn: TurnRef, kind: str, to: str) -> Unfit | None:
    namespace, name = split(to)
    if to == turn.address or (namespace != turn.namespace and not invited(node, turn, kind, to)):
        return None
    awake = node.slots.awake(namespace, name)
    row = (awake.uid,) if awake is not None else node.reader.one(sql.AGENT_UID, namespace, name)
    if row is None:
        return None
    full = node.planes.full(row[0], to)
    return None if full is None else Unfit(full.model_dump(mode="json"), retry=True)
