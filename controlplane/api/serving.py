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

GRACE_S = 3
IDLE_CONNECTION_S = 75


class PlaneServer(uvicorn.Server):
    """A uvicorn server that lets go of waiting clients when it stops."""

    def __init__(self, app: Any, *, stopping: Callable[[], None], host: str, port: int) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                host=host,
                port=port,
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                timeout_graceful_shutdown=GRACE_S,
                timeout_keep_alive=IDLE_CONNECTION_S,
                ws="none",
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
        for listener in sockets or ():  # what it accepts inherits this; without it an answer may wait 40 ms
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await super().startup(sockets)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._stopping()
        await super().shutdown(sockets)
