"""A relay: the gate's socket on another node. It passes on bytes, and says whose they are.

Hosts of its node connect to its unix socket (0600) as to a gate's. For each connection it opens one to the
gate, over TLS by a certificate it was told, and says first which process this is, as its own kernel knows.
It holds nothing else: no journal, no credential of anybody. A connection that ends at one side ends at the
other, so that a lost node, a lost relay and a lost gate are each heard of at once. A process that is to be
ended, and does not answer, it kills. Of workers that have ended it puts away what they left. Without a gate for too
long, or told to, it ends, and its folder with it, which ends the hosts.
"""

import asyncio
import contextlib
import logging
import os
import shutil
import socket
import ssl
import struct
import time
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

import msgspec
import psutil

from ray_runtime.connection import Connection, packed
from ray_runtime.node_folder import leave, private, put_away
from schemas.frames import FRAME_BYTES_MAX, Home, RelayHello, Through
from schemas.processes import is_it, started
from schemas.wire import Hello, LeaseHello, ToRelay

log = logging.getLogger("steward.relay")
CHUNK_BYTES = 262_144
RETRY_S = 0.1
GONE_S = 60.0
TIDY_S = 2.0
FIRST_S_MAX = 10.0
ENDED_S_MAX = 10.0
CERTIFIED_FOR = "steward-gate"
_LENGTH = struct.Struct("<I")
_CREDENTIALS = struct.Struct("3i")
_first = msgspec.msgpack.Decoder(Hello | LeaseHello)


class Relay:
    """The relay of one node, without its process."""

    def __init__(self, folder: Path, node_id: str, home: Home, gone_s: float = GONE_S) -> None:
        self._folder = folder
        self._node_id = node_id
        self._gone_s = gone_s
        self._home, self._trusts = home, _trusts(home)
        self._known: dict[int, float] = {}  # processes that have connected, and when they began
        self._control: Connection[ToRelay] | None = None
        self._passing: set[asyncio.Task[None]] = set()
        self._ended = asyncio.Event()

    async def serve(self) -> None:
        """Serve until `end`, or until there is no gate for too long; nothing of it is left afterwards."""
        private(self._folder)
        path = self._folder / "gate.sock"
        path.unlink(missing_ok=True)
        before = os.umask(0o177)
        try:
            server = await asyncio.start_unix_server(self._accepted, str(path), backlog=512, limit=CHUNK_BYTES)
        finally:
            os.umask(before)
        keeping = [asyncio.create_task(it) for it in (self._keep_control(), self._keep_tidy())]
        await self._ended.wait()
        server.close()
        for task in keeping:
            task.cancel()
        for task in list(self._passing):
            task.cancel()
        await asyncio.gather(*keeping, return_exceptions=True)
        leave(self._folder)

    def end(self) -> None:
        """End in good order; on the loop's thread."""
        self._ended.set()

    def moved(self, home: Home) -> None:
        """The gate is elsewhere now; on the loop's thread."""
        if home != self._home:
            self._home, self._trusts = home, _trusts(home)
            if self._control is not None:
                self._control.close()

    async def _keep_tidy(self) -> None:
        """A function whose worker was killed has left its code here."""
        while True:
            await asyncio.sleep(TIDY_S)
            await asyncio.to_thread(put_away, self._folder)

    # Its own connection

    async def _keep_control(self) -> None:
        seen = time.monotonic()
        while time.monotonic() - seen < self._gone_s:
            try:
                _, control = await asyncio.get_running_loop().create_connection(
                    lambda: Connection[ToRelay](ToRelay, self._told), **self._address()
                )
            except OSError:
                await asyncio.sleep(RETRY_S)
                continue
            self._control = control
            control.send(RelayHello(self._home.key, self._node_id, os.getpid()))
            began = time.monotonic()
            await control.lost
            self._control = None
            if time.monotonic() - began > RETRY_S:  # it was not refused
                seen = time.monotonic()
            await asyncio.sleep(RETRY_S)
        log.warning("there has been no gate for %.0f s", self._gone_s)
        self.end()

    def _address(self) -> dict[str, Any]:
        home = self._home
        return {"host": home.host, "port": home.port, "ssl": self._trusts, "server_hostname": CERTIFIED_FOR}

    def _told(self, frame: ToRelay) -> None:
        if frame.pid == os.getpid():  # Ray has given this node up
            self.end()
        elif self._known.get(frame.pid) == frame.pid_started and is_it(frame.pid, frame.pid_started):
            with contextlib.suppress(psutil.Error):
                psutil.Process(frame.pid).kill()

    # Passing on

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._passing.add(task)
        try:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError, psutil.Error, msgspec.MsgspecError):
                await self._pass_on(reader, writer)
        finally:
            self._passing.discard(task)
            writer.close()

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = writer.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        pid = _CREDENTIALS.unpack(peer)[0]
        began = started(pid)
        head = await asyncio.wait_for(reader.readexactly(_LENGTH.size), FIRST_S_MAX)
        length = min(_LENGTH.unpack(head)[0], FRAME_BYTES_MAX)
        first = await asyncio.wait_for(reader.readexactly(length), FIRST_S_MAX)
        host_id = _first.decode(first).host_id
        home_reader, home_writer = await asyncio.open_connection(limit=CHUNK_BYTES, **self._address())
        self._known[pid] = began
        try:
            home_writer.write(packed(Through(self._home.key, self._node_id, pid, began)) + head + first)
            await _either(_pump(reader, home_writer), _pump(home_reader, writer))
        finally:
            home_writer.close()
            writer.close()
            await self._forget(host_id, pid, began)

    async def _forget(self, host_id: str, pid: int, began: float) -> None:
        """Put away what a host has left, once its process has ended."""
        if await _has_ended(pid, began) and self._known.get(pid) == began:
            del self._known[pid]
            for kind in ("code", "work"):
                shutil.rmtree(self._folder / kind / host_id, ignore_errors=True)


async def _has_ended(pid: int, began: float) -> bool:
    """Whether a process ends soon: without a thread, as names are resolved by the same few."""
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    loop = asyncio.get_running_loop()
    over = asyncio.Event()
    loop.add_reader(process, over.set)
    try:
        if not is_it(pid, began):  # the pid is another's by now
            return True
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(over.wait(), ENDED_S_MAX)
        return over.is_set()
    finally:
        loop.remove_reader(process)
        os.close(process)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(CHUNK_BYTES):
        writer.write(data)
        await writer.drain()


async def _either(*ways: Awaitable[None]) -> None:
    """Until one of them ends; then the others, too."""
    tasks = [asyncio.ensure_future(it) for it in ways]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _trusts(home: Home) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_verify_locations(cadata=home.certificate)
    return context
