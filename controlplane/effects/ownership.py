"""Who owns an agent: woken, acquired, idle, let go, forgotten.

One function, `pump`, decides what an agent does next, from its slot alone; whatever happens calls it.
Calling it once too often changes nothing, and a call that was missed is made up for by the sweep. An
agent that nobody needs is a row without an owner, and nothing in memory. An owner nobody speaks for
is taken away by a new epoch, never argued with.
"""

import asyncio
import logging
from typing import Any

from controlplane.effects import journaling
from controlplane.effects.node import MESSAGES, Node
from controlplane.effects.reading import Away
from controlplane.effects.resuming import next_turn
from controlplane.effects.slots import Slot
from controlplane.store import statements as sql
from schemas.wire import Evict

log = logging.getLogger("steward.gate")
TROUBLE_S = 0.25


class Ownership:
    """Every agent that is awake on this gate, or about to be."""

    def __init__(self, node: Node) -> None:
        self._node = node

    def ring(self, uid: str) -> None:
        """Something may have come for an agent."""
        if (slot := self._node.slots.load(uid)) is not None:
            slot.more = True
            self.pump(slot)

    def ring_name(self, namespace: str, name: str) -> None:
        if (slot := self._node.slots.named(namespace, name)) is not None:
            slot.more = True
            self.pump(slot)

    def pump(self, slot: Slot) -> None:
        """Take the next step of an agent that is free or idle."""
        try:
            self._pump(slot)
        except Away as away:
            log.warning("%s waits for the database: %s", slot.address, away)

    def _pump(self, slot: Slot) -> None:
        if slot.state not in ("free", "idle") or slot.retry_timer is not None or not self._node.slots.holds(slot):
            return
        if slot.state == "free" and slot.owner is not None:
            self._orphan(slot.uid, slot.epoch)
        elif slot.state == "idle" and (slot.stale or slot.leave):
            self.let_go(slot)
        elif slot.stopped or not (next_turn(self._node, slot) or slot.keep):
            self._rest(slot)
        elif slot.turn is not None and slot.turn.attempts >= self._node.bounds.turn_attempts_max:
            self._node.turns.give_up(slot, slot.turn)
        elif slot.state == "free":
            self._acquire(slot)
        elif slot.turn is not None:
            self._node.turns.dispatch(slot, slot.turn)
        else:
            self._rest(slot)

    def sweep(self) -> None:
        """Take up what no bell was heard for."""
        for slot in self._node.slots.all():
            if slot.state == "parked":
                self._node.timers.recheck(slot)
            elif not slot.queued:
                self.pump(slot)
        reader = self._node.reader
        for query in (sql.WAITING_AGENTS, sql.OWNED_AGENTS):
            for (uid,) in reader.rows(query):
                if self._node.slots.get(uid) is None:
                    self.ring(uid)

    def _rest(self, slot: Slot) -> None:
        """Nothing to do: an agent without a host is forgotten, one with a host may stay a while."""
        slot.more = slot.keep = False
        slot.tell_awake()
        if slot.state == "free":
            self._node.slots.drop(slot)
        elif slot.idle_timer is None:
            self.arm_idle(slot)

    def arm_idle(self, slot: Slot) -> None:
        """Let go of the agent unless something comes."""
        wait_s = slot.spec.get("suspend_after_ms", 2000) / 1000
        slot.idle_timer = asyncio.get_running_loop().call_later(wait_s, self._idle_out, slot)

    def _idle_out(self, slot: Slot) -> None:
        slot.idle_timer = None
        self.let_go(slot)

    # Acquiring

    def acquire_ahead(self, slot: Slot) -> None:
        """Acquire in the same group commit as the message that is on its way."""
        if (
            slot.state != "free"
            or slot.owner is not None
            or slot.stopped
            or slot.queued
            or slot.retry_timer is not None
        ):
            return
        if next_turn(self._node, slot) or slot.await_position is not None:
            return
        if self._node.hosts.pick(slot.namespace, slot.digest) is not None:
            self._acquire(slot)

    def _acquire(self, slot: Slot) -> None:
        host = self._node.hosts.pick(slot.namespace, slot.digest)
        if host is None:
            self._node.hosts.demand(slot)
            return
        slot.state, slot.host = "acquiring", host
        host.slots.add(slot)
        now = self._node.clock()
        rows: list[Any] = [(sql.ACQUIRE, (host.host_id, slot.epoch + 1, now, slot.uid, slot.epoch), 1)]
        if slot.woken_by is not None:
            rows.append(journaling.agent_event("agent.woken", slot.namespace, slot.name, slot.woken_by, now))
        host_id, epoch = host.host_id, slot.epoch + 1

        def acquired(outcome: str, detail: str) -> None:
            self._acquired(slot, host_id, epoch, outcome, detail)

        self._node.commit("acquire", rows, acquired, MESSAGES)

    def _acquired(self, slot: Slot, host_id: str, epoch: int, outcome: str, detail: str) -> None:
        if not self._node.slots.holds(slot):  # the host was lost, or an operator came in between
            if outcome == "ok":
                self._orphan(slot.uid, epoch)
            return
        if outcome == "ok":
            slot.state, slot.owner, slot.epoch, slot.resident, slot.woken_by = "idle", host_id, epoch, -1, None
            slot.tell_awake()
            self.pump(slot)
            return
        log.info("acquiring %s: %s %s", slot.address, outcome, detail)
        self.forget(slot)
        asyncio.get_running_loop().call_later(TROUBLE_S, self.ring, slot.uid)

    # Letting go

    def let_go(self, slot: Slot) -> None:
        """Suspend an idle or parked agent: release its row, forget it everywhere."""
        if slot.host is None or slot.state not in ("idle", "parked") or slot.retry_timer is not None:
            return
        slot.state = "leaving"
        slot.cancel_timers()
        slot.host.wire.send(Evict(slot.uid, slot.epoch, abort=False))
        now = self._node.clock()
        rows: list[Any] = [(sql.RELEASE, (now, slot.uid, slot.epoch, slot.host.host_id), 1)]
        if slot.suspended_by is not None:
            rows.append(journaling.agent_event("agent.suspended", slot.namespace, slot.name, slot.suspended_by, now))
        self._node.commit("release", rows, lambda outcome, _: self._let_gone(slot, outcome))

    def _let_gone(self, slot: Slot, outcome: str) -> None:
        held = self._node.slots.holds(slot)
        if held and outcome == "error" and slot.host is not None:  # the store is in trouble: the host forgot it already
            self.fenced(slot, "releasing", outcome, "")
            return
        more = slot.more or slot.stale or slot.leave or outcome == "conflict"
        self.forget(slot)
        if held and more:
            self.ring(slot.uid)

    def forget(self, slot: Slot) -> None:
        """Drop the slot, and all that points at it; whoever forgets it sees to what comes next."""
        if slot.host is not None:
            self._node.hosts.turn_over(slot)
            slot.host.slots.discard(slot)
            self._node.hosts.idle(slot.host)
            slot.host = None
        self._node.turns.forget(slot)
        self._node.slots.drop(slot)
        slot.tell_gone()

    def fenced(self, slot: Slot, what: str, outcome: str, detail: str) -> None:
        """A unit of the turn was refused: forget the attempt; what is committed decides how it goes on.

        An attempt is counted unless the store as a whole is in trouble, so that a turn which can never
        commit ends in the dead letters instead of going round.
        """
        if not self._node.slots.holds(slot):
            return
        log.warning("%s of %s: %s %s", what, slot.address, outcome, detail)
        uid, epoch, turn = slot.uid, slot.epoch, slot.turn
        if slot.host is not None:
            slot.host.wire.send(Evict(uid, epoch, abort=True))
        self.forget(slot)
        rows: list[Any] = [(sql.RELEASE_EPOCH, (self._node.clock(), uid, epoch), -1)]
        if turn is not None and not detail.startswith(("NOT_READY", "STORAGE_FULL", "IN_DOUBT")):
            rows.append((sql.ATTEMPT, (uid, turn.message_id), -1))
        loop = asyncio.get_running_loop()

        def again(_outcome: str, _detail: str) -> None:
            loop.call_later(TROUBLE_S, self.ring, uid)

        self._node.commit("fenced", rows, again)

    def _orphan(self, uid: str, epoch: int) -> None:
        """The row names an owner that does not hold the agent: take it away, and look again."""
        if (slot := self._node.slots.get(uid)) is not None and slot.state == "free":
            self.forget(slot)
        row = (sql.RELEASE_EPOCH, (self._node.clock(), uid, epoch), -1)
        self._node.commit("orphan", [row], lambda outcome, _: self.ring(uid) if outcome == "ok" else None)
