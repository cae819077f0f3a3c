"""A far side on a loopback socket that counts what it did, and honours keys or ignores them."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from ssl import SSLContext

import orjson

KEY = "idempotency-key"


@dataclass
class Asked:
    """One request as it came."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    at: float


@dataclass
class Counting:
    """`behave` says what comes of the next requests: `lost` acts and breaks off, `hang` acts and never answers,
    `late` acts and takes `late_s`, `endless` answers a body that has no end; all others are answered with `status`,
    `kind` and `reply`, or what was done."""

    honours: bool = True
    behave: list[str] = field(default_factory=list)
    late_s: float = 0.0
    status: int = 200
    kind: str = "application/json"
    reply: bytes | None = None
    extra: str = ""
    asked: list[Asked] = field(default_factory=list)
    acts: list[str] = field(default_factory=list)  # keys, as often as something was done for them
    busy: int = 0
    busiest: int = 0
    host: str = "127.0.0.1"
    port: int = 0

    @property
    def endpoint(self) -> str:
        return f"http://{self.host}:{self.port}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            asked = await read(reader)
            self.asked.append(asked)
            self.busy += 1
            self.busiest = max(self.busy, self.busiest)
            try:
                await self._answer(asked, writer)
            finally:
                self.busy -= 1
        writer.close()

    async def _answer(self, asked: Asked, writer: asyncio.StreamWriter) -> None:
        key = asked.headers.get(KEY, "")
        if not (self.honours and key in self.acts):
            self.acts.append(key)
        done = self.acts.index(key)
        how = self.behave.pop(0) if self.behave else "answer"
        if how == "lost":
            return
        if how == "hang":
            await asyncio.sleep(3600)
        await asyncio.sleep(self.late_s)
        endless = 1_000_000_000_000 if how == "endless" else 0
        body = orjson.dumps({"done": done}) if self.reply is None else self.reply
        head = (
            f"HTTP/1.1 {self.status} X\r\nContent-Type: {self.kind}\r\n"
            f"Content-Length: {endless or len(body)}\r\n{self.extra}\r\n"
        )
        writer.write(head.encode() + body)
        await writer.drain()
        if endless:
            await asyncio.sleep(3600)


async def read(reader: asyncio.StreamReader) -> Asked:
    head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    method, path, _ = head[0].split(" ", 2)
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    return Asked(method, path, headers, body, time.monotonic())


@contextlib.asynccontextmanager
async def counting(
    *, honours: bool = True, host: str = "127.0.0.1", tls: SSLContext | None = None
) -> AsyncIterator[Counting]:
    far = Counting(honours, host=host)
    tasks: set[asyncio.Task[None]] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(far.serve(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    server = await asyncio.start_server(connected, host, 0, ssl=tls)
    far.port = server.sockets[0].getsockname()[1]
    try:
        yield far
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
