"""The gate: one process through which every effect and every commit of a node passes.

It alone writes. It starts by migrating, releasing every owner (hosts start clean and say hello again),
and taking up what waits: messages, open turns, timers. It listens on a unix socket that only its own
user can open; what a peer may say follows from its first frame. Handlers are synchronous: no task per
frame, and nothing is told before it is committed, but for what agents hand to each other under a guard.
"""

import asyncio
import contextlib
import logging
import os
import signal
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from controlplane.economy.rating import RateCard
from controlplane.effects.arriving import Arriving
from controlplane.effects.budgeting import Budgeting
from controlplane.effects.cancelling import Cancelling
from controlplane.effects.computing import Computing
from controlplane.effects.connections import Connections, OpenSecret, sealed
from controlplane.effects.controls import remove
from controlplane.effects.delaying import Delaying
from controlplane.effects.diverging import Diverging
from controlplane.effects.draining import Draining
from controlplane.effects.execution import Execution
from controlplane.effects.handing import Handing
from controlplane.effects.holding import Holding
from controlplane.effects.holdups import Holdups
from controlplane.effects.hosts import Host, Hosts
from controlplane.effects.moving import Moving
from controlplane.effects.node import Bounds, Node
from controlplane.effects.nodes import Nodes
from controlplane.effects.offers import Offers
from controlplane.effects.ownership import Ownership
from controlplane.effects.planes import Planes
from controlplane.effects.pythons import noted
from controlplane.effects.quota import Quota
from controlplane.effects.reading import Away, Reader
from controlplane.effects.relays import Relays
from controlplane.effects.scopes import Scopes
from controlplane.effects.slots import Slots
from controlplane.effects.summaries import Summaries
from controlplane.effects.surviving import survived
from controlplane.effects.timers import Timers
from controlplane.effects.trouble import Trouble
from controlplane.effects.turns import Turns
from controlplane.effects.upgrading import Upgrading
from controlplane.effects.wireio import Wire
from controlplane.mesh.delivery import Delivery
from controlplane.mesh.events import Events
from controlplane.store import migrate, upgrades
from controlplane.store import statements as sql
from controlplane.store.clocks import ForwardClock
from controlplane.store.committer import Committer
from controlplane.store.committer import Delivery as Outcomes
from schemas import faults, frames
from schemas import wire as hosting
from schemas.base import canonical
from schemas.ports import Clock, Listener
from schemas.processes import door_of
from schemas.protocols import Performer

log = logging.getLogger("steward.gate")
SWEEP_S = 2.0
SWEEP_SOON_S = 0.01
CONFINED_WIRES_MAX = 8


