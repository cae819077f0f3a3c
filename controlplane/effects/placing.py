"""Which hosts shall be there, and which one an agent goes to.

A host is warm until it is specialised for one namespace and one code digest, for good. Warm ones are
kept ahead of need; never more than `hosts_max`. Who waits for a host waits in the order of coming,
one place for each namespace and digest; when there is no room, the host that has had nothing to do
for longest makes place, then the one that has served for longest: it finishes its turns, and its
agents come to the end of the line. What is wanted is said as a list of ids, so that saying it twice
changes nothing.
"""

import secrets
from collections import deque
from dataclasses import dataclass, field

from controlplane.effects.node import Node
from controlplane.effects.slots import Slot
from controlplane.effects.wireio import Wire
from schemas.wire import Bye, HostsWanted, Specialise

PATIENCE_S = 1.0
SERVED_S_MIN = 2.0
IDLE_S_MIN = 0.25
BACKOFF_S, BACKOFF_S_MAX = 0.5, 15.0
Key = tuple[str, str]


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
    leased: float
    seen: float
    idle_since: float
    since: float
    lag_ms: float = 0.0
    inflight: int = 0
    draining: bool = False
    alone: Slot | None = None
    served: Slot | None = None
    slots: set[Slot] = field(default_factory=set)
    waiting: deque[Slot] = field(default_factory=deque)

    @property
    def key(self) -> Key:
        return self.namespace, self.digest

    def alive(self, now: float) -> bool:
        """Whether its lease runs and its connection stands."""
        return self.wire.peer is self and now < self.leased


@dataclass(eq=False, slots=True)
class Line:
    """Agents of one namespace and digest that wait for a host."""

    since: float
    slots: deque[Slot] = field(default_factory=deque)


class Placing:
    """The hosts that are here, the ones that are wanted, and who waits for one."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self.here: dict[str, Host] = {}
        self._wanted: dict[str, float] = {}
        self._lines: dict[Key, Line] = {}
        self._placers: set[Wire] = set()
        self._said: list[str] = []
        self._failures = 0
        self._again_at = 0.0

    # Choosing

    def pick(self, namespace: str, digest: str) -> Host | None:
        """The least loaded host of a namespace and digest; a warm one is specialised for it."""
        hosts = [it for it in self.here.values() if not it.draining]
        fitting = [it for it in hosts if it.key == (namespace, digest)]
        if fitting:
            return min(fitting, key=lambda it: len(it.slots))
        warm = next((it for it in hosts if not it.digest), None)
        if warm is None:
            return None
        warm.namespace, warm.digest = namespace, digest
        warm.since = warm.idle_since = self._node.steady()
        warm.wire.send(Specialise(namespace, digest))
        self._node.hosts.record(warm)
        self.ensure()
        return warm

    def demand(self, slot: Slot) -> None:
        """An agent waits for a host of its namespace and digest."""
        if not slot.queued:
            slot.queued = True
            self._lines.setdefault((slot.namespace, slot.digest), Line(self._node.steady())).slots.append(slot)
            self.ensure()

    def serve(self) -> None:
        """Give the agents that wait to hosts that have come."""
        for key in list(self._lines):
            if self.pick(*key) is None:
                continue
            for slot in self._lines.pop(key).slots:
                slot.queued = False
                self._node.ownership.pump(slot)

    # Wanting

    def remember(self, host_id: str) -> None:
        """A host of before the restart: it has a while to come back."""
        self._wanted[host_id] = self._node.steady()

    def arrived(self, host: Host) -> bool:
        """Whether it was asked for."""
        self.here[host.host_id] = host
        self._failures = 0
        asked = host.host_id in self._wanted
        self._wanted[host.host_id] = self._node.steady()
        return asked

    def departed(self, host_id: str) -> None:
        """It is gone, and its id is never used again."""
        if host_id in self._wanted and host_id not in self.here:  # it never came: ask less and less often
            self._again_at = self._node.steady() + min(BACKOFF_S * 2**self._failures, BACKOFF_S_MAX)
            self._failures += 1
        self.here.pop(host_id, None)
        self._wanted.pop(host_id, None)

    def overdue(self) -> list[str]:
        """Hosts that were asked for and have not come."""
        now = self._node.steady()
        return [
            it
            for it, since in self._wanted.items()
            if it not in self.here and now - since > self._node.bounds.host_appear_s
        ]

    def ensure(self) -> None:
        """Want as many hosts as are needed: one for each line, and the warm ones."""
        now, bounds = self._node.steady(), self._node.bounds
        self._close_empty_lines()
        coming = len(self._wanted.keys() - self.here.keys())
        warm = sum(1 for it in self.here.values() if not it.digest)
        missing = len(self._lines) + bounds.hosts_warm - warm - coming
        room = bounds.hosts_max - len(self._wanted)
        if len(self._lines) > room + warm + coming:
            self._make_room(now)
            room = bounds.hosts_max - len(self._wanted)
        if now >= self._again_at:
            for _ in range(min(missing, room)):
                self._wanted[f"h{secrets.token_hex(6)}"] = now
        self._tell()

    def _close_empty_lines(self) -> None:
        for key, line in list(self._lines.items()):
            if not any(self._node.slots.holds(slot) and slot.state == "free" for slot in line.slots):
                del self._lines[key]

    def _make_room(self, now: float) -> None:
        """Let one host go: an idle one at once, else the one that has served for longest, when others were patient."""
        serving = sorted((it for it in self.here.values() if it.digest), key=lambda it: it.idle_since)
        idle = next((it for it in serving if not it.slots and now - it.idle_since > IDLE_S_MIN), None)
        if idle is not None:
            self._node.hosts.retire(idle, "others need its place")
            return
        patient = min(line.since for line in self._lines.values()) < now - PATIENCE_S
        if not patient or any(it.draining for it in serving):
            return
        served = [it for it in serving if now - it.since > SERVED_S_MIN]
        if served:
            self._drain(min(served, key=lambda it: (it.inflight > 0, it.since)))

    def _drain(self, host: Host) -> None:
        """Its turns come to their end, its agents go; then so does it."""
        host.draining = True
        for slot in list(host.slots):
            slot.leave = True
            self._node.ownership.let_go(slot)

    def bye(self, host: Host, why: str) -> None:
        host.wire.send(Bye(why))
        self.departed(host.host_id)
        host.wire.peer = None

    # The placer

    def placer(self, wire: Wire) -> None:
        self._placers.add(wire)
        wire.send(HostsWanted(sorted(self._wanted)))
        self.ensure()

    def placer_lost(self, wire: Wire) -> None:
        self._placers.discard(wire)

    def _tell(self) -> None:
        wanted = sorted(self._wanted)
        if wanted != self._said:
            self._said = wanted
            for placer in self._placers:
                placer.send(HostsWanted(wanted))
