"""What a segment may not hold: found before it is committed, by what the records say now.

An entry must be what its kind says, at the next position; data for a channel must meet the channel's
schema; a message must find room in the inbox it goes to. A full inbox is a reason to try again
later, with the same ids; anything else fails the turn for good. Nothing is dropped.
"""

from collections.abc import Sequence
from typing import Annotated, Any, NamedTuple

import msgspec
import orjson
from msgspec import Meta

from controlplane.effects.entries import TurnRef, split
from controlplane.effects.node import Node
from controlplane.effects.reading import Reader
from controlplane.effects.slots import Slot
from controlplane.resources.problems import problem
from controlplane.store import statements as sql
from controlplane.store import workspaces
from schemas.branches import ORDER, Place, is_branch
from schemas.budget import AMOUNT_MAX, LIMITS_MAX, METER_PATTERN
from schemas.chain import DEPTH_MAX
from schemas.conclusion import (
    ALTERNATIVE_CHARS_MAX,
    ALTERNATIVES_MAX,
    REFERENCE_PATTERN,
    REFERENCES_MAX,
    TEXT_CHARS_MAX,
)
from schemas.cron import Missed, require_cron, require_zone
from schemas.problem import Refusal
from schemas.question import CHOICE_CHARS_MAX, CHOICES_MAX, QUESTION_CHARS_MAX
from schemas.watch import TIMER_PREFIX
from schemas.wire import Commit, Entry
from schemas.workspace import Workspace, over, saved, unfit_paths

Raw = msgspec.Raw
_json = msgspec.json.Decoder(msgspec.Raw)


class Unfit(NamedTuple):
    """Why a turn can not go on as it is; `problem` is a Problem as a dict."""

    problem: dict[str, Any]
    retry: bool


Most = Annotated[float, Meta(ge=0, le=AMOUNT_MAX)]
MeterName = Annotated[str, Meta(pattern=METER_PATTERN)]
Allowed = Annotated[dict[MeterName, Most], Meta(min_length=1, max_length=LIMITS_MAX)]


class _Send(msgspec.Struct):
    to: str
    data: Raw
    key: str | None = None
    budget: Allowed | None = None


class _Publish(msgspec.Struct):
    channel: str
    data: Raw
    key: str | None = None


class _Question(msgspec.Struct):
    to: str
    data: Raw
    deadline_s: float
    group: int | None = None
    budget: Allowed | None = None


class _Sleep(msgspec.Struct):
    seconds: float
    group: int | None = None


class _Person(msgspec.Struct):
    question: Annotated[str, Meta(min_length=1, max_length=QUESTION_CHARS_MAX)]
    choices: (
        Annotated[
            list[Annotated[str, Meta(min_length=1, max_length=CHOICE_CHARS_MAX)]],
            Meta(min_length=1, max_length=CHOICES_MAX),
        ]
        | None
    )
    deadline_s: float | None
    group: int | None = None


class _Gather(msgspec.Struct):
    members: int
    needs: int


ReferenceName = Annotated[str, Meta(pattern=REFERENCE_PATTERN)]


class _Conclude(msgspec.Struct):
    text: Annotated[str, Meta(min_length=1, max_length=TEXT_CHARS_MAX)]
    because: Annotated[list[ReferenceName], Meta(max_length=REFERENCES_MAX)]
    seen: Annotated[list[ReferenceName], Meta(max_length=REFERENCES_MAX)]
    alternatives: Annotated[
        list[Annotated[str, Meta(min_length=1, max_length=ALTERNATIVE_CHARS_MAX)]], Meta(max_length=ALTERNATIVES_MAX)
    ]
    confidence: Annotated[float, Meta(ge=0, le=1)] | None


class _Order(msgspec.Struct):
    came: list[Place]


class _Continue(msgspec.Struct):
    data: Raw


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
    budget: Allowed | None = None


def _require_own(name: str) -> None:
    if name.startswith(TIMER_PREFIX):
        raise ValueError("timers of watches belong to the spec")


_BODIES: dict[str, Any] = {
    kind: msgspec.json.Decoder(body)
    for kind, body in {
        "send": _Send, "publish": _Publish, "ask": _Question, "request": _Question,
        "sleep": _Sleep, "question": _Person, "gather": _Gather,
        "timer": _Timer, "timer_cancel": _TimerCancel, "spawn": _Spawn, "continue": _Continue,
        "conclude": _Conclude, ORDER: _Order,
    }.items()
}  # fmt: skip


def unfit(node: Node, slot: Slot, turn: TurnRef, entries: Sequence[Entry], *, ends: bool = False) -> Unfit | None:
    """Why a segment can not be committed; None when it can. `ends` is said of the last one of a turn."""
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


def generations(reader: Reader, turn: TurnRef, entries: Sequence[Entry]) -> dict[str, int]:
    """The next generation of each name that a spawn would take over from a deleted agent."""
    found: dict[str, int] = {}
    for entry in entries:
        if entry.kind == "spawn":
            name = orjson.loads(entry.body)["name"]
            row = reader.one(sql.RESOURCE, turn.namespace, name)
            found[name] = 1 if row is None else int(row[1]) + 1
    return found


def _budget(entry: Entry) -> bool:
    return entry.kind in ("send", "ask", "request", "spawn") and orjson.loads(entry.body).get("budget") is not None


def _too_deep(depth: int) -> Unfit:
    detail = f"the message lies within {depth} budgets already, and at most {DEPTH_MAX} lie within each other"
    return Unfit(problem("LIMIT_REACHED", detail, limit="budgets", max=DEPTH_MAX).model_dump(mode="json"), retry=False)


def _misshapen(entry: Entry, position: int) -> Unfit | None:
    decoder = _BODIES.get(entry.kind)
    try:
        if decoder is None:
            fault = f"there is no kind {entry.kind[:40]}"
        else:
            decoder.decode(entry.body)
            entry.body.decode()
            placed = entry.branch == ORDER if entry.kind == ORDER else is_branch(entry.branch)
            if placed and entry.position == position:
                return None
            fault = f"it stands at {entry.branch[:20]}:{entry.position}, where {position} of a branch was to come"
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        fault = str(error)
    return _unjournaled(entry, fault)


def _unjournaled(entry: Entry, fault: str) -> Unfit:
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
