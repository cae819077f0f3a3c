"""Answers as blocks that a person can read: which columns a list has, what of a plan comes first.

Pure: a value goes in, blocks come out; how they look is decided in `printing`. A shape leaves
nothing out in silence: what it does not show, it counts.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from controlplane.cli.spelling import spell

Tone = Literal["plain", "good", "bad", "warn", "dim", "strong"]
CELL_MAX = 120
SAID = ("text", "summary", "finding", "message")


@dataclass(frozen=True)
class Line:
    """A line of text, or a cell of a grid."""

    text: str
    tone: Tone = "plain"


@dataclass(frozen=True)
class Grid:
    """Rows under column names."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Line, ...], ...]
    title: str = ""


@dataclass(frozen=True)
class Document:
    """A value to be read as YAML."""

    value: Any
    title: str = ""


Block = Line | Grid | Document
_TONES: dict[str, Tone] = {
    **dict.fromkeys(("true", "verified", "held", "committed", "create", "Ready"), "good"),
    **dict.fromkeys(("missed", "failed", "delete", "stale", "not Ready", "lost"), "bad"),
    **dict.fromkeys(("open", "unverifiable", "superseded", "update", "unknown", "parked", "Stopped"), "warn"),
}


def blocks(value: Any) -> list[Block]:
    """The blocks of an operation's answer."""
    if not isinstance(value, dict):
        return [Document(value)]
    for fits, shape in _SHAPES:
        if fits(value):
            return shape(value)
    return _record(value)


def plan(value: dict[str, Any]) -> list[Block]:
    """What a plan would do, what it claims, and until when it can be committed."""
    steps = [[step["action"], _ref(step["target"]), _paths(step), step["undo"]] for step in value["steps"]]
    claims = [
        (
            _ref(claim["subject"]),
            claim["measure"],
            _expected(claim["expected"]),
            claim["fidelity"],
            f"{claim['verify_within_s']:g} s",
        )
        for claim in value["claims"]
    ]
    found: list[Block] = [Line(f"Plan {value['plan_id']}", "strong")]
    if not steps:
        return [*found, Line("Nothing is to be done: all is as wanted.", "good")]
    found.append(_grid(("STEP", "RESOURCE", "WRITES", "UNDO"), steps))
    found.append(_grid(("CLAIM ABOUT", "MEASURE", "EXPECTED", "FIDELITY", "WITHIN"), claims))
    found += [Line(f"waits on: {wait['message']}", "warn") for wait in value["waits_on"]]
    return [*found, Line(f"can be committed until {value['expires_at']}", "dim")]


def _expected(expected: dict[str, Any]) -> str:
    """A value; of an estimate, with its band."""
    value = _short(expected.get("value"))
    return value if expected.get("low") is None else f"{value} ({expected['low']:g} to {expected['high']:g})"


def change(value: dict[str, Any]) -> list[Block]:
    """How far a change is, and the verdict of each claim."""
    done = sum(step["done"] for step in value["steps"])
    steps = f"{done} of {len(value['steps'])} steps done"
    claims = [[one["claim_id"], one["verdict"] or "open", _short(one["observed"])] for one in value["claims"]]
    found: list[Block] = [_toned(f"Change {value['change_id']}: {value['outcome']}, {steps}", value["outcome"])]
    found.append(_grid(("CLAIM", "VERDICT", "OBSERVED"), claims))
    return found + [Line(f"waits on: {wait['message']}", "warn") for wait in value["waits_on"]]


def conditions(resource: dict[str, Any]) -> Line:
    """The conditions of a resource in a few words."""
    known = {one["type"]: one for one in resource.get("status", {}).get("conditions", ())}
    ready = known.get("Ready", {})
    words = ["Ready" if ready.get("status") == "true" else f"not Ready: {ready.get('reason', 'Unknown')}"]
    if "Active" in known:
        active = known["Active"]
        words.append(active["reason"].lower() if active["status"] == "true" else "suspended")
    words += [name for name in ("Parked", "Stopped") if known.get(name, {}).get("status") == "true"]
    tone: Tone = "good" if ready.get("status") == "true" else "bad" if ready.get("status") == "false" else "warn"
    return Line(", ".join(words), "warn" if "Stopped" in words else tone)


def event_line(event: dict[str, Any]) -> str:
    """One feedback event on one line."""
    data = f"  {_short(event['data'])}" if event.get("data") else ""
    by = f"  by {event['principal']}" if event.get("principal") else ""
    return f"{event['time']}  {event['type']}  {_ref(event['subject'])}{by}{data}"


def report_line(envelope: dict[str, Any]) -> str:
    """One envelope of a channel on one line: its text if its data has one."""
    data = envelope.get("data")
    said = next((data[key] for key in SAID if isinstance(data.get(key), str)), None) if isinstance(data, dict) else None
    return f"{envelope['time']}  {envelope['source']}  {said or _short(data)}"


def _resource(value: dict[str, Any]) -> list[Block]:
    metadata, status = value["metadata"], value["status"]
    about = f"revision {metadata['revision']}, generation {metadata['generation']}, uid {metadata['uid']}"
    observed = [[one["type"], one["status"], one["reason"], one["message"]] for one in status["conditions"]]
    rest = {key: part for key, part in status.items() if key != "conditions"}
    found: list[Block] = [Line(_ref({**metadata, "kind": value["kind"]}), "strong"), Line(about, "dim")]
    found += [_grid(("CONDITION", "STATUS", "REASON", "MESSAGE"), observed), Document(rest, "status")]
    labels = [Document(metadata["labels"], "labels")] if metadata["labels"] else []
    return [*found, *labels, Document(_code_counted(value["spec"]), "spec")]


