"""A relay in this process, and a gate of a few lines: what connections leave behind when they end."""

import asyncio
import contextlib
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from controlplane.guard.certificates import listener
from ray_runtime import relay as relaying
from ray_runtime.connection import packed
from ray_runtime.relay import Relay
from schemas.frames import Home
from schemas.wire import LeaseHello

pytestmark = pytest.mark.anyio
THREADS = 2
HOST = (
    "import socket, sys, time; s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]);"
    "s.sendall(bytes.fromhex(sys.argv[2])); print('said', flush=True); time.sleep(60)"
)


class FarGate:
    """Takes what relays pass on, and can be gone."""

    def __init__(self) -> None:
        self.passed: list[asyncio.StreamWriter] = []

    async def start(self) -> Home:
        context, certificate = listener()
        self._server = await asyncio.start_server(self._took, "127.0.0.1", 0, ssl=context)
        port = self._server.sockets[0].getsockname()[1]
        return Home("localhost", port, "key", certificate)  # a name, which the loop's threads resolve

    async def _took(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.passed.append(writer)

    def drop(self) -> None:
        """As one that was killed."""
        for writer in self.passed:
            writer.transport.abort()
        self.passed.clear()

    async def end(self) -> None:
        self.drop()
        self._server.close()


@contextlib.asynccontextmanager
async def relayed(folder: Path) -> AsyncIterator[tuple[FarGate, Path]]:
    """A gate and a relay to it, on a loop that has few threads."""
    threads = ThreadPoolExecutor(THREADS)
    asyncio.get_running_loop().set_default_executor(threads)
    gate = FarGate()
    relay = Relay(folder, "node", await gate.start())
    serving = asyncio.create_task(relay.serve())
    await true(lambda: gate.passed and (folder / "gate.sock").exists())  # its own connection
    try:
        yield gate, folder
    finally:
        await gate.end()
        relay.end()
        await serving
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor())
        threads.shutdown(wait=False)


async def true(condition: object, timeout_s: float = 10) -> None:
    limit = time.monotonic() + timeout_s
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < limit, "not in time"
        await asyncio.sleep(0.01)


async def a_host(folder: Path) -> asyncio.StreamWriter:
    _, writer = await asyncio.open_unix_connection(str(folder / "gate.sock"))
    writer.write(packed(LeaseHello("h1")))
    return writer


async def test_a_gate_that_was_killed_is_reached_again_at_once(tmp_path: Path) -> None:
    """By its name, whatever connections there were: hosts that live on hold none of the threads that resolve it."""
    async with relayed(tmp_path / "n") as (gate, folder):
        before = [await a_host(folder) for _ in range(4 * THREADS)]
        await true(lambda: len(gate.passed) == len(before) + 1)
        gate.drop()
        began = time.monotonic()
        after = [await a_host(folder) for _ in range(3)]
        await true(lambda: len(gate.passed) == len(after) + 1, relaying.ENDED_S_MAX * 0.5)
        assert time.monotonic() - began < relaying.ENDED_S_MAX / 2
        for writer in (*before, *after):
            writer.close()


async def test_what_a_host_has_left_goes_once_its_process_has_ended(tmp_path: Path) -> None:
    """And not while it lives, which it does when only the gate was lost."""
    async with relayed(tmp_path / "n") as (gate, folder):
        kept = folder / "work" / "h1"
        kept.mkdir(parents=True)
        argv = [sys.executable, "-c", HOST, str(folder / "gate.sock"), packed(LeaseHello("h1")).hex()]
        host = await asyncio.create_subprocess_exec(*argv, stdout=subprocess.PIPE)
        try:
            assert host.stdout is not None
            assert await host.stdout.readline() == b"said\n"
            await true(lambda: len(gate.passed) == 2)
            gate.drop()
            await asyncio.sleep(0.3)
            assert kept.exists()
        finally:
            host.kill()
            await host.wait()
        await true(lambda: not kept.exists())
