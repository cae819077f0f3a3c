"""WebSockets under the listener's guard: one place among all connections, messages that are bounded, and no client
that does not take what is sent, or does not answer a ping."""

import logging
from asyncio.transports import BaseTransport
from collections.abc import Callable
from typing import Any

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from controlplane.api.guarding import Guard, Unsent

log = logging.getLogger("steward.api")
MESSAGE_BYTES_MAX = 262_144  # what is larger is published by POST


class GuardedSocket(Unsent, WebSocketsSansIOProtocol):
    """One connection that was upgraded."""

    def __init__(self, guard: Guard, **given: Any) -> None:
        super().__init__(**given)
        self._guard = guard

    def connection_made(self, transport: BaseTransport) -> None:
        super().connection_made(transport)
        self._guard.open.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._guard.open.discard(self)
        self._taken()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """What breaks the parser, as a path that is no text does, ends the connection, and leaves nothing of it."""
        try:
            super().data_received(data)
        except Exception as error:  # noqa: BLE001 - the listener's boundary
            log.warning("a WebSocket broke off: %s", type(error).__name__)
            self.end()


def sockets(guard: Guard) -> Callable[..., GuardedSocket]:
    """What uvicorn makes the protocol of an upgraded connection by."""

    def make(**given: Any) -> GuardedSocket:
        return GuardedSocket(guard, **given)

    return make
