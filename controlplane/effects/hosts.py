"""Hosts: who they are, whether they live, what they may have in flight.

A process is what the kernel says it is, never what it says itself. A lost connection is positive
evidence of death; silence waits for the lease to run out; a loop that one turn holds for longer than
the turn may last is ended, and that turn with it. Each of these fences first: the agents get a new
epoch and go on elsewhere. A gate that itself came late declares nobody dead. A turn that ran when its
host died is tried again alone.
"""

import asyncio
import contextlib
import logging
from typing import Any

import psutil

from controlplane.effects.node import Node
from controlplane.effects.placing import Host, Placing
from controlplane.effects.reading import Away
from controlplane.effects.slots import Slot
from controlplane.effects.wireio import Wire
from controlplane.store import statements as sql
from schemas.base import canonical
from schemas.processes import is_it, started
from schemas.wire import CodeFiles, CodeWanted, Hello, HostGone, Lease, LeaseHello, PlacerHello, Welcome

log = logging.getLogger("steward.gate")
SWEEP_S = 0.5
WEDGED_LAG_MS = 2000.0

__all__ = ["Host", "Hosts"]


class Hosts:
    """The hosts of this gate."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._placing = Placing(node)
        self.suspects: set[str] = set()
        self.pick = self._placing.pick
        self.demand = self._placing.demand
        self.placer_lost = self._placing.placer_lost

    def __len__(self) -> int:
        return len(self._placing.here)

    def all(self) -> list[Host]:
        return list(self._placing.here.values())

    def remember(self, host_id: str, pid: int | None, began: float | None) -> None:
        """A host of before the restart: it comes back, or it has ended."""
        if pid is not None and began is not None and _process(pid, began) is not None:
            self._placing.remember(host_id)
        else:
            self._end_record(host_id, "host.lost")

    # Peers

    def hello(self, wire: Wire, frame: Hello) -> None:
        began = _began(wire.pid)
        before = self._placing.here.get(frame.host_id)
        foreign = before is not None and before.pid != wire.pid and _process(before.pid, before.pid_started) is not None
        if began is None or foreign:
            log.warning("process %d says that it is host %s, and is not", wire.pid, frame.host_id)
            wire.close()
            return
        if before is not None:
            before.wire.peer = None
            before.wire.close()
            self._placing.departed(before.host_id)
            self._release(before, "it connected again", count=before.pid != wire.pid)
        now = self._node.steady()
        leased = now + self._node.bounds.lease_s
        host = Host(
            frame.host_id, wire, wire.pid, began, frame.node, frame.namespace, frame.digest, leased, now, now, now
        )
        wire.on_resume = lambda: self.drain_waiting(host)
        wire.peer = host
        asked = self._placing.arrived(host)
        bounds = self._node.bounds
        wire.send(Welcome(bounds.lease_s, bounds.lease_s / 3, bounds.state_bytes_max))
        self.record(host, started=True)
        log.info("host %s is here, pid %d%s", host.host_id, host.pid, "" if asked else ", unasked")
        self._placing.serve()
        self._placing.ensure()

    def lease_hello(self, wire: Wire, frame: LeaseHello) -> None:
        host = self._placing.here.get(frame.host_id)
        if host is None or host.pid != wire.pid:  # it comes again when the host is known
            wire.close()
        else:
            wire.peer = frame.host_id

    def lease(self, frame: Lease) -> None:
        host = self._placing.here.get(frame.host_id)
        if host is not None:
            host.seen, host.lag_ms = self._node.steady(), frame.loop_lag_ms
            host.leased = host.seen + self._node.bounds.lease_s
            row = (
                sql.HOST_LEASE,
                (self._node.clock() + self._node.bounds.lease_s, frame.loop_lag_ms, frame.host_id),
                -1,
            )
            self._node.commit("lease", [row], _ignored, 1)

    def code(self, host: Host, frame: CodeWanted) -> None:
        row = self._node.reader.one(sql.CODE, frame.digest)
        host.wire.send(CodeFiles(frame.digest, row[0].encode() if row else b""))

    def placer_hello(self, wire: Wire, frame: PlacerHello) -> None:
        if any(host.pid == wire.pid for host in self.all()):
            log.warning("host process %d says that it is the placer; its connection is closed", wire.pid)
            wire.close()
            return
        wire.peer = self
        log.info("the placer is here, pid %d", wire.pid)
        self._placing.placer(wire)

    def gone(self, frame: HostGone) -> None:
        """Ray says that it is dead; its id is never used again."""
        host = self._placing.here.get(frame.host_id)
        if host is not None:
            self.lost(host, frame.reason)
            host.wire.peer = None
            host.wire.close()
        else:
            self._placing.departed(frame.host_id)
            self._placing.ensure()

    # The window

    def enter(self, slot: Slot, *, alone: bool) -> bool:
        """Take a place in the window of the slot's host, or wait for one, in the order of coming."""
        host = slot.host
        assert host is not None
        first = host.served is slot or not host.waiting
        if not (first and self._fits(host, alone=alone)):
            if not slot.queued:
                slot.queued = True
                host.waiting.append(slot)
            return False
        if alone:
            host.alone = slot
        self.count(slot)
        return True

    def _fits(self, host: Host, *, alone: bool) -> bool:
        if alone:
            return host.inflight == 0
        return host.alone is None and host.inflight < self._node.bounds.host_window and not host.wire.stalled

    def count(self, slot: Slot) -> None:
        """The slot's turn is in flight."""
        if not slot.counted and slot.host is not None:
            slot.counted = True
            slot.host.inflight += 1

    def turn_over(self, slot: Slot) -> None:
        """The slot's turn is not in flight any more; its place is free."""
        host = slot.host
        if host is None or not slot.counted:
            return
        slot.counted = False
        host.inflight -= 1
        if host.alone is slot:
            host.alone = None
        self.drain_waiting(host)

    def drain_waiting(self, host: Host) -> None:
        """Let in who waits, as far as there is room."""
        while host.waiting:
            slot = host.waiting[0]
            if not self._fits(host, alone=slot.turn is not None and slot.turn.turn_id in self.suspects):
                return
            host.waiting.popleft()
            slot.queued, host.served = False, slot
            self._node.ownership.pump(slot)
            host.served = None

    def idle(self, host: Host) -> None:
        """An agent has left the host."""
        if not host.slots:
            host.idle_since = self._node.steady()
            if host.draining and host.host_id in self._placing.here:
                self.retire(host, "others need its place")
                self._placing.ensure()

    # Loss

    def disconnected(self, host: Host) -> None:
        """Nobody closes a connection to us and lives on as a host."""
        if self._placing.here.get(host.host_id) is host:
            self.lost(host, "its connection ended")

    def lost(self, host: Host, why: str, *, count: bool = True) -> None:
        log.warning("host %s (pid %d) is lost with %d agents: %s", host.host_id, host.pid, len(host.slots), why)
        self._placing.departed(host.host_id)
        self._release(host, why, count=count)
        self._end_record(host.host_id, "host.lost", {"reason": why})
        self._placing.ensure()

    def retire(self, host: Host, why: str) -> None:
        log.info("host %s is let go: %s", host.host_id, why)
        self._placing.bye(host, why)
        self._end_record(host.host_id, "host.retired", {"reason": why})

    def kill(self, host: Host, why: str, *, count: bool = True) -> None:
        """Fence first, then end the process, by pid and start time."""
        self.lost(host, why, count=count)
        host.wire.peer = None
        host.wire.close()
        with contextlib.suppress(psutil.Error):
            if (process := _process(host.pid, host.pid_started)) is not None:
                process.kill()

    def _release(self, host: Host, why: str, *, count: bool) -> None:
        slots, host.slots = list(host.slots), set()
        host.waiting.clear()
        rows: list[Any] = [(sql.RELEASE_HOST, (self._node.clock(), host.host_id), -1)]
        for slot in slots:
            if count and slot.turn is not None and slot.state == "running" and not slot.effects:
                rows.append((sql.ATTEMPT, (slot.uid, slot.turn.message_id), -1))
                self.suspects.add(slot.turn.turn_id)
            slot.host, slot.counted, slot.queued = None, False, False
            self._node.ownership.forget(slot)

        def released(_outcome: str, _detail: str) -> None:
            for slot in slots:
                self._node.ownership.ring(slot.uid)

        self._node.commit("lost", rows, released)

    # Sweep

    async def sweeping(self) -> None:
        due = self._node.steady() + SWEEP_S
        while True:
            await asyncio.sleep(SWEEP_S)
            late = self._node.steady() - due
            if late > SWEEP_S:
                log.warning("the gate was held up for %.1f s", late)
                for host in self.all():
                    host.seen, host.leased = host.seen + late, host.leased + late
            with contextlib.suppress(Away):
                self.sweep()
            due = self._node.steady() + SWEEP_S

    def sweep(self) -> None:
        """Expired leases, wedged loops, idle hosts, hosts that never came."""
        now, bounds = self._node.steady(), self._node.bounds
        for host in self.all():
            if now > host.leased:
                self.kill(host, f"its lease ran out {now - host.leased:.1f} s ago")
            elif host.lag_ms > WEDGED_LAG_MS and (slot := _overdue(host, now)) is not None:
                self._node.turns.timed_out(slot)
                self.kill(host, f"its loop is wedged by {slot.address}", count=False)
            elif host.digest and not host.slots and now - host.idle_since > bounds.host_idle_s:
                self.retire(host, "it has had no agents for a while")
        for host_id in self._placing.overdue():
            log.warning("host %s was wanted and never came", host_id)
            self._placing.departed(host_id)
            self._node.commit("never", [(sql.HOST_END, (self._node.clock(), host_id), -1)], _ignored, 1)
        self._placing.serve()
        self._placing.ensure()

    # Records

    def record(self, host: Host, *, started: bool = False) -> None:
        """The host's row, with its lease."""
        now = self._node.clock()
        given = (host.host_id, host.node, host.pid, host.pid_started, host.namespace or None, host.digest or None)
        rows: list[Any] = [(sql.HOST_PUT, (*given, now + self._node.bounds.lease_s, now), 1)]
        if started:
            rows.append(_event("host.started", host.host_id, {"pid": host.pid, "node": host.node}, now))
        self._node.commit("host", rows, _ignored, 1)

    def _end_record(self, host_id: str, kind: str, data: dict[str, Any] | None = None) -> None:
        now = self._node.clock()
        rows = [(sql.HOST_END, (now, host_id), 1), _event(kind, host_id, data or {}, now)]
        self._node.commit("ended", rows, _ignored, 1)


def _overdue(host: Host, now: float) -> Slot | None:
    """The turn that holds the loop: of those that should long be over, the one that began first."""
    running = [it for it in host.slots if it.state == "running" and not it.effects]
    first = min(running, key=lambda it: it.started, default=None)
    return first if first is not None and now - first.started > float(first.limits.get("turn_s_max", 60)) else None


def _process(pid: int, began: float) -> psutil.Process | None:
    """The living process of a pid and start time."""
    with contextlib.suppress(psutil.Error):
        process = psutil.Process(pid)
        if is_it(pid, began) and process.status() != psutil.STATUS_ZOMBIE:
            return process
    return None


def _began(pid: int) -> float | None:
    with contextlib.suppress(ProcessLookupError):
        return started(pid)
    return None


def _event(kind: str, host_id: str, data: dict[str, Any], now: float) -> Any:
    return sql.EVENT, (kind, now, "Host", "", host_id, None, None, canonical(data).decode()), 1


def _ignored(_outcome: str, _detail: str) -> None:
    """Nobody waits for this commit; a later one says the same again."""
