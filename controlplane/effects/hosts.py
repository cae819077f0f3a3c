"""Hosts: who they are, whether they live, what they may have in flight.

A process is what the kernel says it is, never what it says itself. A lost connection is positive
evidence of death; a process that stays stopped is as good as dead; silence waits for the lease to run
out; a loop that one turn holds for longer than the turn may last is ended, and that turn with it. Each
of these fences first: the agents get a new epoch and go on elsewhere. A gate that itself came late
declares nobody dead. A turn that ran when its host died is tried again alone.
"""

import asyncio
import contextlib
import logging
from collections.abc import Sequence
from typing import Any

import psutil

from controlplane.effects.confining import Known, unfit
from controlplane.effects.kernel import lives, process_of, same, uid_of
from controlplane.effects.node import Done, Node
from controlplane.effects.overtime import overdue, overtime
from controlplane.effects.placing import Host, Placing
from controlplane.effects.pythons import other_python
from controlplane.effects.reading import Away
from controlplane.effects.recording import Records, ignored
from controlplane.effects.slots import Slot
from controlplane.effects.surviving import survived
from controlplane.effects.wireio import Wire
from controlplane.store import statements as sql
from schemas.frames import HostGone, PlacerHello
from schemas.processes import is_stopped
from schemas.wire import CodeFiles, CodeWanted, Hello, Lease, LeaseHello, Welcome

log = logging.getLogger("steward.gate")
SWEEP_S = 0.5
WEDGED_LAG_MS = 2000.0
OWN_IDLE_S = 1.0

__all__ = ["Host", "Hosts"]


