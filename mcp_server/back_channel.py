"""Asking a client of the handshake era while its call is worked on, without a session.

The request goes along the stream that answers the call; what the client says to it comes as a message of its own, and
is found by an id that nobody can guess, from the same caller. What a client of that era can do, it says once, when it
connects: so it is given a session id that says so again with each call. Nothing is kept under that id, and nothing
rests on it: who makes one up is asked what it can not answer. Where calls can be cancelled, those that show no forms
get one, too, which tells them apart.
"""

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import orjson
from mcp_types.version import HANDSHAKE_PROTOCOL_VERSIONS
from starlette.types import Message, Scope, Send

from schemas.principal import Principal

SESSION = b"mcp-session-id"
VERSION = b"mcp-protocol-version"
ELICITS = b"elicits-"
PLAIN = b"plain-"


class Told(NamedTuple):
    """What a client said to a request: its result, None for an error; and who that was."""

    principal: Principal
    result: Any


class ClosedError(Exception):
    """The answer to the call has ended: there is nothing to ask along."""


class Requests:
    """The requests to all clients that are open, by their ids."""

    def __init__(self) -> None:
        self._open: dict[str, tuple[str, asyncio.Future[Told]]] = {}

    def opened(self, identity: str) -> "tuple[str, asyncio.Future[Told]]":
        id_ = secrets.token_hex(16)
        told: asyncio.Future[Told] = asyncio.get_running_loop().create_future()
        self._open[id_] = identity, told
        return id_, told

    def closed(self, id_: str) -> None:
        self._open.pop(id_, None)

    def heard(self, principal: Principal, message: Any) -> bool:
        """Whether a message answers an open request of its sender."""
        if not isinstance(message, dict) or "method" in message or not isinstance(id_ := message.get("id"), str):
            return False
        identity, told = self._open.get(id_, ("", None))
        if told is None or told.done() or identity != principal.identity:
            return False
        told.set_result(Told(principal, message.get("result")))
        return True


class BackChannel:
    """The stream of one call; it sends what its answer is made of, too."""

    def __init__(self, requests: Requests, identity: str, send: Send) -> None:
        self._requests, self._identity, self._send = requests, identity, send
        self._begun, self._lock, self._ended = asyncio.Event(), asyncio.Lock(), False

    async def send(self, message: Message) -> None:
        """Send on; between two pieces of the answer there is room for a request."""
        async with self._lock:
            await self._send(message)
            if message["type"] == "http.response.start":
                self._begun.set()
            elif not message.get("more_body", False):
                self._ended = True

    async def ask(self, method: str, params: dict[str, Any]) -> Told:
        """What the client says; takes the request back when nobody waits for that any more. Raises ClosedError."""
        id_, told = self._requests.opened(self._identity)
        sent = False  # only what may have reached the client is taken back
        try:
            async with self._room():
                sent = True
                await self._write({"id": id_, "method": method, "params": params})
            return await told
        except asyncio.CancelledError:
            if sent and not told.done():
                await self._take_back(id_)
            raise
        finally:
            self._requests.closed(id_)

    async def _take_back(self, id_: str) -> None:
        params = {"requestId": id_, "reason": "the question is not open any more"}
        try:
            async with self._room():
                await self._write({"method": "notifications/cancelled", "params": params})
        except (ClosedError, OSError):
            return

    @asynccontextmanager
    async def _room(self) -> AsyncIterator[None]:
        """The stream, between two pieces of the answer. Raises ClosedError when that has ended."""
        await self._begun.wait()
        async with self._lock:
            if self._ended:
                raise ClosedError
            yield

    async def _write(self, message: dict[str, Any]) -> None:
        body = b"event: message\r\ndata: " + orjson.dumps({"jsonrpc": "2.0", **message}) + b"\r\n\r\n"
        await self._send({"type": "http.response.body", "body": body, "more_body": True})


def elicits(capabilities: Any) -> bool:
    """Whether a client that can do this shows forms; by old custom one that says nothing more does."""
    elicitation = capabilities.get("elicitation") if isinstance(capabilities, dict) else None
    return isinstance(elicitation, dict) and ("form" in elicitation or not elicitation)


def is_labelled(scope: Scope) -> bool:
    """Whether a client of the handshake era says with its call that it shows forms."""
    return (label_of(scope) or b"").startswith(ELICITS)


def label_of(scope: Scope) -> bytes | None:
    """What a client of the handshake era was given when it connected, if it shows it."""
    given = dict(scope["headers"])
    version, label = given.get(VERSION, b"").decode("latin-1"), given.get(SESSION, b"")
    older = not version or version in HANDSHAKE_PROTOCOL_VERSIONS
    return label if older and label.startswith((ELICITS, PLAIN)) else None


def labelling(send: Send, *, forms: bool) -> Send:
    """Sends the answer to a client that connects, with a label; it says whether that shows forms."""

    async def labelled(message: Message) -> None:
        if message["type"] == "http.response.start" and message["status"] == 200:
            label = (ELICITS if forms else PLAIN) + secrets.token_hex(16).encode()
            message = {**message, "headers": [*message.get("headers", ()), (SESSION, label)]}
        await send(message)

    return labelled
