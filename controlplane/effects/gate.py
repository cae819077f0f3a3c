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

from controlplane.effects.connections import Connections, OpenSecret, sealed
from controlplane.effects.execution import Execution
from controlplane.effects.holding import Holding
from controlplane.effects.hosts import Host, Hosts
from controlplane.effects.node import Bounds, Node
from controlplane.effects.ownership import Ownership
from controlplane.effects.planes import Planes
from controlplane.effects.reading import Away, Reader
from controlplane.effects.slots import Slots
from controlplane.effects.summaries import Summaries
from controlplane.effects.timers import Timers
from controlplane.effects.trouble import Trouble
from controlplane.effects.turns import Turns
from controlplane.effects.wireio import Wire
from controlplane.mesh.delivery import Delivery
from controlplane.mesh.events import Events
from controlplane.store import migrate
from controlplane.store import statements as sql
from controlplane.store.clocks import ForwardClock
from controlplane.store.committer import Committer
from controlplane.store.committer import Delivery as Outcomes
from schemas import faults
from schemas import wire as frames
from schemas.base import canonical
from schemas.ports import Clock, Effector

log = logging.getLogger("steward.gate")
SWEEP_S = 2.0
SWEEP_SOON_S = 0.01


class Gate:
    """One gate. `serve` runs it until SIGTERM, SIGINT or a Shutdown frame."""

    def __init__(
        self,
        *,
        url: str,
        socket: Path,
        key: str,
        effectors: Mapping[str, Effector],
        bounds: Bounds | None = None,
        installation: str = "",
        clock: Clock = time.time,
        open_secret: OpenSecret = sealed,
    ) -> None:
        self._url = url
        self._socket = socket
        self._key = key
        self._effectors = effectors
        self._bounds = bounds or Bounds()
        self._installation = installation
        self._clock = clock
        self._open_secret = open_secret
        self._ended = asyncio.Event()
        self._wires: set[Wire] = set()
        self._sweep_at: asyncio.TimerHandle | None = None
        self._over = False

    async def serve(self) -> None:
        loop = asyncio.get_running_loop()
        migrate.upgrade(self._url)
        faults.at("gate.start.migrated")

        def deliver(outcomes: Outcomes) -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody is left to tell
                loop.call_soon_threadsafe(self._delivered, loop, outcomes)

        committer = Committer(self._url, deliver, sole=self._installation)
        node = self._node = self._wired(committer)
        self._of_host = _host_handlers(node)
        self._of_plane = _plane_handlers(node, self._ended)
        committer.start()
        await self._recover(node)
        server = await self._listen(loop)
        for number in (signal.SIGTERM, signal.SIGINT):
            with contextlib.suppress(NotImplementedError, ValueError, RuntimeError):
                loop.add_signal_handler(number, self._ended.set)
        work = (node.hosts.sweeping(), node.summaries.flushing(), self._sweeping(node))
        tasks = [loop.create_task(it) for it in work]
        log.info("listening on %s", self._socket)
        if faults.armed():
            log.warning("fault points are armed: this gate fails where a test wants it to")
        faults.at("gate.start.listening")
        try:
            await self._ended.wait()
        finally:
            await self._end(node, server, tasks)

    def _wired(self, committer: Committer) -> Node:
        reader = Reader(self._url)
        clock = ForwardClock(self._clock, time.monotonic)
        mark = reader.one(sql.SUMMARY_MARK)
        clock.not_before(float(mark[0]) if mark else 0.0)
        connections = Connections(reader, self._open_secret, time.monotonic)
        slots, steady = Slots(reader), time.monotonic
        node = Node(self._bounds, clock, steady, reader, committer, slots, self._effectors, connections)
        node.ownership, node.turns, node.hosts = Ownership(node), Turns(node), Hosts(node)
        node.planes, node.sweep_soon = Planes(node, self._key), self._sweep_soon
        node.timers, node.execution, node.holding = Timers(node), Execution(node), Holding(node)
        node.summaries, node.trouble = Summaries(node), Trouble(node)
        inbox_max = self._bounds.inbox_messages_max
        node.delivery = Delivery(reader, node.commit, node.ownership.ring, node.clock, inbox_max)
        node.events = Events(reader, node.commit, node.ownership.ring, node.clock, inbox_max)
        return node

    def _delivered(self, loop: asyncio.AbstractEventLoop, outcomes: Outcomes) -> None:
        """A batch has ended: tell each job, each on its own, then the planes."""
        for job, outcome, detail in outcomes:
            loop.call_soon(job.done, outcome, detail)
            self._node.trouble.heard(outcome, detail)
        loop.call_soon(self._node.planes.moved)

    async def _listen(self, loop: asyncio.AbstractEventLoop) -> asyncio.Server:
        self._socket.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._socket.unlink(missing_ok=True)
        before = os.umask(0o177)
        try:
            return await loop.create_unix_server(self._wire, str(self._socket), backlog=512)
        finally:
            os.umask(before)

    def _wire(self) -> Wire:
        wire = Wire(frames.FromHost, self._received, self._lost)
        self._wires.add(wire)
        return wire

    # Start and end

    async def _recover(self, node: Node) -> None:
        """Release every owner, look after the hosts of before, and take up what waits."""
        released = asyncio.Event()
        about = canonical({"pid": os.getpid(), "node": node.bounds.node}).decode()
        started = (sql.EVENT, ("gate.started", node.clock(), "Plane", "", "plane", None, None, about), 1)
        node.commit("recover", [(sql.RELEASE_ALL, (), -1), started], lambda *_: released.set())
        await released.wait()
        for host_id, pid, started in node.reader.rows(sql.LIVE_HOSTS):
            node.hosts.remember(host_id, pid, started)
        faults.at("gate.start.remembered")
        self._sweep(node)
        faults.at("gate.start.swept")

    def _sweep(self, node: Node) -> None:
        """The net below the bells: what waits and has nobody who knows of it."""
        try:
            node.timers.look()
            node.timers.rings()
            node.ownership.sweep()
            node.delivery.sweep()
            node.events.look()
        except Away as away:
            log.warning("the database is away: %s", away)

    def _sweep_soon(self) -> None:
        if self._sweep_at is None:
            self._sweep_at = asyncio.get_running_loop().call_later(SWEEP_SOON_S, self._swept_soon)

    def _swept_soon(self) -> None:
        self._sweep_at = None
        if not self._over:  # the last batch may have asked for it
            self._sweep(self._node)

    async def _sweeping(self, node: Node) -> None:
        while True:
            await asyncio.sleep(SWEEP_S)
            self._sweep(node)
            node.trouble.sweep()

    async def _end(self, node: Node, server: asyncio.Server, tasks: list["asyncio.Task[None]"]) -> None:
        """No new frames; tell what has ended, release every owner, commit what was handed over."""
        server.close()
        node.timers.end()
        node.delivery.end()
        node.events.end()
        if self._sweep_at is not None:
            self._sweep_at.cancel()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for wire in list(self._wires):
            wire.mute()
        with contextlib.suppress(Away):
            await node.summaries.flush()
        node.commit("end", [(sql.RELEASE_ALL, (), -1)], lambda *_: None)
        await asyncio.to_thread(node.committer.stop)
        await asyncio.sleep(0)  # what the last batch has to tell
        await asyncio.sleep(0)
        self._over = True
        for wire in list(self._wires):
            wire.close()
        node.reader.close()
        self._socket.unlink(missing_ok=True)

    # Frames

    def _received(self, wire: Wire, frame: Any) -> None:
        faults.at("gate.frame")
        try:
            self._handle(wire, frame)
        except Away as away:
            log.warning("the database is away: %s", away)
            if wire.peer is self._node.planes:
                wire.send(frames.Done(frame.call, "error", b"NOT_READY: the database is away"))
            else:
                wire.close()

    def _handle(self, wire: Wire, frame: Any) -> None:
        if isinstance(wire.peer, Host):
            of_host = self._of_host.get(type(frame))
            if of_host is not None:
                of_host(wire.peer, frame)
                return
        elif wire.peer is self._node.planes:
            of_plane = self._of_plane.get(type(frame))
            if of_plane is not None:
                of_plane(wire, frame)
                return
        elif self._first(self._node, wire, frame):
            return
        log.warning("a peer said %s out of place; its connection is closed", type(frame).__name__)
        wire.close()

    def _first(self, node: Node, wire: Wire, frame: Any) -> bool:
        """What a peer is follows from what it says first."""
        match frame:
            case frames.Hello() if wire.peer is None:
                node.hosts.hello(wire, frame)
            case frames.LeaseHello() if wire.peer is None:
                node.hosts.lease_hello(wire, frame)
            case frames.Lease() if wire.peer == frame.host_id:
                node.hosts.lease(frame)
            case frames.PlacerHello() if wire.peer is None:
                node.hosts.placer_hello(wire, frame)
            case frames.HostGone() if wire.peer is node.hosts:
                node.hosts.gone(frame)
            case frames.PlaneHello() if wire.peer is None and node.planes.hello(wire, frame):
                wire.peer = node.planes
            case _:
                return False
        return True

    def _lost(self, wire: Wire) -> None:
        if self._over:  # every owner is released already
            return
        self._wires.discard(wire)
        peer, wire.peer = wire.peer, None
        if isinstance(peer, Host):
            self._node.hosts.disconnected(peer)
        self._node.planes.lost(wire)
        self._node.hosts.placer_lost(wire)


def _host_handlers(node: Node) -> dict[type, Callable[[Host, Any], None]]:
    return {
        frames.Commit: node.turns.commit,
        frames.Park: node.turns.park,
        frames.Failed: node.turns.failed,
        frames.Ask: node.execution.asked,
        frames.CodeWanted: node.hosts.code,
        frames.Released: _noted,
    }


def _plane_handlers(node: Node, ended: asyncio.Event) -> dict[type, Callable[[Wire, Any], None]]:
    return {
        frames.Write: node.planes.write,
        frames.Publish: node.planes.publish,
        frames.PublishChannel: node.planes.publish_channel,
        frames.Control: node.planes.control,
        frames.Shutdown: lambda _wire, _frame: ended.set(),
    }


def _noted(_host: Host, _frame: Any) -> None:
    """The host forgot an agent; the gate has long done so."""
