"""A placer for the tests of the gate that makes confined hosts, as the one of Ray does, without Ray."""

import asyncio
import contextlib
import os
import subprocess
import threading
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ray_runtime.confinement.host import plan_of
from ray_runtime.confinement.start import Unconfined, start
from ray_runtime.connection import Connection
from schemas.frames import HostGone, HostsWanted, PlacerHello
from schemas.wire import ToPlacer
from tests.gate.running import true

UIDS = {"confined_uid_first": 2_001_000_000 + os.getpid() % 500_000, "confined_uids": 50}


class ConfiningPlacer:
    """Follows one gate. Hosts are started by one thread, which lives as long as this does: they end with it."""

    def __init__(self, socket: Path, hidden: list[Path]) -> None:
        self._socket, self._hidden = socket, hidden
        self._hosts: dict[str, subprocess.Popen[bytes]] = {}
        self._gone: set[str] = set()
        self._starter = ThreadPoolExecutor(1)
        self._connection: Connection[ToPlacer] | None = None
        self._loop = asyncio.get_running_loop()

    async def keep_connected(self) -> None:
        while True:
            with contextlib.suppress(OSError):
                _, self._connection = await self._loop.create_unix_connection(
                    lambda: Connection[ToPlacer](ToPlacer, self._received), str(self._socket)
                )
                self._connection.send(PlacerHello(os.getpid(), "local", ""))
                await self._connection.lost
            await asyncio.sleep(0.05)

    async def supervisor(self) -> "subprocess.Popen[bytes]":
        """Of the only host there is, once one that has ended for the gate is gone for the system, too."""
        await true(lambda: len(self._living()) == 1)
        return self._living()[0]

    def _living(self) -> "list[subprocess.Popen[bytes]]":
        return [it for it in self._hosts.values() if it.poll() is None]

    def end(self) -> None:
        self._starter.shutdown()  # one that is being started is there then
        for host in list(self._hosts.values()):
            host.kill()
            host.wait()

    def _received(self, frame: ToPlacer) -> None:
        if not isinstance(frame, HostsWanted):
            return
        for host_id in frame.reserved:
            if host_id not in self._hosts and host_id not in self._gone:
                self._gone.add(host_id)  # until it is there; an id comes once
                about = {"reserved": frame.reserved[host_id], "uid": frame.uids[host_id]}
                self._loop.run_in_executor(self._starter, self._start, host_id, about)
        for host_id in self._hosts.keys() - set(frame.host_ids):
            self._hosts[host_id].kill()

    def _start(self, host_id: str, about: dict[str, Any]) -> None:
        try:
            host = start(plan_of(socket=self._socket, host_id=host_id, node="local", hidden=self._hidden, **about))
        except Unconfined as error:
            self._loop.call_soon_threadsafe(self._tell, host_id, str(error))
            return
        self._hosts[host_id] = host
        threading.Thread(target=self._until_gone, args=(host_id, host)).start()

    def _until_gone(self, host_id: str, host: "subprocess.Popen[bytes]") -> None:
        said = host.communicate()[0].decode(errors="replace")
        if said:
            print(f"{host_id} said:\n{said}")
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._tell, host_id, "the host ended")

    def _tell(self, host_id: str, why: str) -> None:
        if self._connection is not None:
            self._connection.send(HostGone(host_id, why))


@contextlib.asynccontextmanager
async def confining(socket: Path, *hidden: Path) -> AsyncIterator[ConfiningPlacer]:
    placer = ConfiningPlacer(socket, list(hidden))
    keeping = asyncio.create_task(placer.keep_connected())
    try:
        yield placer
    finally:
        keeping.cancel()
        placer.end()
