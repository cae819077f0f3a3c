"""What a segment may not hold: found before it is committed, by what the records say now.

An entry must be what its kind says, at the next position; data for a channel must meet the channel's
schema; a message must find room in the inbox it goes to. A full inbox is a reason to try again
later, with the same ids; anything else fails the turn for good. Nothing is dropped.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec
import orjson

from controlplane.effects.entries import TurnRef, split
from controlplane.effects.node import Node
from controlplane.effects.reading import Reader
from controlplane.effects.slots import Slot
from controlplane.resources.problems import problem
from controlplane.store import statements as sql
from schemas.cron import Missed, require_cron, require_zone
from schemas.problem import Refusal
from schemas.watch import TIMER_PREFIX
from schemas.wire import Commit, Entry

Raw = msgspec.Raw
_json = msgspec.json.Decoder(msgspec.Raw)


class Unfit(NamedTuple):
    """Why a turn can not go on as it is; `problem` is a Problem as a dict."""

    problem: dict[str, Any]
    retry: bool


class _Send(msgspec.Struct):
    to: str
    data: Raw
    key: str | None = None


class _Publish(msgspec.Struct):
    channel: str
    data: Raw
    key: str | None = None


class _Question(msgspec.Struct):
    to: str
    data: Raw
    deadline_s: float
    group: int | None = None


class _Sleep(msgspec.Struct):
    seconds: float
    group: int | None = None


class _Gather(msgspec.Struct):
    members: int
    needs: int


class _Timer(msgspec.Struct):
    name: str
    after_s: float | None
    every_s: float | None
    data: Raw
    cron: str | None = None
    zone: str | None = None
    missed: Missed | None = None

    def __post_init__(self) -> None:
        _require_own(self.name)
        if self.cron is not None:
            require_cron(self.cron)
            require_zone(self.zone or "UTC")
        elif self.after_s is None and self.every_s is None:
            raise ValueError("the timer has no time")


class _TimerCancel(msgspec.Struct):
    name: str

    def __post_init__(self) -> None:
        _require_own(self.name)


class _Spawn(msgspec.Struct):
    name: str
    entrypoint: str | None
    config: dict[str, Any] | None
    purpose: str | None
    grants: list[dict[str, Any]] | None


def _require_own(name: str) -> None:
    if name.startswith(TIMER_PREFIX):
        raise ValueError("timers of watches belong to the spec")


_BODIES: dict[str, Any] = {
    kind: msgspec.json.Decoder(body)
    for kind, body in {
        "send": _Send, "publish": _Publish, "ask": _Question, "request": _Question,
        "sleep": _Sleep, "gather": _Gather, "timer": _Timer, "timer_cancel": _TimerCancel, "spawn": _Spawn,
    }.items()
}  # fmt: skip


def unfit(node: Node, slot: Slot, turn: TurnRef, entries: Sequence[Entry]) -> Unfit | None:
    """Why a segment can not be committed; None when it can."""
    for index, entry in enumerate(entries):
        found = _misshapen(entry, turn.entries + index)
        if found is None and entry.kind == "publish":
            found = _against_schema(node.reader, entry)
        if found is None and entry.kind in ("send", "ask", "request"):
            found = _no_room(node, turn, orjson.loads(entry.body)["to"])
        if found is not None:
            return found
    return None


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


def generations(reader: Reader, turn: TurnRef, entries: Sequence[Entry]) -> dict[str, int]:
    """The next generation of each name that a spawn would take over from a deleted agent."""
    found: dict[str, int] = {}
    for entry in entries:
        if entry.kind == "spawn":
            name = orjson.loads(entry.body)["name"]
            row = reader.one(sql.RESOURCE, turn.namespace, name)
            found[name] = 1 if row is None else int(row[1]) + 1
    return found


def _misshapen(entry: Entry, position: int) -> Unfit | None:
    decoder = _BODIES.get(entry.kind)
    try:
        if decoder is None:
            fault = f"there is no kind {entry.kind[:40]}"
        else:
            decoder.decode(entry.body)
            entry.body.decode()
            if entry.branch == "0" and entry.position == position:
                return None
            fault = f"it stands at {entry.branch[:20]}:{entry.position}, where 0:{position} was to come"
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        fault = str(error)
    detail = f"the host sent an entry that can not be journaled: {fault}"
    return Unfit(problem("INTERNAL", detail, kind=entry.kind[:40], fault=fault).model_dump(mode="json"), retry=False)


def _against_schema(reader: Reader, entry: Entry) -> Unfit | None:
    body = orjson.loads(entry.body)
    namespace, name = split(body["channel"])
    row = reader.one(sql.CHANNEL_SCHEMA, namespace, name)
    schema = orjson.loads(row[0]).get("dataschema") if row is not None else None
    if schema is None:
        return None
    from controlplane.mesh.dataschema import require_match  # JSON Schema is dear to import, and few channels have one

    try:
        require_match(schema, body["data"], namespace, name)
    except Refusal as refusal:
        return Unfit(refusal.problem.model_dump(mode="json"), retry=False)
    return None


def _no_room(node: Node, turn: TurnRef, to: str) -> Unfit | None:
    namespace, name = split(to)
    if to == turn.address or namespace != turn.namespace:
        return None
    row = node.reader.one(sql.AGENT_UID, namespace, name)
    if row is None:
        return None
    full = node.planes.full(row[0], to)
    return None if full is None else Unfit(full.model_dump(mode="json"), retry=True)
