"""Hosts: which there are, which shall be there, and which one an agent goes to.

A host is warm until it is specialised for one namespace and one code digest, for good. Warm ones are
kept ahead of need; a host without agents is let go after a while; never more than `hosts_max`. What
is wanted is said as a list of ids, so that saying it twice changes nothing. A lost connection is
positive evidence: the agents of that host are released, with a new epoch, and go on elsewhere.
"""

import asyncio
import contextlib
import logging
import secrets
from collections import deque
from dataclasses import dataclass, field
from typing import Any

import psutil

from controlplane.effects.node import Node
from controlplane.effects.slots import Slot
from controlplane.effects.wireio import Wire
from controlplane.store import statements as sql
from schemas.base import canonical
from schemas.wire import Bye, CodeFiles, CodeWanted, Hello, HostGone, HostsWanted, Lease, Specialise, Welcome

log = logging.getLogger("steward.gate")
APPEAR_S = 60.0
WEDGED_LAG_MS = 2000.0


@dataclass(eq=False, slots=True)
class Host:
    """One connected host."""

    host_id: str
    wire: Wire
    pid: int
    pid_started: float
    node: str
    namespace: str
    digest: str
    seen: float
    idle_since: float
    lag_ms: float = 0.0
    inflight: int = 0
    slots: set[Slot] = field(default_factory=set)
    waiting: deque[Slot] = field(default_factory=deque)