def _code_counted(spec: Any) -> Any:
    """The spec with source files said by their number of lines; `--output yaml` shows them whole."""
    if isinstance(spec, dict):
        if set(spec) == {"files", "digest"} and isinstance(spec["files"], dict):
            counted = {path: f"({len(text.splitlines())} lines)" for path, text in spec["files"].items()}
            return {**spec, "files": counted}
        return {key: _code_counted(part) for key, part in spec.items()}
    return spec


def _items(value: dict[str, Any]) -> list[Block]:
    items = value["items"]
    if not items:
        return [Line("(none)", "dim")]
    if all("metadata" in item and "status" in item for item in items):
        rows = [_resource_row(item) for item in items]
        found: list[Block] = [_grid(("NAMESPACE", "NAME", "CONDITIONS", "GENERATION", "LABELS"), rows)]
    else:
        found = [_table(items)]
    more = value.get("next_page")
    return [*found, Line(f"more: --page {more}", "dim")] if more else found


def _resource_row(item: dict[str, Any]) -> list[str | Line]:
    metadata = item["metadata"]
    labels = ",".join(f"{key}={value}" for key, value in metadata["labels"].items())
    return [metadata["namespace"], metadata["name"], conditions(item), str(metadata["generation"]), labels]


def _events(value: dict[str, Any]) -> list[Block]:
    return [*(Line(event_line(event)) for event in value["events"]), Line(f"cursor: {value['cursor']}", "dim")]


def _envelopes(value: dict[str, Any]) -> list[Block]:
    rows = [
        [one.get("position", ""), one["time"], one["source"], _whole(one.get("data"))] for one in value["envelopes"]
    ]
    return [_grid(("POSITION", "TIME", "FROM", "DATA"), rows), Line(f"cursor: {value['cursor']}", "dim")]


def _commit(value: dict[str, Any]) -> list[Block]:
    found: list[Block] = [_toned(f"{value['outcome']}: {value['change_id'] or value['plan_id']}", value["outcome"])]
    for one in value["moved"]:
        text = f"{_ref(one)} was planned at generation {one['planned_generation']}"
        found.append(Line(f"{text} and is at {one['current_generation']}", "warn"))
    if value["new_plan_id"]:
        found.append(Line(f"a new plan stands ready: steward commit {value['new_plan_id']}"))
    return found


def _brief(value: dict[str, Any]) -> list[Block]:
    return [Line(value["text"]), Line(f"cursor: {value['cursor']}", "dim")]


def _doctor(value: dict[str, Any]) -> list[Block]:
    """What was found, each with the command that shows or mends it."""
    found = [Line(value["text"], "strong")]
    for it in value["findings"]:
        steps = "; ".join(spell(step["operation"], step["arguments"]) for step in it["next"])
        found.append(Line(f"- {it['check']}: {it['detail']} ({steps})"))
    return list(found)


def _preview(value: dict[str, Any]) -> list[Block]:
    return [Line(f"{value['operation']} would:", "strong"), *(Line(f"- {one}") for one in value["would"])]


def _record(value: dict[str, Any]) -> list[Block]:
    """Any record: plain values as lines, lists of records as tables, the rest as YAML."""
    found: list[Block] = []
    width = max((len(key) for key in value), default=0)
    for key, part in value.items():
        if isinstance(part, list) and part and all(isinstance(item, dict) for item in part):
            found.append(_table(part, key))
        elif isinstance(part, dict | list) and part:
            found.append(Document(part, key))
        else:
            found.append(Line(f"{key:<{width}}  {_whole(part)}"))
    return found


def _table(items: list[dict[str, Any]], title: str = "") -> Grid:
    names = tuple(dict.fromkeys(key for item in items for key in item))
    rows = [[_short(item.get(name)) for name in names] for item in items]
    return _grid(tuple(name.upper() for name in names), rows, title)


def _grid(columns: tuple[str, ...], rows: list[Any], title: str = "") -> Grid:
    cells = (tuple(cell if isinstance(cell, Line) else _toned(str(cell), str(cell)) for cell in row) for row in rows)
    return Grid(columns, tuple(cells), title)


def _toned(text: str, word: str) -> Line:
    return Line(text, _TONES.get(word, "plain"))


def _ref(ref: dict[str, Any]) -> str:
    return f"{ref['kind']} {ref['namespace']}/{ref['name']}"


def _paths(step: dict[str, Any]) -> str:
    return ", ".join(one["path"] for one in step["changes"])


def _whole(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _short(value: Any) -> str:
    """A value on one line; what is cut is counted."""
    text = _whole(value) if value is not None else ""
    return text if len(text) <= CELL_MAX else f"{text[:CELL_MAX]}… ({len(text) - CELL_MAX} more)"


def _has(*keys: str) -> Callable[[dict[str, Any]], bool]:
    return lambda value: all(key in value for key in keys)


_SHAPES: tuple[tuple[Callable[[dict[str, Any]], bool], Callable[[dict[str, Any]], list[Block]]], ...] = (
    (_has("items"), _items),
    (_has("events", "cursor"), _events),
    (_has("envelopes", "cursor"), _envelopes),
    (_has("plan_id", "steps", "claims", "read_set"), plan),
    (_has("change_id", "steps", "claims", "waits_on"), change),
    (_has("outcome", "plan_id", "moved"), _commit),
    (_has("kind", "metadata", "spec", "status"), _resource),
    (_has("text", "cursor", "as_of"), _brief),
    (_has("dry_run", "operation", "would"), _preview),
    (_has("healthy", "findings"), _doctor),
)