class Gate:
    """One gate. `serve` runs it until SIGTERM, SIGINT or a Shutdown frame."""

    def __init__(
        self,
        *,
        url: str,
        socket: Path,
        key: str,
        effectors: Mapping[str, Performer],
        bounds: Bounds | None = None,
        installation: str = "",
        clock: Clock = time.time,
        open_secret: OpenSecret = sealed,
        card: RateCard | None = None,
        listeners: Mapping[str, Listener] | None = None,
    ) -> None:
        self._url = url
        self._socket = socket
        self._key = key
        self._effectors = effectors
        self._bounds = bounds or Bounds()
        self._installation = installation
        self._clock = clock
        self._open_secret = open_secret
        self._card = card or RateCard()
        self._listeners = listeners or {}
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

        loop.set_exception_handler(_not_handled)
        committer = Committer(self._url, deliver, self._installation, _without_writer)
        node = self._node = self._wired(committer)
        self._of_host = _host_handlers(node)
        self._of_plane = _plane_handlers(node, self._ended)
        committer.start()
        await self._recover(node)
        servers = await self._listen(loop)
        for number in (signal.SIGTERM, signal.SIGINT):
            with contextlib.suppress(NotImplementedError, ValueError, RuntimeError):
                loop.add_signal_handler(number, self._ended.set)
        work = (node.hosts.sweeping(), node.summaries.flushing(), node.offers.keeping(), self._sweeping(node))
        tasks = [loop.create_task(it) for it in work]
        log.info("listening on %s", self._socket)
        if faults.armed():
            log.warning("fault points are armed: this gate fails where a test wants it to")
        faults.at("gate.start.listening")
        try:
            await self._ended.wait()
        finally:
            await self._end(node, servers, tasks)

    def _wired(self, committer: Committer) -> Node:
        reader = Reader(self._url)
        clock = ForwardClock(self._clock, time.monotonic)
        mark = reader.one(sql.SUMMARY_MARK)
        clock.not_before(float(mark[0]) if mark else 0.0)
        connections = Connections(reader, self._open_secret, time.monotonic)
        slots, steady = Slots(reader), time.monotonic
        node = Node(self._bounds, clock, steady, reader, committer, slots, self._effectors, connections)
        node.budgeting = Budgeting(node, self._card)
        node.ownership, node.turns, node.hosts = Ownership(node), Turns(node), Hosts(node)
        node.handing = Handing(node)
        node.moving, node.draining, node.holdups = Moving(node), Draining(node), Holdups(node)
        node.nodes, node.upgrading = Nodes(node), Upgrading(node)
        node.quota = Quota(reader, steady, self._bounds.agents_max)
        node.relays = Relays(node, self._received, self._lost)
        node.cancelling, node.computing = Cancelling(node), Computing(node)
        node.scopes, node.removing = Scopes(node), partial(remove, node)
        node.planes, node.sweep_soon = Planes(node, self._key), self._sweep_soon
        node.timers, node.execution, node.holding = Timers(node), Execution(node), Holding(node)
        node.summaries, node.trouble, node.offers = Summaries(node), Trouble(node), Offers(node)
        node.arriving, node.diverging = Arriving(node, self._listeners), Diverging(node)
        inbox_max = self._bounds.inbox_messages_max
        node.delivery = Delivery(reader, node.commit, node.ownership.ring, node.clock, inbox_max)
        node.delaying = Delaying(node)
        node.events = Events(reader, node.commit, node.ownership.ring, node.clock, inbox_max)
        return node

    def _delivered(self, loop: asyncio.AbstractEventLoop, outcomes: Outcomes) -> None:
        """A batch has ended: tell each job, each on its own, then the planes."""
        for job, outcome, detail in outcomes:
            loop.call_soon(job.done, outcome, detail)
            self._node.trouble.heard(outcome, detail)
        loop.call_soon(self._node.planes.moved)

    async def _listen(self, loop: asyncio.AbstractEventLoop) -> list[asyncio.Server]:
        """The socket that only our own user can open; and, where hosts may be confined, the door that is shown them.

        That one lies below a folder that is closed, so nobody else comes to it; whom it lets in is `confining`'s.
        """
        self._socket.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        servers = [await self._listen_at(loop, self._socket, 0o177)]
        if self._bounds.confined_uids:
            door = door_of(self._socket)
            door.parent.mkdir(mode=0o755, exist_ok=True)
            door.parent.chmod(0o755)
            servers.append(await self._listen_at(loop, door, 0o111))
        return servers

    async def _listen_at(self, loop: asyncio.AbstractEventLoop, path: Path, mask: int) -> asyncio.Server:
        path.unlink(missing_ok=True)  # noqa: ASYNC240 - at the start, before anybody is served
        before = os.umask(mask)
        try:
            return await loop.create_unix_server(self._wire, str(path), backlog=512)
        finally:
            os.umask(before)

    def _wire(self) -> Wire:
        wire = Wire(hosting.FromHost, self._received, self._lost, self._made)
        self._wires.add(wire)
        return wire

    def _made(self, wire: Wire) -> None:
        """A confined host has two connections; whoever makes many more would take those of others."""
        if wire.foreign and sum(it.uid == wire.uid for it in self._wires) > CONFINED_WIRES_MAX:
            wire.close()

    # Start and end

    async def _recover(self, node: Node) -> None:
        """Release every owner, look after the hosts of before, and take up what waits."""
        released = asyncio.Event()
        about = canonical({"pid": os.getpid(), "node": node.bounds.node}).decode()
        started = (sql.EVENT, ("gate.started", node.clock(), "Plane", "", "plane", None, None, about), 1)
        known = node.reader.one(upgrades.PYTHON)
        python = noted(known[0] if known else None, node.clock())
        node.commit("recover", [(sql.RELEASE_ALL, (), -1), started, *python], lambda *_: released.set())
        await released.wait()
        node.nodes.recover()
        for host_id, where, pid, started, draining_since, *serves in node.reader.rows(sql.LIVE_HOSTS):
            node.hosts.remember(host_id, where, pid, started, tuple(serves), drained=draining_since is not None)
        node.budgeting.recover()
        faults.at("gate.start.remembered")
        self._sweep(node)
        faults.at("gate.start.swept")

    def _sweep(self, node: Node) -> None:
        """The net below the bells: what waits and has nobody who knows of it."""
        for look in (
            node.timers.look,
            node.timers.rings,
            node.ownership.sweep,
            node.upgrading.sweep,
            node.computing.look,
            node.delivery.sweep,
            node.events.look,
            node.scopes.sweep,
        ):
            try:
                survived(look, look.__qualname__)
            except Away as away:
                log.warning("the database is away: %s", away)
                return

    def _sweep_soon(self) -> None:
        if self._sweep_at is None:
            self._sweep_at = asyncio.get_running_loop().call_later(SWEEP_SOON_S, self._swept_soon)

    def _swept_soon(self) -> None:
        self._sweep_at = None
        if not self._over:  # the last batch may have asked for it
            self._sweep(self._node)

    async def _sweeping(self, node: Node) -> None:
        unrecovered = True  # a look at every open turn, which the start does not wait for
        while True:
            await asyncio.sleep(SWEEP_S)
            self._sweep(node)
            with contextlib.suppress(Away):
                if unrecovered:
                    unrecovered = not survived(node.cancelling.recover, "what was cancelled before")
            survived(node.trouble.sweep, "the end of the store's trouble")

    async def _end(self, node: Node, servers: list[asyncio.Server], tasks: list["asyncio.Task[None]"]) -> None:
        """No new frames; tell what has ended, release every owner, commit what was handed over."""
        for server in servers:
            server.close()
        node.ownership.end()
        node.timers.end()
        node.delivery.end()
        node.events.end()
        if self._sweep_at is not None:
            self._sweep_at.cancel()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for wire in [*self._wires, *node.relays.wires]:
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
        node.relays.end()
        node.reader.close()
        for path in (self._socket, door_of(self._socket)):
            path.unlink(missing_ok=True)

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
            case hosting.Hello() if wire.peer is None:
                node.hosts.hello(wire, frame)
            case hosting.LeaseHello() if wire.peer is None:
                node.hosts.lease_hello(wire, frame)
            case hosting.Lease() if wire.peer == frame.host_id:
                node.hosts.lease(frame)
            case frames.PlacerHello() if wire.peer is None and wire.ours:
                node.hosts.placer_hello(wire, frame)
            case frames.HostGone() if wire.peer is node.hosts:
                node.hosts.gone(frame)
            case frames.NodesSeen() if wire.peer is node.hosts:
                node.nodes.seen(frame)
                node.computing.look()
            case frames.TaskStarted() if wire.peer is node.hosts:
                node.computing.started(frame)
            case frames.TaskEnded() if wire.peer is node.hosts:
                node.computing.ended(frame)
            case frames.PlaneHello() if wire.peer is None and wire.ours and node.planes.hello(wire, frame):
                wire.peer = node.planes
                node.upgrading.look_soon()
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
        self._node.computing.placer_lost(wire)


