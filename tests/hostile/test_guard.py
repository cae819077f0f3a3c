"""The guard over upgraded connections: who takes nothing of what it is sent goes, and all others are served."""

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from controlplane.api.guarding import Guard
from controlplane.api.serving import PlaneServer
from tests.hostile.peers import head

GREEDY = 4
PIECE = bytes(65_536)
UNSENT_BYTES_MAX = 100_000
UPGRADE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec_WebSocket_Key": "dGhlIHNhbXBsZSBub25jZQ==",
    "Sec_WebSocket_Version": "13",
}


async def flooding(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Sends to each socket whatever it takes, and answers each request."""
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        while True:
            await send({"type": "websocket.send", "bytes": PIECE})
    elif scope["type"] == "http":
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})


@pytest.fixture
def served() -> Iterator[tuple[int, Guard]]:
    """The port of a listener in a thread of its own: one that hangs fails the test, and holds up no other."""
    listener = socket.create_server(("127.0.0.1", 0))
    guard = Guard(unsent_bytes_max=UNSENT_BYTES_MAX)
    server = PlaneServer(flooding, stopping=lambda: None, host="127.0.0.1", port=0, guard=guard)
    thread = threading.Thread(target=lambda: asyncio.run(server.serve([listener])), daemon=True)
    thread.start()
    try:
        yield listener.getsockname()[1], guard
    finally:
        server.should_exit = True
        thread.join(10)


def test_sockets_that_take_nothing_are_ended_and_others_are_served(served: tuple[int, Guard]) -> None:
    """The longest stalled go as soon as all hold too much; nothing of them is counted from then on."""
    port, guard = served
    greedy = [socket.create_connection(("127.0.0.1", port), 5) for _ in range(GREEDY)]
    try:
        for it in greedy:
            it.sendall(head(None, "/", "GET", **UPGRADE))
        end = time.monotonic() + 10
        while len(guard.open) > 1 and time.monotonic() < end:
            time.sleep(0.05)
        with socket.create_connection(("127.0.0.1", port), 5) as other:
            other.sendall(head(None, "/", "GET"))
            assert other.recv(100).startswith(b"HTTP/1.1 204")
        assert guard.unsent_bytes <= UNSENT_BYTES_MAX
        assert len(guard.stalled) <= 1
    finally:
        for it in greedy:
            it.close()
