"""The records of hosts: that one is here, until when its lease runs, what came of it; and how often that is written.

A host says what it likes as often as it likes, and there is one writer for all. What it says is held in memory at
once; its lease is written a few times in its length, and a process that says hello again is told of once.
"""

from typing import Any

from controlplane.effects.keys import address_of
from controlplane.effects.node import Done, Node
from controlplane.effects.placing import Host
from controlplane.store import statements as sql
from schemas.base import canonical

LEASES = 4  # so often at most is a lease written in its length; hosts renew it three times
HELLO_S_MIN = 1.0


class Records:
    """What is written of the hosts of this gate, and when some of it last was."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._hellos: dict[str, float] = {}  # the last one of each host, in the order of coming

    def too_soon(self, host_id: str) -> bool:
        """Whether the host has said hello just now; if not, it has from now on."""
        now = self._node.steady()
        if now - self._hellos.get(host_id, -HELLO_S_MIN) < HELLO_S_MIN:
            return True
        self._hellos.pop(host_id, None)
        self._hellos[host_id] = now
        while now - self._hellos[oldest := next(iter(self._hellos))] >= HELLO_S_MIN:
            del self._hellos[oldest]
        return False

    def put(self, host: Host, *, started: bool = False) -> None:
        """The host's row, with its lease."""
        now = self._node.clock()
        serves = (host.namespace or None, host.digest or None, address_of(host.reserved))
        given = (host.host_id, host.node, host.pid, host.pid_started, *serves)
        rows: list[Any] = [(sql.HOST_PUT, (*given, now + self._node.bounds.lease_s, now), 1)]
        if started:
            rows.append(_event("host.started", host.host_id, {"pid": host.pid, "node": host.node}, now))
        self._node.commit("host", rows, ignored, 1)

    def lease(self, host: Host) -> None:
        """Until when it runs, and how its loop is; unless that was written just now."""
        lease_s = self._node.bounds.lease_s
        if host.seen - host.lease_put < lease_s / LEASES:
            return
        host.lease_put = host.seen
        row = (sql.HOST_LEASE, (self._node.clock() + lease_s, host.lag_ms, host.host_id), -1)
        self._node.commit("lease", [row], ignored, 1)

    def tell(self, kind: str, host_id: str, data: dict[str, Any]) -> None:
        """An event about a host."""
        self._node.commit("held", [_event(kind, host_id, data, self._node.clock())], ignored, 1)

    def end(self, host_id: str, kind: str, data: dict[str, Any] | None = None, done: Done | None = None) -> None:
        """It has ended, and why."""
        now = self._node.clock()
        rows = [(sql.HOST_END, (now, host_id), 1), _event(kind, host_id, data or {}, now)]
        self._node.commit("ended", rows, done or ignored, 1)


def _event(kind: str, host_id: str, data: dict[str, Any], now: float) -> Any:
    return sql.EVENT, (kind, now, "Host", "", host_id, None, None, canonical(data).decode()), 1


def ignored(_outcome: str, _detail: str) -> None:
    """Nobody waits for this commit; a later one says the same again."""
