"""Draining: a host takes nobody any more, its agents leave in batches, and then it ends.

An agent leaves where its turn rests, and goes on elsewhere when something comes for it; what nobody
needs stays a row. Another host is there first, if one can come. That a host shall be empty is a
record: a gate that dies in between goes on with it. Each step looks at the host as it is, and may be
taken once too often.
"""

from typing import Any

import msgspec

from controlplane.effects.controls import Answer, failed, soon
from controlplane.effects.keys import Key
from controlplane.effects.node import Node
from controlplane.effects.placing import Host
from controlplane.effects.reasons import why_awake
from controlplane.store import moving as sql
from schemas.frames import Control

BATCH = 64
SHOWN_MAX = 10


class Asked(msgspec.Struct):
    """Who drains a host."""

    principal: str
    dry_run: bool = False
    patient: bool = True  # whether the answer waits a while for the end


class Draining:
    """The hosts of this gate that are being emptied."""

    def __init__(self, node: Node) -> None:
        self._node = node

    def sought(self) -> set[Key]:
        """What one more host is wanted for."""
        return {it.key for it in self._node.hosts.all() if it.emptying and it.slots and not it.relieved}

    def drain(self, frame: Control, done: Answer) -> None:
        """Empty a host and end it; the same again says how far it is."""
        asked = msgspec.json.decode(frame.argument, type=Asked)
        host = self._node.hosts.get(frame.agent)
        if asked.dry_run:
            done(_progress(self._node, host))
        elif host is None:
            self._drop(frame.agent, done)
        elif host.emptying:
            self._until_empty(host, asked, done)
        else:
            self._begin(host, asked, done)

    def _drop(self, host_id: str, done: Answer) -> None:
        """It is not here: its record ends."""

        def dropped(outcome: str, detail: str) -> None:
            if outcome == "conflict" or not failed(outcome, detail, done):  # a conflict: it had ended
                done(_progress(self._node, None))

        self._node.hosts.drop(host_id, dropped)

    def _begin(self, host: Host, asked: Asked, done: Answer) -> None:
        now = self._node.clock()
        event = sql.EVENT_OF_HOST, ("host.draining", now, host.host_id, asked.principal, "{}"), 1

        def recorded(outcome: str, detail: str) -> None:
            if outcome != "conflict" and failed(outcome, detail, done):  # a conflict: it is recorded already
                return
            self._until_empty(host, asked, done)
            self.empty(host)

        self._node.commit("drain", [(sql.DRAIN, (now, host.host_id), 1), event], recorded)

    def _until_empty(self, host: Host, asked: Asked, done: Answer) -> None:
        if not asked.patient:
            done(_progress(self._node, host))
            return
        told = soon(
            done, lambda: _progress(self._node, self._node.hosts.get(host.host_id)), self._node.bounds.move_wait_s
        )
        host.on_end.append(lambda: told(_progress(self._node, None)))

    def empty(self, host: Host) -> None:
        """From now on the host is on its way out: once there is another, it takes nobody, and its agents leave."""
        if not host.emptying:
            host.emptying = True
            host.emptied_from = self._node.steady()
        self.step(host)

    def step(self, host: Host) -> None:
        """Let the next agents go, once another host can take them; when none is left, the host ends."""
        if not host.emptying or not self._node.hosts.holds(host):
            return
        if not host.slots:
            self._node.hosts.retire(host, "it was drained")
            self._node.hosts.ensure()
        elif not self._relieved(host):
            self._node.hosts.ensure()
        else:
            host.draining = True
            self._next(host)

    def _next(self, host: Host) -> None:
        """Who rests leaves, so many at a time; who runs leaves when it comes to a rest."""
        room = BATCH - sum(1 for it in host.slots if it.state == "leaving")
        for slot in list(host.slots):
            if slot.state in ("idle", "parked") and not slot.leave:
                if room <= 0:
                    continue
                room -= 1
            slot.leave = True
            self._node.ownership.let_go(slot)

    def _relieved(self, host: Host) -> bool:
        """Whether another host is there for its agents, or none can come, or it takes too long.

        One that is kept for one agent, which has nothing to do, is not replaced before that agent is needed again.
        """
        if not host.relieved:
            waited_s = self._node.steady() - host.emptied_from
            late = waited_s > self._node.bounds.host_appear_s or not self._node.hosts.more_can_come()
            rests = host.reserved != "" and all(it.state == "idle" for it in host.slots)
            host.relieved = late or rests or self._node.hosts.other(host.key, host) is not None
        return host.relieved


def _progress(node: Node, host: Host | None) -> dict[str, Any]:
    """How far a host is from being empty, and what the first of its agents wait for."""
    slots = sorted(host.slots, key=lambda it: it.address) if host is not None else []
    waits_for = [f"{it.address}: {why_awake(node, it)}" for it in slots[:SHOWN_MAX]]
    return {"done": host is None, "agents": len(slots), "waits_for": waits_for}
