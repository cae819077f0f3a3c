"""JSON taken strictly, so that everybody reads the same: UTF-8, no NaN, no lone surrogates, no number that would
silently become another, no key twice, no nesting without end."""

import json
from typing import Any

import orjson

from controlplane.resources.problems import refuse

DEPTH_MAX = 64
_INT64_MIN, _UINT64_MAX = -(2**63), 2**64 - 1


def parse_json_now(body: bytes) -> Any:
    """The JSON value of a body; raises MALFORMED_JSON or OUT_OF_RANGE."""
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise refuse(
            "MALFORMED_JSON",
            f"the body is not JSON at byte {error.pos}: {error.msg}",
            position=error.pos,
            message=error.msg,
        ) from None
    if body.count(b"{") + body.count(b"[") > DEPTH_MAX:
        _require_depth(value)
    if b"{" in body or len(body) > 18:  # nothing else can hold a key twice or a number out of range
        json.loads(body, object_pairs_hook=_object, parse_int=_integer)
    return value


def _require_depth(value: Any) -> None:
    layer, depth = [value], 0
    while layer:
        depth += 1
        if depth > DEPTH_MAX + 1:
            raise refuse("MALFORMED_JSON", f"the body is nested deeper than {DEPTH_MAX} levels", levels_max=DEPTH_MAX)
        layer = [
            inner
            for outer in layer
            if isinstance(outer, dict | list)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise refuse("MALFORMED_JSON", f"an object holds the key {twice!r} twice", key=twice)
    return found


def _integer(text: str) -> int:
    if len(text) < 19 or (len(text) <= 20 and _INT64_MIN <= int(text) <= _UINT64_MAX):
        return 0  # only looked at: the value comes from the strict parser
    shown = text if len(text) <= 40 else f"{text[:40]}…"
    raise refuse("OUT_OF_RANGE", f"the whole number {shown} does not fit into 64 bits", value=shown)
