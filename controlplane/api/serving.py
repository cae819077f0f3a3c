"""Serving the app by uvicorn, so that stopping takes a moment and not a minute.

uvicorn waits for open requests before it lets the app go, and a reader of feedback may wait for
long: so everybody who waits is told first that the plane is stopping, then the server shuts down.
"""

import gc
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn

from controlplane.api.guarding import REST_S_MAX, Guard
from controlplane.api.listening import guarded
from controlplane.api.sockets import MESSAGE_BYTES_MAX, sockets

GRACE_S = 3
SEND_BUFFER_BYTES = 262_144  # of a connection, in the kernel: what a client that never reads can fill there
RECEIVE_BUFFER_BYTES = 65_536  # and what is taken of a body at once, before anybody asked for it


class PlaneServer(uvicorn.Server):
    """A uvicorn server that lets go of waiting clients when it stops."""

    def __init__(
        self, app: Any, *, stopping: Callable[[], None], host: str, port: int, guard: Guard | None = None
    ) -> None:
        self.guard = guard or Guard()
        super().__init__(
            uvicorn.Config(
                app,
                host=host,
                port=port,
                http=guarded(self.guard),  # type: ignore[arg-type] # called like the class
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                timeout_graceful_shutdown=GRACE_S,
                timeout_keep_alive=int(REST_S_MAX),
                ws=sockets(self.guard),  # type: ignore[arg-type] # called like the class
                ws_max_size=MESSAGE_BYTES_MAX,
                ws_per_message_deflate=False,
            )
        )
        self._stopping = stopping

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """None: whoever starts the server sets `should_exit`."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        gc.collect()
        gc.freeze()  # what was made to serve stays: collecting garbage need not look at it with every pass
        for listener in sockets or ():  # what it accepts inherits this
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # without it an answer may wait 40 ms
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
        self.guard.start()
        await super().startup(sockets)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._stopping()
        await super().shutdown(sockets)
        self.guard.stop()
