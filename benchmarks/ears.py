"""Agents that say at once that they have heard, and channels that they read."""

import asyncio
import socket
import struct
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import orjson

from benchmarks import loads
from benchmarks.timing import IN_FLIGHT

HEARD_S_MAX = 120.0
STAMP = struct.Struct("<Id")  # which message, and when
SOURCE = """
import socket, struct, time
from ray_runtime import Agent

OUT = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
OUT.connect({path!r})


class Ear(Agent):
    async def on_message(self, turn, envelope):
        OUT.send(struct.pack("<Id", envelope.data, time.time()))


class Says(Agent):
    async def on_message(self, turn, envelope):
        return None


class Again(Agent):
    async def on_message(self, turn, envelope):
        name, times = envelope.data
        took = []
        for _ in range(times):
            began = time.perf_counter()
            await turn.ask(name, None)
            took.append(time.perf_counter() - began)
        return took
"""


async def some_at_once(act: Callable[[str], Awaitable[object]], names: Iterable[str]) -> None:
    """Do it for each, so many at once."""
    left = iter(names)

    async def place() -> None:
        for name in left:
            await act(name)

    await asyncio.gather(*(place() for _ in range(IN_FLIGHT)))


class Ears:
    """What is heard, by the number of its message."""

    def __init__(self, load: loads.Loaded, code: str, heard: socket.socket) -> None:
        self._load = load
        self._code = code
        self._count = 0
        self._agents: set[str] = set()
        self._socket = heard
        self._heard: dict[int, float] = {}
        self._all = 0
        self._more = asyncio.Event()

    @classmethod
    @asynccontextmanager
    async def open(cls, load: loads.Loaded) -> AsyncIterator["Ears"]:
        path = Path(load.gate.folder) / "ears"
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
            heard.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
            heard.settimeout(0)
            heard.bind(str(path))
            ears = cls(load, await load.gate.code(SOURCE.format(path=str(path))), heard)
            asyncio.get_running_loop().add_reader(heard, ears._read)
            try:
                yield ears
            finally:
                asyncio.get_running_loop().remove_reader(heard)

    def _read(self) -> None:
        while True:
            try:
                number, at = STAMP.unpack(self._socket.recv(STAMP.size))
            except BlockingIOError:
                break
            self._heard[number] = at
            self._all += 1
        self._more.set()

    async def agents(self, names: Iterable[str], cls: str = "Ear") -> None:
        """Agents that have had their first turn; those that are there already stay."""

        async def made(name: str) -> None:
            await self._load.agent(name, cls, code=self._code)

        new = [it for it in names if it not in self._agents]
        self._agents.update(new)
        await some_at_once(made, new)

    async def channels(self, members: Mapping[str, Sequence[str]]) -> None:
        """Channels, with the names of their members."""

        async def made(name: str) -> None:
            await self._load.gate.channel(name, *(f"agent_{it}" for it in members[name]))

        await some_at_once(made, members)

    async def _publish(self, channel: str) -> int:
        self._count += 1
        number, message_id = self._count, f"{channel}-{self._count}"
        body = {
            "specversion": "1.0",
            "id": message_id,
            "source": "/operators/bench",
            "type": "steward.message",
            "time": "2026-01-01T00:00:00Z",
            "data": number,
        }
        await self._load.gate.client.publish_channel("default", channel, message_id, orjson.dumps(body))
        return number

    async def heard_from(self, channel: str) -> float:
        """Seconds from publishing, its durable insert included, to the first line of the handler."""
        begun = time.time()
        number = await self._publish(channel)
        await self._until(lambda: number in self._heard)
        return self._heard.pop(number) - begun

    async def rate(self, channels: Sequence[str], seconds: float) -> float:
        """Messages a second, the next of each channel published when the last of it was heard."""
        begun, done = time.perf_counter(), 0

        async def place(channel: str) -> None:
            nonlocal done
            while time.perf_counter() - begun < seconds:
                await self.heard_from(channel)
                done += 1

        await asyncio.gather(*map(place, channels))
        return done / (time.perf_counter() - begun)

    async def seconds(self, channels: Sequence[str], *, heard: int) -> float:
        """Until all of what is published was heard; so many publications at once."""
        begun, before = time.perf_counter(), self._all
        await some_at_once(self._publish, channels)
        await self._until(lambda: self._all - before >= heard)
        return time.perf_counter() - begun

    async def _until(self, said: Callable[[], bool]) -> None:
        async with asyncio.timeout(HEARD_S_MAX):
            while not said():
                self._more.clear()
                await self._more.wait()