class Hosts:
    """The hosts of this gate."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._hosts: dict[str, Host] = {}
        self._wanted: dict[str, float] = {}
        self._demand: dict[tuple[str, str], deque[Slot]] = {}
        self._placers: set[Wire] = set()
        self.dashboard = ""

    def __len__(self) -> int:
        return len(self._hosts)

    def all(self) -> list[Host]:
        return list(self._hosts.values())

    def remember(self, host_id: str) -> None:
        """A host of before the restart: it has a while to come back."""
        self._wanted[host_id] = self._node.clock()

    # Choosing

    def pick(self, namespace: str, digest: str) -> Host | None:
        """The least loaded host of a namespace and digest; a warm one is specialised for it."""
        fitting = [it for it in self._hosts.values() if (it.namespace, it.digest) == (namespace, digest)]
        if fitting:
            return min(fitting, key=lambda it: len(it.slots))
        warm = next((it for it in self._hosts.values() if not it.digest), None)
        if warm is None:
            return None
        warm.namespace, warm.digest = namespace, digest
        warm.wire.send(Specialise(namespace, digest))
        self._record(warm)
        self.ensure()
        return warm

    def demand(self, slot: Slot) -> None:
        """An agent waits for a host of its namespace and digest."""
        waiting = self._demand.setdefault((slot.namespace, slot.digest), deque())
        if slot not in waiting:
            waiting.append(slot)
        self.ensure()

    def ensure(self) -> None:
        """Want as many hosts as are needed: one for each pair that waits, and the warm ones."""
        now, bounds = self._node.clock(), self._node.bounds
        for host_id, since in list(self._wanted.items()):
            if host_id not in self._hosts and now - since > APPEAR_S:
                del self._wanted[host_id]
        coming = sum(1 for host_id in self._wanted if host_id not in self._hosts)
        warm = sum(1 for it in self._hosts.values() if not it.digest)
        missing = len(self._demand) + bounds.hosts_warm - warm - coming
        room = bounds.hosts_max - len(self._wanted)
        if self._demand and missing > room:
            room += self._make_room(missing - room)
        for _ in range(min(missing, room)):
            self._wanted[f"h{secrets.token_hex(6)}"] = now
        self._tell()

    def _make_room(self, count: int) -> int:
        """Let go of the hosts that have had no agents for longest."""
        idle = sorted((it for it in self._hosts.values() if it.digest and not it.slots), key=lambda it: it.idle_since)
        for host in idle[:count]:
            self.retire(host, "others need its place")
        return len(idle[:count])

    def retire(self, host: Host, why: str) -> None:
        host.wire.send(Bye(why))
        self._wanted.pop(host.host_id, None)
        self._hosts.pop(host.host_id, None)
        host.wire.peer = None
        self._end_record(host.host_id)

    def _tell(self) -> None:
        for placer in self._placers:
            placer.send(HostsWanted(sorted(self._wanted)))

    # Frames

    def hello(self, wire: Wire, frame: Hello) -> None:
        now = self._node.clock()
        before = self._hosts.pop(frame.host_id, None)
        if before is not None:
            before.wire.peer = None
            before.wire.close()
            self._release(before, "it connected again")
        host = Host(
            frame.host_id, wire, frame.pid, frame.pid_started, frame.node, frame.namespace, frame.digest, now, now
        )
        wire.peer = host
        self._hosts[host.host_id] = host
        known = host.host_id in self._wanted
        self._wanted.setdefault(host.host_id, now)
        bounds = self._node.bounds
        wire.send(Welcome(bounds.lease_s, bounds.lease_s / 3, bounds.state_bytes_max))
        self._record(host, started=True)
        log.info("host %s is here, pid %d%s", host.host_id, host.pid, "" if known else ", unasked")
        self.serve_demand()

    def serve_demand(self) -> None:
        """Give waiting agents to hosts that have come."""
        for key in list(self._demand):
            if self.pick(*key) is None:
                break
            for slot in self._demand.pop(key):
                self._node.turns.pump(slot)

    def lease(self, frame: Lease) -> None:
        host = self._hosts.get(frame.host_id)
        if host is None:
            return
        now = self._node.clock()
        host.seen, host.lag_ms = now, frame.loop_lag_ms
        row = (sql.HOST_LEASE, (now + self._node.bounds.lease_s, frame.loop_lag_ms, frame.host_id), -1)
        self._node.commit([row], _ignored, 1)

    def code(self, host: Host, frame: CodeWanted) -> None:
        row = self._node.reader.one(sql.CODE, frame.digest)
        host.wire.send(CodeFiles(frame.digest, row[0].encode() if row else b""))

    def placer(self, wire: Wire, dashboard: str) -> None:
        self._placers.add(wire)
        self.dashboard = dashboard
        self.ensure()

    def placer_lost(self, wire: Wire) -> None:
        self._placers.discard(wire)

    def gone(self, frame: HostGone) -> None:
        """Ray says that it is dead; its id is never used again."""
        self._wanted.pop(frame.host_id, None)
        host = self._hosts.get(frame.host_id)
        if host is not None:
            host.wire.close()
        self.ensure()

    # Loss

    def lost(self, host: Host) -> None:
        if self._hosts.get(host.host_id) is not host:
            return
        del self._hosts[host.host_id]
        self._wanted.pop(host.host_id, None)
        log.warning("host %s (pid %d) is lost with %d agents", host.host_id, host.pid, len(host.slots))
        self._end_record(host.host_id)
        self._release(host, "the host was lost")
        self.ensure()

    def _release(self, host: Host, why: str) -> None:
        slots, host.slots = list(host.slots), set()
        attempts = [
            (sql.ATTEMPT, (slot.uid, slot.turn.message_id), -1)
            for slot in slots
            if slot.turn is not None and slot.state == "running" and not slot.effects
        ]
        for slot in slots:
            self._node.turns.forget(slot)
        log.info("%d agents of host %s go on elsewhere: %s", len(slots), host.host_id, why)
        now = self._node.clock()

        def released(_outcome: str, _detail: str) -> None:
            for slot in slots:
                self._node.turns.ring(slot.uid)

        self._node.commit([(sql.RELEASE_HOST, (now, host.host_id), -1), *attempts], released)

    # Sweep

    def sweep(self) -> None:
        """Expired leases, wedged loops, idle hosts."""
        now, bounds = self._node.clock(), self._node.bounds
        for host in self.all():
            if now - host.seen > bounds.lease_s:
                self.kill(host, f"its lease ran out {now - host.seen - bounds.lease_s:.1f} s ago")
            elif host.lag_ms > WEDGED_LAG_MS and (slot := self._overdue(host, now)) is not None:
                self._node.turns.timed_out(slot)
                self.kill(host, f"its loop is wedged by {slot.address}")
            elif host.digest and not host.slots and now - host.idle_since > bounds.host_idle_s:
                self.retire(host, "it has had no agents for a while")
        self.ensure()

    def _overdue(self, host: Host, now: float) -> Slot | None:
        running = [it for it in host.slots if it.state == "running" and not it.effects]
        return next((it for it in running if now - it.started > float(it.limits.get("turn_s_max", 60))), None)

    def kill(self, host: Host, why: str) -> None:
        """Fence first, then end the process, by pid and start time."""
        log.warning("ending host %s: %s", host.host_id, why)
        self.lost(host)
        host.wire.peer = None
        host.wire.close()
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(host.pid)
            if abs(process.create_time() - host.pid_started) < 0.05:
                process.kill()

    def idle(self, host: Host) -> None:
        if not host.slots:
            host.idle_since = self._node.clock()

    def turn_over(self, host: Host) -> None:
        """A place in the window is free."""
        host.inflight = max(0, host.inflight - 1)
        while host.waiting and host.inflight < self._node.bounds.host_window:
            self._node.turns.pump(host.waiting.popleft())

    # Records

    def _record(self, host: Host, *, started: bool = False) -> None:
        now = self._node.clock()
        lease = now + self._node.bounds.lease_s
        given = (host.host_id, host.node, host.pid, host.pid_started, host.namespace or None, host.digest or None)
        rows: list[Any] = [(sql.HOST_PUT, (*given, lease, now), 1)]
        if started:
            rows.append(_event("host.started", host.host_id, {"pid": host.pid, "node": host.node}, now))
        self._node.commit(rows, _ignored, 1)

    def _end_record(self, host_id: str) -> None:
        now = self._node.clock()
        rows = [(sql.HOST_END, (now, host_id), 1), _event("host.lost", host_id, {}, now)]
        self._node.commit(rows, _ignored, 1)

    async def sweeping(self) -> None:
        while True:
            await asyncio.sleep(0.5)
            self.sweep()


def _event(kind: str, host_id: str, data: dict[str, Any], now: float) -> Any:
    return sql.EVENT, (kind, now, "Host", "", host_id, None, None, canonical(data).decode()), 1


def _ignored(_outcome: str, _detail: str) -> None:
    """Nobody waits for this commit; a later one says the same again."""
