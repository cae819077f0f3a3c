"""Bodies: read with a limit, and parsed so that everybody reads the same.

A body is read in pieces and refused as soon as it is too long, whatever its headers claim. What is held
of all bodies together is bounded, from the first piece until the answer is given, and counted with what it
unfolds to; long ones are parsed two at a time. Nothing is decompressed. JSON is taken strictly: UTF-8, no
NaN, no lone surrogates, no number that would silently become another, no key twice, no nesting without
end. What is refused here reaches nothing behind it.
"""

import asyncio
import re
from typing import Any

import anyio.to_thread
from starlette.types import Message, Receive, Scope

from controlplane.feedback.places import Places
from controlplane.feedback.presence import ClientGoneError
from controlplane.mesh.strict import DEPTH_MAX as DEPTH_MAX
from controlplane.mesh.strict import parse_json_now
from controlplane.resources.problems import refuse
from schemas.problem import Refusal

VALUES_MAX = 200_000
VALUE_BYTES = 128  # what one value takes in memory, about
PARSED_AT_ONCE_MAX = 2
_VALUES_ROUGH_MAX = 10_000  # up to here texts are not told apart
_INLINE_BYTES_MAX = 65_536  # longer ones are parsed in a thread, so that the loop goes on
_UNFOLDING = (b",", b"[", b"{")  # every value but the outermost comes after one of these
_TEXT = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)


class Held:
    """What one request holds of the bytes of all bodies, until it is let go."""

    def __init__(self, places: Places, principal: str) -> None:
        self._places = places
        self._principal = principal
        self._bytes = 0

    def grow(self, more: int) -> None:
        """Hold more; raises QUOTA when all together would hold too much."""
        if more:
            self._places.take(self._principal, more)
            self._bytes += more

    def let_go(self) -> None:
        if self._bytes:
            self._places.give_back(self._principal, self._bytes)
            self._bytes = 0


async def read_body(scope: Scope, receive: Receive, bytes_max: int, s_max: float, held: Held) -> bytes:
    """The whole body; raises TOO_LARGE, QUOTA, or DEADLINE for one that does not come to its end."""
    declared = header(scope, b"content-length")
    if declared is not None and declared.isdigit() and (len(declared) > 18 or int(declared) > bytes_max):
        raise _too_large(bytes_max)
    try:
        async with asyncio.timeout(s_max):
            first = await receive()  # which waits for the first byte
            held.grow(len(first.get("body", b"")))
            if not first.get("more_body", False) and first["type"] == "http.request":
                return _bounded(first, bytes_max)
            return await _read_on(first, receive, bytes_max, held)
    except TimeoutError:
        detail = f"the body was not complete after {s_max:g} s (body_s_max)"
        raise refuse("DEADLINE", detail, limit="body_s_max", seconds_max=s_max) from None


async def _read_on(message: Message, receive: Receive, bytes_max: int, held: Held) -> bytes:
    body = bytearray(message.get("body", b""))  # one piece: a byte a message would cost an object each
    while message.get("more_body", False):
        message = await receive()
        piece = message.get("body", b"")
        held.grow(len(piece))
        body += piece
        if len(body) > bytes_max:
            raise _too_large(bytes_max)
    if message["type"] == "http.disconnect":
        raise ClientGoneError
    return bytes(body)


def _bounded(message: Message, bytes_max: int) -> bytes:
    body: bytes = message.get("body", b"")
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
    """Raises UNSUPPORTED_MEDIA_TYPE unless the body is declared as JSON in UTF-8, as it is."""
    coding = (header(scope, b"content-encoding") or b"identity").decode("latin-1").strip().lower()
    if coding != "identity":
        detail = f"send the body as it is: Content-Encoding {coding[:100]} is not taken"
        raise refuse("UNSUPPORTED_MEDIA_TYPE", detail, content_encoding=coding[:100])
    given = (header(scope, b"content-type") or b"").decode("latin-1")
    media, _, rest = given.partition(";")
    charset = rest.strip().lower().replace('"', "")
    if media.strip().lower() != "application/json" or charset not in ("", "charset=utf-8", "charset=utf8"):
        raise refuse(
            "UNSUPPORTED_MEDIA_TYPE",
            f"send the body with Content-Type: application/json, not {given[:200] or 'none'}",
            content_type=given[:200] or None,
        )


async def parse_json(body: bytes, held: Held, parsing: anyio.CapacityLimiter) -> Any:
    """The JSON value of a body; raises MALFORMED_JSON, OUT_OF_RANGE, TOO_LARGE or QUOTA."""
    if len(body) <= _INLINE_BYTES_MAX:
        held.grow(VALUE_BYTES * values_in(body))
        return parse_json_now(body)
    held.grow(VALUE_BYTES * await anyio.to_thread.run_sync(_require_values, body, limiter=parsing))
    return await anyio.to_thread.run_sync(parse_json_now, body, limiter=parsing)


def values_in(body: bytes) -> int:
    """How many values a body holds, or more: what stands in texts is counted too."""
    return sum(body.count(mark) for mark in _UNFOLDING)


def _require_values(body: bytes) -> int:
    """How many values a long body holds; raises TOO_LARGE for more than are taken."""
    found = values_in(body)
    if found > _VALUES_ROUGH_MAX:
        found = values_in(_TEXT.sub(b"", body))
    if found > VALUES_MAX:
        raise refuse("TOO_LARGE", f"the body holds more than {VALUES_MAX} values", values_max=VALUES_MAX)
    return found


def _too_large(bytes_max: int) -> Refusal:
    return refuse("TOO_LARGE", f"the body is larger than {bytes_max} bytes", bytes_max=bytes_max)
