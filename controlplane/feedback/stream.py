"""The feedback log as server-sent events.

A stream is the same read as `feedback.read`, asked again and again from the cursor it stands at:
`id` is the cursor, so that a reader who comes back with `Last-Event-ID` misses nothing. Nothing is
queued for a reader: the next page is read when the last one was taken, and a reader who does not
take it for long is let go. A stream ends at once when its reader goes, its token ends, or the
plane stops; the reader's own limits are asked for anew with every page.
"""

from collections.abc import Awaitable, Callable
from typing import Any, Protocol, TypeVar

import anyio
import orjson
from starlette.types import Receive, Send

from controlplane.feedback.places import Places
from controlplane.feedback.presence import until_gone
from schemas.feedback import Event, EventsFound
from schemas.problem import Problem, Refusal

HEARTBEAT_S = 15.0
READERS_MAX = 2560
RETRY_MS = 2000

Page = TypeVar("Page", bound="HasCursor")
ReadOn = Callable[[str, float], Awaitable[Page]]  # cursor, seconds to wait at most

_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache, no-transform"),
    (b"x-accel-buffering", b"no"),
]


class HasCursor(Protocol):
    """A page of a log."""

    @property
    def cursor(self) -> str: ...


class EventStreams:
    """All open streams of a process, as many as are allowed."""

    def __init__(self, readers_max: int = READERS_MAX, heartbeat_s: float = HEARTBEAT_S) -> None:
        self.places = Places("readers of feedback", "readers_max", readers_max)
        self._heartbeat_s = heartbeat_s
        self._shown: tuple[Any, bytes] | None = None

    async def serve(
        self,
        principal: str,
        first: Page,
        read_on: ReadOn[Page],
        receive: Receive,
        send: Send,
        framed: Callable[[Page], bytes],
    ) -> None:
        """Send the first page, then every page after it, until one of the ends."""
        with self.places.held(principal):
            await self._run(first, read_on, receive, send, framed)

    async def _run(
        self, first: Page, read_on: ReadOn[Page], receive: Receive, send: Send, framed: Callable[[Page], bytes]
    ) -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(_end_when_gone, receive, group.cancel_scope)
            await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
            await self._pages(first, read_on, send, framed)
            group.cancel_scope.cancel()

    async def _pages(self, page: Page, read_on: ReadOn[Page], send: Send, framed: Callable[[Page], bytes]) -> None:
        await _send(send, f"retry: {RETRY_MS}\n\n".encode())
        while True:
            await _send(send, self._frames(page, framed))
            try:
                page = await read_on(page.cursor, self._heartbeat_s)
            except Refusal as refusal:
                await _send(send, _last_frame(refusal.problem), more=False)
                return

    def _frames(self, page: Page, framed: Callable[[Page], bytes]) -> bytes:
        """Readers who stand at one place are given one page, and it is put into frames once."""
        if self._shown is None or self._shown[0] is not page:
            self._shown = page, framed(page)
        return self._shown[1]


async def _end_when_gone(receive: Receive, scope: anyio.CancelScope) -> None:
    await until_gone(receive)
    scope.cancel()


async def _send(send: Send, body: bytes, *, more: bool = True) -> None:
    """Waits while the reader does not take what was sent; the listener ends a connection where that lasts."""
    await send({"type": "http.response.body", "body": body, "more_body": more})


def frames(page: EventsFound) -> bytes:
    """A page as frames, and a comment that carries the cursor: a heartbeat where there are no events."""
    told = b"".join(_frame(event) for event in page.events)
    return told + f"id: {page.cursor}\n: \n\n".encode()


def _frame(event: Event) -> bytes:
    data: Any = event.model_dump(mode="json")
    return f"id: {event.cursor}\nevent: {event.type}\ndata: ".encode() + orjson.dumps(data) + b"\n\n"


def _last_frame(problem: Problem) -> bytes:
    return b"event: problem\ndata: " + orjson.dumps(problem.model_dump(mode="json")) + b"\n\n"
