"""Which hosts shall be there, and which one an agent goes to.

A host is warm until it is specialised for one namespace and one code digest, for good. Warm ones are
kept ahead of need on every node; never more than `hosts_max` on one, and the emptiest node that is open
gets the next. Who waits for a host waits in the order of coming,
one place for each namespace and digest; when there is no room, the host that has had nothing to do
for longest makes place, then the one whose agents have rested for longest, and when others were patient
the one that has served for longest: it finishes its turns, and its agents come to the end of the line.
What is wanted is said as a list of ids, so that saying it twice changes nothing.
"""

import logging
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from controlplane.effects.confining import Known, is_confined
from controlplane.effects.fairness import WeightedLine
from controlplane.effects.fitting import Fitting
from controlplane.effects.keys import SHARED, Key, address_of
from controlplane.effects.node import Node
from controlplane.effects.slots import Slot
from controlplane.effects.wanting import Wishes
from controlplane.effects.wireio import Wire
from schemas.frames import HostsWanted
from schemas.problem import Problem
from schemas.wire import Bye, Specialise

log = logging.getLogger("steward.gate")
PATIENCE_S = 1.0
SERVED_S_MIN = 2.0
IDLE_S_MIN = 0.25


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
    reserved: str
    leased: float
    seen: float
    idle_since: float
    since: float
    lag_ms: float = 0.0
    lease_put: float = 0.0  # when its lease was last written
    inflight: int = 0
    rested_since: float = 0.0  # when a turn of its agents last ended
    draining: bool = False
    alone: Slot | None = None
    served: Slot | None = None
    slots: set[Slot] = field(default_factory=set)
    waiting: WeightedLine[Slot] = field(default_factory=WeightedLine)
    holding: str = ""  # the turn that holds its loop, and for how long
    held_s: float = 0.0
    freed_from: str = ""
    stopped_at: float | None = None  # when the kernel first said that it is stopped
    emptying: bool = False  # an operator drains it: it takes nobody, and ends when it is empty
    emptied_from: float = 0.0
    relieved: bool = False
    differed: int = 0  # how often it said so of a turn, where that was new
    on_end: list[Callable[[], None]] = field(default_factory=list)

    @property
    def enforced(self) -> bool:
        """Whether the operating system keeps it from the world, and not the gate alone."""
        return self.wire.foreign  # such a one was let in because it is confined

    @property
    def rests(self) -> bool:
        """Whether each of its agents could be let go now."""
        return not self.inflight and all(it.state in ("idle", "parked") and not it.retry_timer for it in self.slots)

    @property
    def key(self) -> Key:
        return Key(self.namespace, self.digest, self.reserved)

    def alive(self, now: float) -> bool:
        """Whether its lease runs and its connection stands."""
        return self.wire.peer is self and now < self.leased


@dataclass(eq=False, slots=True)
class Line:
    """Agents of one key that wait for a host."""

    since: float
    slots: deque[Slot] = field(default_factory=deque)