def _without_writer() -> None:
    """A gate that can not write would refuse for ever: it dies, and the next one goes on from what is committed."""
    log.critical("the writer has died of what no job can cause; this gate ends with it", exc_info=True)
    os._exit(1)


def _not_handled(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """A callback that found the database away has left nothing half done: the sweep takes it up again."""
    if isinstance(away := context.get("exception"), Away):
        log.warning("the database is away: %s", away)
    else:
        loop.default_exception_handler(context)


def _host_handlers(node: Node) -> dict[type, Callable[[Host, Any], None]]:
    return {
        hosting.Commit: node.turns.commit,
        hosting.Park: node.turns.park,
        hosting.Failed: node.turns.failed,
        hosting.Ask: node.execution.asked,
        hosting.CodeWanted: node.hosts.code,
        hosting.Released: _noted,
        hosting.Diverged: node.diverging.diverged,
    }


def _plane_handlers(node: Node, ended: asyncio.Event) -> dict[type, Callable[[Wire, Any], None]]:
    return {
        frames.Write: node.planes.write,
        frames.Publish: node.planes.publish,
        frames.PublishChannel: node.planes.publish_channel,
        frames.Post: node.planes.post,
        frames.Control: node.planes.control,
        frames.Shutdown: lambda _wire, _frame: ended.set(),
    }


def _noted(_host: Host, _frame: Any) -> None:
    """The host forgot an agent; the gate has long done so."""
