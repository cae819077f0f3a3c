"""Clients that no library would be: raw sockets that say what they like, and take what they like."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlsplit

import orjson

from schemas.problem import Problem

CALL = "/v1/operations/operations.search/call"
AGENTS = "/mcp/agents/default"
SURFACES = (CALL, "/v1/resources/propose", "/mcp", "/mcp/full", AGENTS)


class Peer:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def say(self, *said: bytes) -> bool:
        """Send, as long as the other side takes it; False when it closed."""
        try:
            for it in said:
                self._writer.write(it)
                await self._writer.drain()
        except OSError:
            return False
        return True

    async def answer(self, seconds_max: float = 30) -> tuple[int, bytes]:
        """Status and body of the next answer; status 0 when the connection ended without one."""
        try:
            async with asyncio.timeout(seconds_max):
                head = await self._reader.readuntil(b"\r\n\r\n")
                lengths = [it for it in head.lower().split(b"\r\n") if it.startswith(b"content-length:")]
                body = await self._reader.readexactly(int(lengths[0][15:])) if lengths else b""
        except (OSError, asyncio.IncompleteReadError):
            return 0, b""
        return int(head.split(b" ", 2)[1]), body

    async def status(self, seconds_max: float = 60) -> int:
        """Status of an answer that goes on."""
        async with asyncio.timeout(seconds_max):
            return int((await self._reader.readuntil(b"\r\n\r\n")).split(b" ", 2)[1])

    async def piece(self) -> bytes:
        """What has come by now, or comes next; nothing at the end."""
        return await self._reader.read(65_536)

    async def problem(self, seconds_max: float = 30) -> Problem:
        """The next answer, which must be a Problem of its status."""
        status, body = await self.answer(seconds_max)
        assert status, "the connection ended without an answer"
        found = Problem.model_validate(orjson.loads(body))
        assert found.status == status
        return found

    async def ended(self, seconds_max: float = 30) -> bool:
        """Whether the other side ends the connection."""
        try:
            async with asyncio.timeout(seconds_max):
                while await self._reader.read(65_536):
                    pass
        except TimeoutError:
            return False
        except OSError:
            return True
        return True

    async def close(self) -> None:
        self._writer.transport.abort()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()


async def connect(url: str, *, receive_bytes: int | None = None) -> Peer:
    """A connection; with `receive_bytes`, one whose socket takes hardly anything by itself."""
    place = urlsplit(url)
    sock = socket.socket()
    if receive_bytes:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
    sock.settimeout(0)
    await asyncio.get_running_loop().sock_connect(sock, (place.hostname, place.port))
    limit = receive_bytes or 65_536
    return Peer(*await asyncio.open_connection(sock=sock, limit=limit))


@contextlib.asynccontextmanager
async def connected(url: str, **given: Any) -> AsyncIterator[Peer]:
    peer = await connect(url, **given)
    try:
        yield peer
    finally:
        await peer.close()


@contextlib.asynccontextmanager
async def crowd(url: str, count: int, **given: Any) -> AsyncIterator[list[Peer]]:
    """Many connections, closed at the end."""
    peers: list[Peer] = []
    try:
        for at in range(0, count, 100):
            peers += await asyncio.gather(*(connect(url, **given) for _ in range(min(100, count - at))))
        yield peers
    finally:
        await asyncio.gather(*(peer.close() for peer in peers))


def head(token: str | None, path: str = CALL, method: str = "POST", **headers: Any) -> bytes:
    """The head of a request; a header that is None is left out."""
    given: dict[str, Any] = {"Host": "127.0.0.1", "Content-Type": "application/json"}
    if token is not None:
        given["Authorization"] = f"Bearer {token}"
    given |= {name.replace("_", "-"): value for name, value in headers.items()}
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in given.items() if value is not None)]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)
