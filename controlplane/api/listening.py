"""The listener's guard: what one connection, and all of them together, may cost before and beside a request.

uvicorn reads HTTP and knows no bounds of its own. Here a head has a size and a time, pipelined requests
a number, connections a number, an answer a time in which it must be taken, and all answers that nobody
takes a size together. What is refused gets a Problem where an answer can still be given; a connection is
ended otherwise. When all places are taken the one that waited longest for its first request goes, then the
one that rested longest, so that idle connections never keep others out. Nothing of this costs an ordinary
request more than a few dictionary entries: one sweep a second looks at those that are over time.
"""

import asyncio
from collections.abc import Callable
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from controlplane.api.answers import PROBLEM_JSON, to_json
from controlplane.api.guarding import Guard, Unsent
from controlplane.resources.problems import problem
from schemas.problem import Problem

HEAD_BYTES_MAX = 65_536
PIPELINED_MAX = 16
LINGER_BYTES_MAX = 128 * 1024 * 1024
RETRY_AFTER_S = 1.0


class _RefusedError(Exception):
    """Ends the parser: what it parses was refused."""


class GuardedProtocol(Unsent, HttpToolsProtocol):
    """One connection under the guard."""

    def __init__(self, guard: Guard, **given: Any) -> None:
        super().__init__(**given)
        self._guard = guard
        self._active: RequestResponseCycle | None = None  # whose answer is due; uvicorn knows only the newest
        self._found: Problem | None = None
        self._in_head = True
        self._head_bytes = 0  # of its parts that are whole
        self._fed_bytes = 0  # while it is not whole
        self._heard = False  # whether what just came meant anything: a head, a piece of a body, an end
        self._unheard_bytes = 0  # of trailers and extensions of chunks that are not whole, which the parser keeps
        self._drained_bytes = 0
        self._deaf = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        admitted = self._guard.admit()
        super().connection_made(transport)
        self._guard.open.add(self)
        if admitted:
            self._guard.heads[self] = self.loop.time()
        else:
            most = self._guard.connections_max
            detail = f"{most} connections are open, and no more are taken (connections_max)"
            self._refuse(problem("QUOTA", detail, retry_after_s=RETRY_AFTER_S, limit="connections_max", most=most))

    def connection_lost(self, exc: Exception | None) -> None:
        self._forget()
        self.pipeline.clear()
        active = self._active
        super().connection_lost(exc)
        if active is not None and not active.response_complete:
            active.disconnected = True
            active.message_event.set()

    def end(self) -> None:
        """End the connection now, whatever it does."""
        self._forget()
        self._deaf = True
        self.transport.abort()

    def _forget(self) -> None:
        guard = self._guard
        guard.open.discard(self)
        for waiting in (guard.heads, guard.resting, guard.lingering):
            waiting.pop(self, None)
        self._taken()

    # What comes

    def data_received(self, data: bytes) -> None:
        if self._deaf:
            return
        guard = self._guard
        if self in guard.resting:
            del guard.resting[self]
            guard.heads[self] = self.loop.time()
        elif self in guard.lingering:
            self._drained_bytes += len(data)
            if self._drained_bytes > LINGER_BYTES_MAX:
                self.end()
                return
        self._heard = False
        super().data_received(data)
        if self._deaf:
            return
        self._unheard_bytes = 0 if self._heard or self._in_head else self._unheard_bytes + len(data)
        if self._in_head:
            self._fed_bytes += len(data)
        if self._too_large():
            self.send_400_response("")

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head = True
        self._head_bytes = self._fed_bytes = 0

    def on_url(self, url: bytes) -> None:
        super().on_url(url)
        self._head_bytes += len(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        super().on_header(name, value)
        self._head_bytes += len(name) + len(value)
        if self._too_large():
            raise _RefusedError

    def _too_large(self) -> bool:
        in_head = max(self._head_bytes, self._fed_bytes) if self._in_head else self._head_bytes
        if max(in_head, self._unheard_bytes) <= HEAD_BYTES_MAX:
            return False
        detail = (
            f"the request line and headers, or what stands beside its chunks, are larger than {HEAD_BYTES_MAX} bytes"
        )
        self._found = problem("HEAD_TOO_LARGE", detail, bytes_max=HEAD_BYTES_MAX)
        return True

    def on_body(self, body: bytes) -> None:
        self._heard = True
        super().on_body(body)

    def on_headers_complete(self) -> None:
        self._in_head, self._heard = False, True
        self._guard.heads.pop(self, None)
        super().on_headers_complete()
        if len(self.pipeline) > PIPELINED_MAX:
            raise _RefusedError

    def on_message_complete(self) -> None:
        self._heard = True
        super().on_message_complete()
        if self._guard.lingering.pop(self, None) is not None:
            self._guard.resting[self] = self.loop.time()

    def handle_websocket_upgrade(self) -> None:
        """From here on the connection is another protocol's; nobody upgrades before earlier answers are given."""
        if self._active is not None and not self._active.response_complete:
            self.end()
            return
        self._forget()
        self._deaf = True
        super().handle_websocket_upgrade()

    def send_400_response(self, msg: str) -> None:
        """What is not HTTP, or more of it than is taken; between other answers there is no place for it."""
        active = self._active
        if active is not None and not active.response_complete:
            if active.response_started or self.pipeline or active is not self.cycle:
                self.end()
                return
            active.disconnected = True  # its own body is what is no HTTP: this is its answer
            active.message_event.set()
        self._refuse(self._found or problem("MALFORMED_HTTP", "what came is not a request of HTTP/1.1"))

    def _refuse(self, found: Problem) -> None:
        self._deaf = True
        self._guard.heads.pop(self, None)
        self._guard.lingering[self] = self.loop.time()
        self.transport.write(raw_answer(found))
        self.transport.close()

    # What goes

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._active = cycle
        super()._start_asgi_task(cycle, app)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.transport.is_closing() or (self._active is not None and not self._active.response_complete):
            return
        now = self.loop.time()
        if self._active is not None and self._active.more_body:
            self._drained_bytes = 0
            self._guard.lingering[self] = now
        elif self._in_head:  # the next one has begun
            self._guard.heads[self] = now
        else:
            self._guard.resting[self] = now


def guarded(guard: Guard) -> Callable[..., GuardedProtocol]:
    """What uvicorn makes a connection's protocol by."""

    def make(**given: Any) -> GuardedProtocol:
        return GuardedProtocol(guard, **given)

    return make


def raw_answer(found: Problem) -> bytes:
    """A Problem as the last bytes of a connection, where there is no request to answer."""
    body = to_json(found)
    again = f"retry-after: {max(1, round(found.retry_after_s))}\r\n" if found.retry_after_s is not None else ""
    head = f"HTTP/1.1 {found.status} {found.title}\r\ncontent-type: {PROBLEM_JSON}\r\n{again}"
    return f"{head}content-length: {len(body)}\r\nconnection: close\r\n\r\n".encode() + body
