"""`GET /v1/channels/{namespace}/{name}/stream`: a channel as server-sent events, or as a WebSocket, in both directions.

Both are the same read as `channels.read`, asked again and again from the cursor where the reader stands, with the
token checked again for each page. One look at where channels end serves all
readers. Nothing is queued for one: the next page is read when the last one was taken,
so a slow one lags in the log and slows nobody, and is told of what retention dropped meanwhile (`steward.gap`). What
is published over a WebSocket is `channels.publish`, one at a time: the next is not read before.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any, cast

import orjson
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.types import Receive, Send
from starlette.websockets import WebSocket, WebSocketDisconnect

from controlplane.api.bearers import STREAM_PROTOCOL
from controlplane.api.events import Authenticate, Checks, Stream
from controlplane.api.metrics import Metered
from controlplane.feedback.heads import Heads
from controlplane.feedback.places import Places
from controlplane.feedback.stream import EventStreams
from controlplane.mesh.strict import parse_json_now
from controlplane.mesh.tracing import tracing
from controlplane.protocols.envelopes import trace_of
from controlplane.resources.problems import refuse
from schemas.calls import ChannelRead
from schemas.principal import Principal
from schemas.problem import Refusal

PATH = "/v1/channels/{namespace}/{name}/stream"
READ, PUBLISH = "channels.read", "channels.publish"
SOCKETS_MAX = 512
PAGE = 100
HEARTBEAT_S = 15.0
REFUSED, BROKEN = 1008, 1011  # codes of RFC 6455: a policy, an unexpected condition
_SAID = frozenset({"publish", "ref", "traceparent"})
Tell = Callable[[dict[str, Any]], Awaitable[None]]


class ChannelStreams:
    """The streams of all channels. `call` is counted among calls, `read` among readers."""

    def __init__(self, call: Metered, read: Metered, streams: EventStreams, heads: Heads) -> None:
        self._call = call
        self._read = read
        self._heads = heads
        self._streams = streams
        self._checks = Checks()
        self._sockets = Places("WebSockets", "sockets_max", SOCKETS_MAX)

    def routes(self) -> list[BaseRoute]:
        return [Route(PATH, self._events, methods=["GET"]), WebSocketRoute(PATH, self._socket)]

    async def _events(self, request: Request) -> Response:
        reading = self._reading(request)
        first = await reading.first(self._call)

        async def serve(receive: Receive, send: Send) -> None:
            with self._heads.reading(reading.channel):
                await self._streams.serve(reading.principal.identity, first, reading.page, receive, send, frames)

        return Stream(serve)

    async def _socket(self, socket: WebSocket) -> None:
        reading = self._reading(socket)
        with self._sockets.held(reading.principal.identity):
            first = await reading.first(self._call)
            ours = STREAM_PROTOCOL in socket.scope["subprotocols"]
            await socket.accept(STREAM_PROTOCOL if ours else None)
            with self._heads.reading(reading.channel):
                await _both(self._told(socket, reading, first), self._heard(socket, reading))

    def _reading(self, connection: HTTPConnection) -> "_Reading":
        if unknown := sorted(set(connection.query_params) - {"after"}):
            raise refuse("UNKNOWN_FIELD", f"a stream has no field {unknown[0][:100]}", name=unknown[0][:100])
        given: dict[str, Any] = dict(connection.path_params)
        after = connection.headers.get("last-event-id", connection.query_params.get("after"))
        state = connection.state
        checked = self._checks, state.principal, state.authenticate
        return _Reading(self._read, self._heads, *checked, given, after)

    async def _told(self, socket: WebSocket, reading: "_Reading", page: ChannelRead) -> None:
        """Every envelope with the cursor behind it; and the cursor alone where nothing comes."""
        try:
            while True:
                for envelope in page.envelopes:
                    await _tell(socket, {"cursor": envelope["position"], "envelope": envelope})
                if not page.envelopes:
                    await _tell(socket, {"cursor": page.cursor})
                page = await reading.page(page.cursor, HEARTBEAT_S)
        except Refusal as refusal:
            await _tell(socket, {"problem": refusal.problem.model_dump(mode="json")})
            await socket.close(REFUSED)

    async def _heard(self, socket: WebSocket, reading: "_Reading") -> None:
        """Publish what is said, one after the other."""
        while True:
            ref: Any = None
            try:
                said = _said(await socket.receive())
                ref = said.get("ref")
                given = {**said["publish"], "namespace": reading.given["namespace"], "name": reading.given["name"]}
                with tracing(trace_of(said.get("traceparent"))):
                    answered = await self._call(await reading.still(), PUBLISH, given)
                await _tell(socket, {"ref": ref, "published": answered.model_dump(mode="json")})
            except Refusal as refusal:
                await _tell(socket, {"ref": ref, "problem": refusal.problem.model_dump(mode="json")})


class _Reading:
    """One reader's way through one channel."""

    def __init__(
        self,
        read: Metered,
        heads: Heads,
        checks: Checks,
        principal: Principal,
        authenticate: Authenticate,
        given: dict[str, Any],
        after: str | None,
    ) -> None:
        self.principal = principal
        self.given = given
        self.channel = given["namespace"], given["name"]
        self._heads = heads
        self._read, self._checks, self._authenticate = read, checks, authenticate
        self._after = {} if after is None else {"after": after}

    async def first(self, call: Metered) -> ChannelRead:
        """What is wrong with the question is answered as a Problem, before anything is sent."""
        raw = {**self.given, **self._after, "limit": PAGE, "wait_s": 0}
        return cast(ChannelRead, await call(self.principal, READ, raw))

    async def page(self, cursor: str, wait_s: float) -> ChannelRead:
        """What comes after a cursor; nothing, if that is nothing for so long."""
        raw = {**self.given, "after": cursor, "limit": PAGE, "wait_s": 0}
        mark = self._heads.mark(self.channel)
        page = cast(ChannelRead, await self._read(await self.still(), READ, raw))
        if page.envelopes or wait_s <= 0:
            return page
        await self._heads.wait(self.channel, mark, wait_s)
        return cast(ChannelRead, await self._read(await self.still(), READ, raw))

    async def still(self) -> Principal:
        return await self._checks.still(self.principal, self._authenticate)


