"""Bodies: read with a limit, and parsed so that everybody reads the same.

A body is read in pieces and refused as soon as it is too long, whatever its headers claim. JSON is
taken strictly: UTF-8, no NaN, no lone surrogates, no number that would silently become another, no
key twice, no nesting without end. What is refused here reaches nothing behind it.
"""

import asyncio
import json
from typing import Any

import anyio.to_thread
import orjson
from starlette.types import Message, Receive, Scope

from controlplane.feedback.presence import ClientGoneError
from controlplane.resources.problems import refuse
from schemas.problem import Refusal

DEPTH_MAX = 64
BODY_S_MAX = 60.0
_INT64_MIN, _UINT64_MAX = -(2**63), 2**64 - 1
_INLINE_BYTES_MAX = 65_536  # longer ones are parsed in a thread, so that the loop goes on


async def read_body(scope: Scope, receive: Receive, bytes_max: int) -> bytes:
    """The whole body; raises TOO_LARGE, or DEADLINE for one that does not come to its end."""
    declared = header(scope, b"content-length")
    if declared is not None and declared.isdigit() and int(declared) > bytes_max:
        raise _too_large(bytes_max)
    first = await receive()
    if not first.get("more_body", False) and first["type"] == "http.request":
        return _bounded([first], bytes_max)
    try:
        async with asyncio.timeout(BODY_S_MAX):
            return await _read_on(first, receive, bytes_max)
    except TimeoutError:
        detail = f"the body was not complete after {BODY_S_MAX:g} s"
        raise refuse("DEADLINE", detail, seconds_max=BODY_S_MAX) from None


async def _read_on(first: Message, receive: Receive, bytes_max: int) -> bytes:
    messages = [first]
    length = len(first.get("body", b""))
    while messages[-1].get("more_body", False):
        messages.append(await receive())
        length += len(messages[-1].get("body", b""))
        if length > bytes_max:
            raise _too_large(bytes_max)
    if messages[-1]["type"] == "http.disconnect":
        raise ClientGoneError
    return _bounded(messages, bytes_max)


def _bounded(messages: list[Message], bytes_max: int) -> bytes:
    body = b"".join(message.get("body", b"") for message in messages)
    if len(body) > bytes_max:
        raise _too_large(bytes_max)
    return body


def header(scope: Scope, name: bytes) -> bytes | None:
    """The first header of a lower-case name."""
    for key, value in scope["headers"]:
        if key == name:
            return bytes(value)
    return None


def require_json_type(scope: Scope) -> None:
    """Raises UNSUPPORTED_MEDIA_TYPE unless the body is declared as JSON in UTF-8."""
    given = (header(scope, b"content-type") or b"").decode("latin-1")
    media, _, rest = given.partition(";")
    charset = rest.strip().lower().replace('"', "")
    if media.strip().lower() != "application/json" or charset not in ("", "charset=utf-8", "charset=utf8"):
        raise refuse(
            "UNSUPPORTED_MEDIA_TYPE",
            f"send the body with Content-Type: application/json, not {given or 'none'}",
            content_type=given or None,
        )


async def parse_json(body: bytes) -> Any:
    """The JSON value of a body; raises MALFORMED_JSON or OUT_OF_RANGE."""
    if len(body) <= _INLINE_BYTES_MAX:
        return parse_json_now(body)
    return await anyio.to_thread.run_sync(parse_json_now, body)


def parse_json_now(body: bytes) -> Any:
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


def _too_large(bytes_max: int) -> Refusal:
    return refuse("TOO_LARGE", f"the body is larger than {bytes_max} bytes", bytes_max=bytes_max)
