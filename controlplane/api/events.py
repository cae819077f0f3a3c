"""`GET /v1/feedback`: JSON, or server-sent events for who accepts `text/event-stream`.

The first page is read before the stream begins, so that what is wrong with the question is answered
as a Problem. Every later page is asked for anew, with the token checked again: a revoked token ends
the stream. Streams of one token that look at the same moment share one check.
"""

from collections.abc import Awaitable, Callable
from time import monotonic
from typing import Any, cast

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from controlplane.api.answers import answer
from controlplane.api.metrics import Metered
from controlplane.api.routes import Respond, raw_input
from controlplane.feedback.presence import while_there
from controlplane.feedback.stream import EventStreams, frames
from schemas.feedback import EventsFound
from schemas.principal import Principal

OPERATION = "feedback.read"
CHECK_S = 0.25
CHECKS_MAX = 1024

Authenticate = Callable[[], Awaitable[Principal]]


class Stream(Response):
    """A response that is served by the streams."""

    def __init__(self, serve: Callable[[Receive, Send], Awaitable[None]]) -> None:
        super().__init__()
        self._serve = serve

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._serve(receive, send)


class Checks:
    """Whether tokens still hold, asked once in a moment for all streams of each."""

    def __init__(self) -> None:
        self._held: dict[str, tuple[float, Principal]] = {}

    async def still(self, principal: Principal, authenticate: Authenticate) -> Principal:
        """The principal as the token says it now; raises UNAUTHENTICATED."""
        now = monotonic()
        token = principal.token_id
        if not token:
            return await authenticate()
        if token in self._held and now - self._held[token][0] < CHECK_S:
            return self._held[token][1]
        if len(self._held) > CHECKS_MAX:
            self._held.clear()
        found = await authenticate()
        self._held[token] = now, found
        return found


def _wants_stream(accept: str) -> bool:
    """Who takes JSON as well gets JSON."""
    return "text/event-stream" in accept and "application/json" not in accept


def feedback_responder(call: Metered, read: Metered, streams: EventStreams) -> Respond:
    """What answers the route of `feedback.read`; streams `read`, and are counted as readers, not as calls."""

    checks = Checks()

    async def respond(request: Request) -> Response:
        raw = raw_input(OPERATION, request)
        if not _wants_stream(request.headers.get("accept", "")):
            return answer(await while_there(request.state.receive, call(request.state.principal, OPERATION, raw)))
        if (last := request.headers.get("last-event-id")) is not None:
            raw["after"] = last
        return await _stream(request, raw)

    async def _stream(request: Request, raw: dict[str, Any]) -> Response:
        asking: Principal = request.state.principal
        authenticate: Authenticate = request.state.authenticate

        async def read_on(cursor: str, wait_s: float) -> EventsFound:
            principal = await checks.still(asking, authenticate)
            return cast(EventsFound, await read(principal, OPERATION, {**raw, "after": cursor, "wait_s": wait_s}))

        first = cast(EventsFound, await call(request.state.principal, OPERATION, {**raw, "wait_s": 0}))
        reader = request.state.principal.identity
        return Stream(lambda receive, send: streams.serve(reader, first, read_on, receive, send, frames))

    return respond