def frames(page: ChannelRead) -> bytes:
    """A page as server-sent events, and a comment that carries the cursor."""
    told = b"".join(b"id: %s\ndata: %s\n\n" % (it["position"].encode(), orjson.dumps(it)) for it in page.envelopes)
    return told + f"id: {page.cursor}\n: \n\n".encode()


def _said(message: Any) -> dict[str, Any]:
    """What a client says: `{"publish": {"data": …}, "ref": …, "traceparent": …}`; raises Refusal, or
    WebSocketDisconnect at its end."""
    if message["type"] == "websocket.disconnect":
        raise WebSocketDisconnect(message.get("code", 1005))
    text = message.get("text")
    said = parse_json_now(text.encode()) if text is not None else None
    if not isinstance(said, dict) or not isinstance(said.get("publish"), dict):
        raise refuse("INVALID_VALUE", "say one JSON object with the field publish, as text", field="/publish")
    if unknown := sorted(set(said) - _SAID):
        raise refuse("UNKNOWN_FIELD", f"it has no field {unknown[0][:100]}", field=f"/{unknown[0][:100]}")
    if taken := sorted({"namespace", "name"} & set(said["publish"])):
        raise refuse("UNKNOWN_FIELD", f"{taken[0]} is the stream's", field=f"/publish/{taken[0]}", name=taken[0])
    return said


async def _tell(socket: WebSocket, said: dict[str, Any]) -> None:
    """Waits while the client does not take what was sent; the listener ends a connection where that lasts."""
    await socket.send_text(orjson.dumps(said).decode())


async def _both(*work: Any) -> None:
    """Until one of them ends, or the client goes; what broke is raised."""
    tasks = [asyncio.ensure_future(it) for it in work]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        with contextlib.suppress(WebSocketDisconnect):
            for task in done:
                task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
