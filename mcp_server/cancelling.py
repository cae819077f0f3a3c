"""Cancelling a call of the handshake era, without a session.

`notifications/cancelled` is a request of its own, and names the call by an id that every client counts from the same
beginning. What tells clients of one token apart is the label that each was given when it connected; who shows none
cancels by going away. A call stands here while it is worked on, so there are no more than the boundary lets in.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from starlette.types import Message, Receive, Scope

from mcp_server.back_channel import label_of

Key = tuple[str, bytes, str | int]


class Calls:
    """The calls that are worked on, by who calls, at which client, under which id."""

    def __init__(self) -> None:
        self._open: dict[Key, asyncio.Event] = {}

    @contextmanager
    def opened(self, identity: str, scope: Scope, message: Any) -> Iterator[asyncio.Event | None]:
        """What says that a call was cancelled, while it is worked on; None of what can not be."""
        key = _key(identity, scope, message.get("id")) if isinstance(message, dict) and "method" in message else None
        if key is None:
            yield None
            return
        cancelled = self._open[key] = asyncio.Event()
        try:
            yield cancelled
        finally:
            if self._open.get(key) is cancelled:
                del self._open[key]

    def heard(self, identity: str, scope: Scope, message: Any) -> None:
        """Cancel what a message says is to be, if it is here and of the same client."""
        if not isinstance(message, dict) or message.get("method") != "notifications/cancelled":
            return
        params = message.get("params")
        key = _key(identity, scope, params.get("requestId") if isinstance(params, dict) else None)
        if key is not None and (cancelled := self._open.get(key)) is not None:
            cancelled.set()


def until(cancelled: asyncio.Event, receive: Receive) -> Receive:
    """What comes from a client; that it has gone, when it has cancelled."""

    async def coming() -> Message:
        first, over = asyncio.ensure_future(receive()), asyncio.ensure_future(cancelled.wait())
        try:
            await asyncio.wait((first, over), return_when=asyncio.FIRST_COMPLETED)
            return first.result() if first.done() else {"type": "http.disconnect"}
        finally:
            first.cancel()
            over.cancel()

    return coming


def _key(identity: str, scope: Scope, id_: Any) -> Key | None:
    label = label_of(scope)
    if label is None or isinstance(id_, bool) or not isinstance(id_, str | int):
        return None
    return identity, label, id_