class Placing:
    """The hosts that are here, the ones that are wanted, and who waits for one."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self.here: dict[str, Host] = {}
        self._before: dict[str, Known] = {}  # hosts of before the restart that have not come back yet
        first, count = node.bounds.confined_uid_first, node.bounds.confined_uids
        self._wanted = Wishes(node.steady, range(first, first + count))
        self._lines: dict[Key, Line] = {}
        self._fitting = Fitting(lambda: node.nodes.seen_by_ray, lambda: node.nodes.closed)
        self._placers: set[Wire] = set()
        self._said: HostsWanted | None = None

    # Choosing

    def pick(self, key: Key, placement: str | None = None) -> Host | None:
        """The host that is wished for, if it can; else the least loaded one of its kind, or a warm one."""
        wished = self.here.get(placement) if placement is not None else None
        if wished is not None and self._stays(wished) and self._takes(wished):
            if wished.key == key:
                return wished
            if not wished.digest and wished.reserved == key.reserved:
                return self._specialised(wished, key)
        return self.other(key, None) or self._leaving(key)

    def other(self, key: Key, than: Host | None, *, off_node: bool = False) -> Host | None:
        """The least loaded host of a key but for one; a warm one is specialised for it. Elsewhere, if it can be."""
        hosts = [it for it in self.here.values() if self._takes(it) and self._stays(it) and it is not than]
        if off_node and than is not None:
            elsewhere = [it for it in hosts if it.wire.node != than.wire.node]
            serves = any(it.key == key or (not it.digest and it.reserved == key.reserved) for it in elsewhere)
            hosts = elsewhere if serves else hosts
        fitting = [it for it in hosts if it.key == key]
        if fitting:
            return min(fitting, key=lambda it: len(it.slots))
        warm = [it for it in hosts if not it.digest and it.reserved == key.reserved]
        serving = Counter(it.wire.node for it in self.here.values() if it.digest)
        return self._specialised(min(warm, key=lambda it: serving[it.wire.node]), key) if warm else None

    def _leaving(self, key: Key) -> Host | None:
        """A host that shall be empty serves until another has come."""
        fitting = (it for it in self.here.values() if self._takes(it) and it.key == key)
        return next(fitting, None)

    def _stays(self, host: Host) -> bool:
        """Whether nobody has asked it to be empty, or its node."""
        return not host.emptying and host.node not in self._node.nodes.closed

    def _takes(self, host: Host) -> bool:
        """Whether it can be given agents: not while it is emptied, or held by a turn for too long."""
        return not host.draining and host.held_s <= self._node.bounds.loop_held_s_max

    def _specialised(self, warm: Host, key: Key) -> Host:
        one_in = self._node.diverging.one_in(key)
        warm.namespace, warm.digest = key.namespace, key.digest
        warm.since = warm.idle_since = warm.rested_since = self._node.steady()
        warm.wire.send(Specialise(key.namespace, key.digest, one_in))
        self._node.hosts.record(warm)
        self.ensure()
        return warm

    def demand(self, slot: Slot) -> None:
        """An agent waits for a host of its key."""
        if not slot.queued:
            slot.queued = True
            self._lines.setdefault(slot.key, Line(self._node.steady())).slots.append(slot)
            self.ensure()

    def serve(self) -> None:
        """Give the agents that wait to hosts that have come."""
        for key in list(self._lines):
            if self.pick(key) is None:
                continue
            for slot in self._lines.pop(key).slots:
                slot.queued = False
                self._node.ownership.pump(slot)
        self._node.moving.served()

    # Wanting

    def remember(self, host_id: str, known: Known) -> None:
        """A host of before the restart: it has a while to come back, and says for whom it is kept."""
        self._before[host_id] = known
        self._wanted.put(host_id, uid=known.uid)

    def known(self, host_id: str) -> Known | None:
        """What is recorded of a host that was asked for."""
        if host_id not in self._wanted:
            return None
        here, uid = self.here.get(host_id), self._wanted.uid_of(host_id)
        if here is not None:
            return Known(uid, here.namespace, here.digest, address_of(here.reserved) or "")
        return self._before.get(host_id) or Known(uid, "", "", self._wanted.address_of(host_id))

    def arrived(self, host: Host) -> bool:
        """Whether it was asked for."""
        self.here[host.host_id] = host
        self._before.pop(host.host_id, None)
        return self._wanted.arrived(host.host_id, host.reserved, host.wire.node)

    def departed(self, host_id: str, why: str = "") -> None:
        """It is gone, and its id is never used again; what never came is asked for less and less often."""
        if self.here.pop(host_id, None) is None:
            self._wanted.failed(host_id, why)
        self._wanted.drop(host_id)
        self._before.pop(host_id, None)

    def refuse(self, wire: Wire, host_id: str, found: Problem) -> None:
        """A host that nobody may run on: it ends, and whoever waits for one hears why."""
        log.warning("host %s is refused: %s", host_id, found.detail)
        self._node.hosts.tell("host.refused", host_id, found.model_dump(mode="json"))
        self.departed(host_id, found.detail)
        wire.send(Bye(found.detail))
        wire.close()

    def why_not(self, key: Key) -> str:
        """Why no host has come for a key, as far as it was said."""
        return self._fitting.lacks(key.reserved) or self._wanted.why_not(key.reserved)

    def waited_for(self, key: Key) -> bool:
        """Whether agents of a key wait for a host."""
        return key in self._lines

    def more_can_come(self) -> bool:
        """Whether another host is on its way, or there is room for one."""
        open_nodes = self._node.nodes.open()
        return bool(open_nodes) and (bool(self._places(open_nodes)) or bool(self._wanted.coming(set(self.here))))

    def _places(self, nodes: Sequence[str]) -> list[str]:
        """The nodes that one more host can be on, once for each; the emptiest first."""
        on, most = self._wanted.on(), self._node.bounds.hosts_max
        rounds = sorted((n, at) for at, node in enumerate(nodes) for n in range(on[node], most))
        return [nodes[at] for _, at in rounds]

    def overdue(self) -> list[str]:
        """Hosts that were asked for and have not come."""
        return self._wanted.overdue(set(self.here), self._node.bounds.host_appear_s)

    def ensure(self) -> None:
        """Want as many hosts as are needed: one for each line, and the warm ones."""
        self._close_empty_lines()
        sought = Counter(it.reserved for it in self._all_sought())
        here = set(self.here)
        open_nodes = self._node.nodes.open()
        unneeded = self._wanted.unneeded(here, set(sought))
        for host_id in [*unneeded, *self._wanted.stranded(here, open_nodes)]:
            self._wanted.drop(host_id)
        coming = self._wanted.coming(here)
        warm = Counter(it.reserved for it in self.here.values() if not it.digest)
        missing = {it: count - warm[it] - coming[it] for it, count in sought.items()}
        places = self._places(open_nodes)
        ways = {it: self._ways(it, open_nodes) for it in sought}
        patient = {key: it.since for key, it in self._lines.items() if ways[key.reserved]}
        if short := self._short(patient, ways, places, warm + coming):
            self._make_room(self._node.steady(), min(patient.values()), {it.reserved for it in patient}, short)
            places = self._places(open_nodes)
        for reserved in self._in_turn(missing):
            at = next((n for n, node in enumerate(places) if node in ways[reserved]), None)
            if at is not None and self._wanted.ask(reserved, places[at]):
                del places[at]
        self._spare(here, open_nodes)
        self._tell()

    def _spare(self, here: set[str], nodes: Sequence[str]) -> None:
        """Want warm ones ahead of need on every node: when one node is lost, another has them."""
        on, kept = self._wanted.on(), self._wanted.shared_on_their_way(here)
        kept.update(it.wire.node for it in self.here.values() if not it.digest and not it.reserved)
        for node in nodes:
            bounds = self._node.bounds
            for _ in range(min(bounds.hosts_warm - kept[node], bounds.hosts_max - on[node])):
                self._wanted.ask(SHARED, node)

    def _in_turn(self, missing: dict[str, int]) -> list[str]:
        """For whom hosts are missing: one of each namespace in turn, who has waited for longest first."""
        left, ranks, now = dict(missing), Counter[str](), self._node.steady()
        ranked = []
        for since, key in sorted((self._since(key, now), key) for key in self._all_sought()):
            if not self._fitting.lacks(key.reserved):
                ranked.append((ranks[key.namespace], since, key.reserved))
                ranks[key.namespace] += 1
        found = []
        for _, _, reserved in sorted(ranked):
            if left[reserved] > 0:
                left[reserved] -= 1
                found.append(reserved)
        return found

    def _ways(self, reserved: str, nodes: Sequence[str]) -> set[str]:
        """Where one more can be asked for: some node fits, and it is not too early to ask again."""
        if self._fitting.lacks(reserved):
            return set()
        fitting = [it for it in nodes if not it] if is_confined(reserved) else nodes  # such a one is on the gate's own
        return {it for it in fitting if not self._wanted.too_early(reserved, it)}

    def _short(
        self, patient: Iterable[Key], ways: Mapping[str, set[str]], places: Sequence[str], there: Mapping[str, int]
    ) -> set[str]:
        """Where a place is missing for those who wait, beside what is spare for them or on its way; else empty."""
        many = Counter(key.reserved for key in patient)  # a spare one is no use to an agent with a host of its own
        for some in ({SHARED}, many.keys()):
            usable = set[str]().union(*(ways[it] for it in some if many[it]))
            if sum(many[it] for it in some) > sum(it in usable for it in places) + sum(there[it] for it in some):
                return usable
        return set()

    def _since(self, key: Key, now: float) -> float:
        return self._lines[key].since if key in self._lines else now

    def _all_sought(self) -> set[Key]:
        return self._lines.keys() | self._node.moving.sought() | self._node.draining.sought()

    def _close_empty_lines(self) -> None:
        for key, line in list(self._lines.items()):
            if not any(self._node.slots.holds(it) and it.state == "free" and it.key == key for it in line.slots):
                del self._lines[key]

    def _make_room(self, now: float, oldest: float, fitting: set[str], nodes: set[str]) -> None:
        """Let one host go: an idle, spare or resting one at once; when others were patient, who served for longest."""
        there = [it for it in self.here.values() if it.wire.node in nodes]
        serving = sorted((it for it in there if it.digest), key=lambda it: it.idle_since)
        idle = next((it for it in serving if not it.slots and now - it.idle_since > IDLE_S_MIN), None)
        idle = idle or next((it for it in there if not it.digest and it.reserved not in fitting), None)
        if idle is not None:
            self._node.hosts.retire(idle, "others need its place")
            return
        if any(it.draining for it in serving):
            return
        served = [it for it in serving if now - it.since > SERVED_S_MIN]
        resting = [it for it in served if it.rests and now - it.rested_since > IDLE_S_MIN]
        if resting:  # its agents lose a wish to stay awake, no time
            self._drain(min(resting, key=lambda it: it.rested_since))
        elif served and oldest < now - PATIENCE_S:
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
        if (home := self._node.relays.home) is not None:
            wire.send(home)
        wire.send(self._wanted.said(self._node.nodes.avoided()))
        self.ensure()

    def placers_told(self) -> None:
        """Where relays reach the gate."""
        if (home := self._node.relays.home) is not None:
            for placer in self._placers:
                placer.send(home)

    def placer_lost(self, wire: Wire) -> None:
        self._placers.discard(wire)

    def _tell(self) -> None:
        wanted = self._wanted.said(self._node.nodes.avoided())
        if wanted != self._said:
            self._said = wanted
            for placer in self._placers:
                placer.send(wanted)
