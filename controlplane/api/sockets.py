"""WebSockets under the listener's guard: one place among all connections, messages that are bounded, and no client
that does not take what is sent, or does not answer a ping."""

import logging
from asyncio.transports import BaseTransport
from collections.abc import Callable
from typing import Any

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from controlplane.api.listening import Guard

log = logging.getLogger("steward.api")
MESSAGE_BYTES_MAX = 262_144  # what is larger is published by POST


class GuardedSocket(WebSocketsSansIOProtocol):
    """One connection that was upgraded."""

    def __init__(self, guard: Guard, **given: Any) -> None:
        super().__init__(**given)
        self._guard = guard
        self._unsent_bytes = 0

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

    def end(self) -> None:
        """End the connection now, whatever it does."""
        self.transport.abort()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._unsent_bytes = self.transport.get_write_buffer_size()
        self._guard.unsent(self, self._unsent_bytes, self.loop.time())

    def resume_writing(self) -> None:
        super().resume_writing()
        self._taken()

    def _taken(self) -> None:
        if self._guard.stalled.pop(self, None) is not None:
            self._guard.unsent_bytes -= self._unsent_bytes
            self._unsent_bytes = 0


def sockets(guard: Guard) -> Callable[..., GuardedSocket]:
    """What uvicorn makes the protocol of an upgraded connection by."""

    def make(**given: Any) -> GuardedSocket:
        return GuardedSocket(guard, **given)

    return make
