"""The gate: one process through which every effect and every commit of a node passes.

It alone writes. It starts by migrating, releasing every owner (hosts start clean and say hello again),
and taking up what waits: messages, open turns, timers. It listens on a unix socket that only its own
user can open; what a peer may say follows from its first frame. Handlers are synchronous: no task per
frame, and nothing is told before it is committed.
"""

import asyncio
import contextlib
import logging
import os
import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from controlplane.effects.execution import Execution
from controlplane.effects.hosts import Host, Hosts
from controlplane.effects.node import Bounds, Node
from controlplane.effects.planes import Planes
from controlplane.effects.reading import Reader
from controlplane.effects.slots import Slots
from controlplane.effects.summaries import Summaries
from controlplane.effects.timers import Timers
from controlplane.effects.turns import Turns
from controlplane.effects.wireio import Wire
from controlplane.mesh.delivery import Delivery
from controlplane.store import migrate
from controlplane.store import statements as sql
from controlplane.store.committer import Committer
from controlplane.store.committer import Delivery as Outcomes
from schemas import wire as frames
from schemas.ports import Effector

log = logging.getLogger("steward.gate")
SWEEP_S = 2.0
RECONNECT_S = 0.5


class Gate:
    """One gate. `serve` runs it until SIGTERM, SIGINT or a Shutdown frame."""

    def __init__(
        self, *, url: str, socket: Path, key: str, effectors: Mapping[str, Effector], bounds: Bounds | None = None
    ) -> None:
        self._url = url
        self._socket = socket
        self._key = key
        self._effectors = effectors
        self._bounds = bounds or Bounds()
        self._ended: asyncio.Event | None = None
        self._tasks: list[asyncio.Task[None]] = []

    async def serve(self) -> None:
        loop = asyncio.get_running_loop()
        self._ended = asyncio.Event()
        migrate.upgrade(self._url)

        def deliver(outcomes: Outcomes) -> None:
            loop.call_soon_threadsafe(self._delivered, outcomes)

        committer = Committer(self._url, deliver)
        node = self._node = self._wired(committer)
        committer.start()
        await self._recover(node)
        server = await self._listen(loop)
        for number in (signal.SIGTERM, signal.SIGINT):
            with contextlib.suppress(NotImplementedError, ValueError, RuntimeError):
                loop.add_signal_handler(number, self._ended.set)
        work = (node.hosts.sweeping(), node.summaries.flushing(), node.delivery.sweeping(), self._sweeping(node))
        self._tasks = [loop.create_task(it) for it in work]
        log.info("listening on %s", self._socket)
        try:
            await self._ended.wait()
        finally:
            await self._end(node, server)

    def _wired(self, committer: Committer) -> Node:
        reader = Reader(self._url)
        node = Node(self._bounds, time.time, reader, committer, Slots(reader), self._effectors)
        node.turns, node.hosts, node.planes = Turns(node), Hosts(node), Planes(node, self._key)
        node.timers, node.execution, node.summaries = Timers(node), Execution(node), Summaries(node)
        node.delivery = Delivery(reader, node.commit, node.turns.ring, node.clock, self._bounds.inbox_messages_max)
        return node

    def _delivered(self, outcomes: Outcomes) -> None:
        """A batch has ended: tell each job, then the planes."""
        for job, outcome, detail in outcomes:
            job.done(outcome, detail)
        self._node.planes.moved()

    async def _listen(self, loop: asyncio.AbstractEventLoop) -> asyncio.Server:
        self._socket.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._socket.unlink(missing_ok=True)
        before = os.umask(0o177)
        try:
            return await loop.create_unix_server(self._wire, str(self._socket), backlog=512)
        finally:
            os.umask(before)

    def _wire(self) -> Wire:
        return Wire(frames.FromHost, self._received, self._lost)

    # Start and end

    async def _recover(self, node: Node) -> None:
        """Release every owner, remember the hosts of before, count what was not told, and take up what waits."""
        released = asyncio.Event()
        node.commit([(sql.RELEASE_ALL, (), -1)], lambda *_: released.set())
        await released.wait()
        for host_id, _pid, _started in node.reader.rows(sql.LIVE_HOSTS):
            node.hosts.remember(host_id)
        node.summaries.recover()
        node.timers.look()
        self._take_up(node)

    def _take_up(self, node: Node) -> None:
        for query in (sql.OPEN_TURNS, sql.WAITING_AGENTS):
            for (uid,) in node.reader.rows(query):
                node.turns.ring(uid)

    async def _sweeping(self, node: Node) -> None:
        """The net below the doorbells: what waits and has nobody who knows of it."""
        while True:
            await asyncio.sleep(SWEEP_S)
            self._take_up(node)
            node.timers.look()

    async def _end(self, node: Node, server: asyncio.Server) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        node.summaries.flush()
        server.close()
        node.commit([(sql.RELEASE_ALL, (), -1)], lambda *_: None)
        await asyncio.to_thread(node.committer.stop)
        node.reader.close()
        self._socket.unlink(missing_ok=True)

    # Frames

    def _received(self, wire: Wire, frame: Any) -> None:
        node = self._node
        if isinstance(wire.peer, Host):
            handler = self._of_host(node).get(type(frame))
            if handler is not None:
                handler(wire.peer, frame)
                return
        elif node.planes.holds(wire):
            self._of_plane(node, wire, frame)
            return
        self._first(node, wire, frame)

    def _of_host(self, node: Node) -> dict[type, Callable[[Host, Any], None]]:
        if not hasattr(self, "_host_handlers"):
            self._host_handlers: dict[type, Callable[[Host, Any], None]] = {
                frames.Commit: node.turns.commit,
                frames.Park: node.turns.park,
                frames.Failed: node.turns.failed,
                frames.Ask: node.execution.asked,
                frames.CodeWanted: node.hosts.code,
                frames.Released: _noted,
            }
        return self._host_handlers

    def _of_plane(self, node: Node, wire: Wire, frame: Any) -> None:
        match frame:
            case frames.Write():
                node.planes.write(wire, frame)
            case frames.Publish():
                node.planes.publish(wire, frame)
            case frames.PublishChannel():
                node.planes.publish_channel(wire, frame)
            case frames.Control():
                node.planes.control(wire, frame)
            case frames.Shutdown():
                assert self._ended is not None
                self._ended.set()
            case _:
                wire.close()

    def _first(self, node: Node, wire: Wire, frame: Any) -> None:
        """What a peer is follows from what it says first."""
        match frame:
            case frames.Hello() if wire.peer is None:
                node.hosts.hello(wire, frame)
            case frames.LeaseHello() if wire.peer is None:
                wire.peer = frame.host_id
            case frames.Lease() if wire.peer == frame.host_id:
                node.hosts.lease(frame)
            case frames.PlacerHello() if wire.peer is None:
                wire.peer = node.hosts
                node.hosts.placer(wire, frame.dashboard)
            case frames.HostGone() if wire.peer is node.hosts:
                node.hosts.gone(frame)
            case frames.PlaneHello() if wire.peer is None and node.planes.hello(wire, frame):
                wire.peer = node.planes
            case _:
                log.warning("a peer said %s out of place; its connection is closed", type(frame).__name__)
                wire.close()

    def _lost(self, wire: Wire) -> None:
        node = self._node
        if isinstance(wire.peer, Host):
            node.hosts.lost(wire.peer)
        node.planes.lost(wire)
        node.hosts.placer_lost(wire)


def _noted(_host: Host, _frame: Any) -> None:
    """The host forgot an agent; the gate has long done so."""