class Hosts:
    """The hosts of this gate."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._placing, self._records = Placing(node), Records(node)
        self.suspects: dict[str, str] = {}  # turns whose host was lost, and of whom they are
        self._drained: set[str] = set()  # of before the restart, and not back yet
        self.ending: list[Host] = []  # gone, and their records are about to end
        self.pick, self.other = self._placing.pick, self._placing.other
        self.ensure, self.more_can_come = self._placing.ensure, self._placing.more_can_come
        self.demand, self.waited_for = self._placing.demand, self._placing.waited_for
        self.why_not = self._placing.why_not
        self.record, self.tell = self._records.put, self._records.tell
        self.placer_lost, self.placers_told = self._placing.placer_lost, self._placing.placers_told

    def __len__(self) -> int:
        return len(self._placing.here)

    def all(self) -> list[Host]:
        return list(self._placing.here.values())

    def get(self, host_id: str) -> Host | None:
        return self._placing.here.get(host_id)

    def holds(self, host: Host) -> bool:
        """Whether it is here, and this is it."""
        return self._placing.here.get(host.host_id) is host

    def remember(
        self,
        host_id: str,
        where: str,
        pid: int | None,
        began: float | None,
        serves: Sequence[str | None],
        *,
        drained: bool = False,
    ) -> None:
        """A host of before the restart, and its namespace, digest and agent: it comes back, or it has ended.

        Of another node's nobody knows yet.
        """
        process = process_of(pid, began) if pid is not None and began is not None else None
        far = where != self._node.nodes.here
        if far or process is not None:
            uid = uid_of(process) if process is not None and not far else 0
            self._placing.remember(host_id, Known(uid, *(it or "" for it in serves)))
            if drained:
                self._drained.add(host_id)
        else:
            self._records.end(host_id, "host.lost")

    # Peers

    def hello(self, wire: Wire, frame: Hello) -> None:
        began = wire.began
        before = self._placing.here.get(frame.host_id)
        foreign = before is not None and not same(before, wire) and lives(before)
        why = unfit(wire.uid, wire.pid, frame, self._placing.known(frame.host_id), foreign=wire.foreign)
        if began is None or foreign or why:
            log.warning("process %d says that it is host %s, and is not; %s", wire.pid, frame.host_id, why)
            wire.close()
            return
        if self._records.too_soon(frame.host_id):
            wire.close()  # it comes again; each time that is written, and its agents find out
            return
        if (other := other_python(frame)) is not None:
            self._placing.refuse(wire, frame.host_id, other)
            return
        if before is not None:
            before.wire.peer = None
            before.wire.close()
            self._placing.departed(before.host_id)
            self._release(before, "it connected again", count=not same(before, wire))
        now = self._node.steady()
        leased = now + self._node.bounds.lease_s
        host = Host(
            frame.host_id,
            wire,
            wire.pid,
            began,
            self._node.nodes.name_of(wire.node),
            frame.namespace,
            frame.digest,
            frame.reserved,
            leased,
            now,
            now,
            now,
        )
        wire.on_resume = lambda: self.drain_waiting(host)
        wire.peer = host
        asked = self._placing.arrived(host)
        bounds, one_in = self._node.bounds, self._node.diverging.one_in(host.key)
        wire.send(Welcome(bounds.lease_s, bounds.lease_s / 3, bounds.state_bytes_max, one_in))
        self.record(host, started=before is None or not same(before, wire))
        log.info("host %s is here, pid %d%s", host.host_id, host.pid, "" if asked else ", unasked")
        drained = host.host_id in self._drained or (before is not None and before.emptying)
        if drained or self._node.nodes.leaves(host):
            self._node.draining.empty(host)
        self._placing.serve()
        self._placing.ensure()

    def lease_hello(self, wire: Wire, frame: LeaseHello) -> None:
        host = self._placing.here.get(frame.host_id)
        if host is None or not same(host, wire):  # it comes again when the host is known
            wire.close()
        else:
            wire.peer = frame.host_id

    def lease(self, frame: Lease) -> None:
        host = self._placing.here.get(frame.host_id)
        if host is not None:
            host.seen, host.lag_ms = self._node.steady(), frame.loop_lag_ms
            host.leased = host.seen + self._node.bounds.lease_s
            host.holding, host.held_s = frame.holding, frame.held_ms / 1000
            self._records.lease(host)

    def code(self, host: Host, frame: CodeWanted) -> None:
        row = self._node.reader.one(sql.CODE, frame.digest) if frame.digest == host.digest else None
        host.wire.send(CodeFiles(frame.digest, row[0].encode() if row else b""))

    def placer_hello(self, wire: Wire, frame: PlacerHello) -> None:
        if any(same(host, wire) for host in self.all()):
            log.warning("host process %d says that it is the placer; its connection is closed", wire.pid)
            wire.close()
            return
        wire.peer = self
        log.info("the placer is here, pid %d", wire.pid)
        self._placing.placer(wire)
        self._node.computing.placer(wire, frame.runner)

    def gone(self, frame: HostGone) -> None:
        """Ray says that it is dead; its id is never used again. On a node that hangs it is not, and is ended."""
        host = self._placing.here.get(frame.host_id)
        if host is not None:
            self._node.relays.doubt(host.wire.node)  # its connection has not ended: it may be all of the node
            self.kill(host, frame.reason)
        else:
            self._placing.departed(frame.host_id, frame.reason)
            self._placing.ensure()

    # The window

    def enter(self, slot: Slot, *, alone: bool) -> bool:
        """Take a place in the window of the slot's host, or wait for one: higher classes first."""
        host = slot.host
        assert host is not None
        first = host.served is slot or not host.waiting
        if not (first and self._fits(host, alone=alone)):
            if not slot.queued:
                slot.queued = True
                host.waiting.put(slot, slot.priority)
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
        host.rested_since = self._node.steady()
        if host.alone is slot:
            host.alone = None
        self.drain_waiting(host)

    def drain_waiting(self, host: Host) -> None:
        """Let in who waits, as far as there is room."""
        while host.waiting:
            slot = host.waiting.first
            if not self._fits(host, alone=slot.turn is not None and slot.turn.turn_id in self.suspects):
                return
            host.waiting.take()
            slot.queued, host.served = False, slot
            self._node.ownership.pump(slot)
            host.served = None

    def idle(self, host: Host) -> None:
        """An agent has left the host."""
        if host.emptying:
            if all(it.state != "leaving" for it in host.slots):  # a batch has gone
                self._node.draining.step(host)
        elif not host.slots:
            host.idle_since = self._node.steady()
            if host.draining and host.host_id in self._placing.here:
                self.retire(host, "others need its place")
                self._placing.ensure()

    # Loss

    def disconnected(self, host: Host) -> None:
        """Nobody closes a connection to us and lives on as a host."""
        if self._placing.here.get(host.host_id) is host:
            self.lost(host, "its connection ended")

    def lost(self, host: Host, why: str, *, count: bool = True, suspect: Slot | None = None) -> None:
        log.warning("host %s (pid %d) is lost with %d agents: %s", host.host_id, host.pid, len(host.slots), why)
        self._placing.departed(host.host_id)
        self._release(host, why, count=count, suspect=suspect)
        self._end(host, "host.lost", why)
        self._placing.ensure()

    def retire(self, host: Host, why: str) -> None:
        log.info("host %s is let go: %s", host.host_id, why)
        self._placing.bye(host, why)
        self._end(host, "host.retired", why)

    def drop(self, host_id: str, done: Done) -> None:
        """A host that is not here, and shall not come."""
        self._placing.departed(host_id)
        self._records.end(host_id, "host.retired", {"reason": "it was drained"}, done)
        self._placing.ensure()

    def _end(self, host: Host, kind: str, why: str) -> None:
        self._drained.discard(host.host_id)
        self.ending.append(host)

        def ended(_outcome: str, _detail: str) -> None:
            self.ending = [it for it in self.ending if it is not host]
            for tell in host.on_end:
                tell()

        self._records.end(host.host_id, kind, {"reason": why}, ended)

    def kill(self, host: Host, why: str, *, count: bool = True, suspect: Slot | None = None) -> None:
        """Fence first, then end the process, by pid and start time. Of a known suspect alone an attempt counts."""
        self.lost(host, why, count=count, suspect=suspect)
        host.wire.peer = None
        host.wire.close()
        if host.wire.node:
            self._node.relays.kill(host.wire.node, host.pid, host.pid_started)
            return
        with contextlib.suppress(psutil.Error):
            if (process := process_of(host.pid, host.pid_started)) is not None:
                process.kill()

    def _release(self, host: Host, why: str, *, count: bool, suspect: Slot | None = None) -> None:
        slots, host.slots = sorted(host.slots, key=lambda it: it.turn is None), set()  # who was in a turn goes on first
        uids = [it.uid for it in slots if not it.rests]  # the others are rows now, and for a row nothing is to be done
        host.waiting.clear()
        rows: list[Any] = [(sql.RELEASE_HOST, (self._node.clock(), host.host_id), -1)]
        for slot in slots:
            counts = count and suspect in (None, slot)
            if counts and slot.turn is not None and slot.state == "running" and not slot.effects:
                if slot.turn.proving:
                    self._node.upgrading.lost(slot.turn)
                else:
                    rows.append((sql.ATTEMPT, (slot.uid, slot.turn.message_id), -1))
                self.suspects[slot.turn.turn_id] = slot.uid
            slot.host, slot.counted, slot.queued = None, False, False
            self._node.ownership.forget(slot)
        self._node.commit("lost", rows, lambda _outcome, _detail: self._node.ownership.ring_all(uids))

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
                survived(self.sweep, "a sweep of the hosts")
            due = self._node.steady() + SWEEP_S

    def sweep(self) -> None:
        """Expired leases, wedged loops, idle hosts, hosts that never came."""
        now, bounds = self._node.steady(), self._node.bounds
        for host in self.all():
            if now > host.leased:
                self._node.relays.doubt(host.wire.node)  # its silence may be that of its node
                self.kill(host, f"its lease ran out {now - host.leased:.1f} s ago")
            elif (stopped_s := self._stopped_s(host, now)) > bounds.stopped_s_max:
                self.kill(host, f"its process has been stopped for {stopped_s:.1f} s")
            elif host.lag_ms > WEDGED_LAG_MS and (slot := overdue(host, self._holder(host), now)) is not None:
                self._node.turns.timed_out(slot)
                self.kill(host, f"its loop is wedged by {slot.address}", count=False)
            elif (slot := overtime(host, now, bounds.late_s_max)) is not None:
                self._node.turns.timed_out(slot)
                self.kill(host, f"it says nothing of {slot.address}, which is long over its time", count=False)
            elif host.held_s > bounds.loop_held_s_max or host.freed_from:
                self._node.holdups.look(host)
            elif (host.digest or host.reserved) and not host.slots and now - host.idle_since > self._stays_s(host):
                self.retire(host, "it has had no agents for a while")
            elif host.emptying:
                self._node.draining.step(host)
        for host_id in self._placing.overdue():
            log.warning("host %s was wanted and never came", host_id)
            self._placing.departed(host_id, "Ray has not placed it")
            self._node.commit("never", [(sql.HOST_END, (self._node.clock(), host_id), -1)], ignored, 1)
        self._placing.serve()
        self._placing.ensure()

    def _stopped_s(self, host: Host, now: float) -> float:
        """For how long the kernel has said so: that is evidence, and need not wait for the lease."""
        if host.wire.node or not is_stopped(host.pid):  # of another node's, silence says it
            host.stopped_at = None
            return 0.0
        if host.stopped_at is None:
            host.stopped_at = now
        return now - host.stopped_at

    def _stays_s(self, host: Host) -> float:
        """How long it stays without agents; what is kept for one agent is soon given back."""
        return OWN_IDLE_S if host.reserved else self._node.bounds.host_idle_s

    def _holder(self, host: Host) -> Slot | None:
        return self._node.turns.running(host.holding)
