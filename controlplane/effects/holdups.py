"""A turn that holds its host's loop, and those who share the host: they go on elsewhere, it stays alone.

The host's lease thread says which turn holds the loop, and for how long. Past the bound every other
agent of the host gets a new epoch and another host; nobody new is given to it. The turn itself may go on
until it has had its time; then it fails, and its process is ended. Where no other host can be had, the
process is ended at once, and the turn is tried again alone.
"""

import logging
from typing import Any

from controlplane.effects.node import Node
from controlplane.effects.placing import Host
from controlplane.effects.slots import Slot
from controlplane.store import statements as sql
from schemas.wire import Evict

log = logging.getLogger("steward.gate")


class Holdups:
    """The hosts of this gate whose loop is held."""

    def __init__(self, node: Node) -> None:
        self._node = node

    def look(self, host: Host) -> None:
        """Free the neighbours of a turn that holds the loop for too long."""
        if host.held_s <= self._node.bounds.loop_held_s_max:
            host.freed_from = ""
            return
        holder = self._node.turns.running(host.holding)
        if holder is None or holder.host is not host:  # stopped, removed, or run again: nothing will end it but this
            self._node.diverging.held(host)
            self._node.hosts.kill(host, f"its loop is held by {host.holding}, which is over", count=False)
            return
        others = [it for it in host.slots if it is not holder]
        if not others and not self._node.hosts.waited_for(host.key):
            return
        why = f"{holder.address} holds its loop for {host.held_s:.1f} s"
        if others and host.freed_from != host.holding:
            host.freed_from = host.holding
            log.warning("host %s: %s; %d others go on elsewhere", host.host_id, why, len(others))
            about = {"turn_id": host.holding, "agent": holder.address, "held_s": round(host.held_s, 3)}
            self._node.hosts.tell("host.held", host.host_id, about)
        if self._node.hosts.other(host.key, host) is None and not self._node.hosts.more_can_come():
            self._node.hosts.kill(host, why, suspect=holder)
            return
        for slot in others:
            self._free(slot)

    def _free(self, slot: Slot) -> None:
        """Take an agent from a host that can not answer; what it has not committed is run again elsewhere."""
        if slot.state != "running":
            slot.leave = True
            self._node.ownership.let_go(slot)
            return
        assert slot.host is not None
        uid, epoch = slot.uid, slot.epoch
        slot.host.wire.send(Evict(uid, epoch, abort=True))
        self._node.ownership.forget(slot)
        rows: list[Any] = [(sql.RELEASE_EPOCH, (self._node.clock(), uid, epoch), -1)]
        self._node.commit("freed", rows, lambda _outcome, _detail: self._node.ownership.ring(uid))
