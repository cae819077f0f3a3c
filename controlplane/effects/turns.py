"""The life of an agent that is awake: acquired, running, parked, idle, let go.

One function, `pump`, decides what an agent does next, from its slot alone; everything that happens
calls it. Turns of an agent are strictly serial. What a host says counts only for the turn that it was
given, and only while it owns the agent: the units are fenced, and a fenced host is told to forget.
"""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import orjson

from controlplane.effects import journaling
from controlplane.effects.entries import Aftermath, TurnRef
from controlplane.effects.hosts import Host
from controlplane.effects.node import MESSAGES, Node
from controlplane.effects.resuming import next_turn, run_frame
from controlplane.effects.slots import Slot
from controlplane.resources.problems import problem
from controlplane.store import statements as sql
from schemas.wire import Commit, Entry, Evict, Failed, Park, Resolved

log = logging.getLogger("steward.gate")
RETRY_FIRST_S, RETRY_MOST_S = 0.05, 10.0
TROUBLE_S = 0.25


class Turns:
    """Every agent that is awake on this gate."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._by_turn: dict[str, Slot] = {}

    # What an agent does next

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
        if slot.state not in ("free", "idle") or slot.retry_timer is not None:
            return
        if self._node.slots.get(slot.uid) is not slot:
            return
        if slot.state == "idle" and (slot.stale or slot.leave or slot.host is None):
            self.let_go(slot)
            return
        if slot.stopped or not (next_turn(self._node, slot) or slot.keep):
            self._rest(slot)
        elif slot.turn is not None and slot.turn.attempts >= self._node.bounds.turn_attempts_max:
            self._give_up(slot, slot.turn)
        elif slot.state == "free":
            self._acquire(slot)
        elif slot.turn is not None:
            self._dispatch(slot, slot.turn)
        else:
            self._rest(slot)

    def _rest(self, slot: Slot) -> None:
        """Nothing to do: an agent without a host is forgotten, one with a host may stay a while."""
        slot.more = slot.keep = False
        if slot.state == "free":
            self._node.slots.drop(slot)
        elif slot.idle_timer is None:
            self._arm_idle(slot)

    def _arm_idle(self, slot: Slot) -> None:
        wait_s = slot.spec.get("suspend_after_ms", 2000) / 1000
        slot.idle_timer = asyncio.get_running_loop().call_later(wait_s, self._idle_out, slot)

    def _idle_out(self, slot: Slot) -> None:
        slot.idle_timer = None
        if slot.state in ("idle", "parked"):
            self.let_go(slot)

    # Ownership

    def acquire_ahead(self, slot: Slot) -> None:
        """Acquire in the same group commit as the message that is on its way."""
        if slot.state != "free" or slot.stopped or slot.retry_timer is not None or next_turn(self._node, slot):
            return
        if slot.await_position is None and self._node.hosts.pick(slot.namespace, slot.digest) is not None:
            self._acquire(slot)

    def _acquire(self, slot: Slot) -> None:
        host = self._node.hosts.pick(slot.namespace, slot.digest)
        if host is None:
            self._node.hosts.demand(slot)
            return
        slot.state, slot.host = "acquiring", host
        host.slots.add(slot)
        now = self._node.clock()
        row = (sql.ACQUIRE, (host.host_id, slot.epoch + 1, now, slot.uid, slot.epoch), 1)
        self._node.commit([row], lambda outcome, detail: self._acquired(slot, host, outcome, detail), MESSAGES)

    def _acquired(self, slot: Slot, host: Host, outcome: str, detail: str) -> None:
        if self._node.slots.get(slot.uid) is not slot:  # the host was lost meanwhile; somebody else goes on
            return
        if outcome == "ok":
            slot.state, slot.owner, slot.epoch, slot.resident = "idle", host.host_id, slot.epoch + 1, -1
            self.pump(slot)
            return
        log.info("acquiring %s: %s %s", slot.address, outcome, detail)
        self.forget(slot)
        asyncio.get_running_loop().call_later(TROUBLE_S, self.ring, slot.uid)

    def let_go(self, slot: Slot) -> None:
        """Suspend an idle or parked agent: release its row, forget it everywhere."""
        if slot.host is None or slot.state not in ("idle", "parked"):
            return
        slot.state = "leaving"
        slot.cancel_timers()
        slot.host.wire.send(Evict(slot.uid, slot.epoch, abort=False))
        now = self._node.clock()
        rows: list[Any] = [(sql.RELEASE, (now, slot.uid, slot.epoch, slot.host.host_id), 1)]
        if slot.tell is not None:
            rows.append(journaling.agent_event("agent.suspended", slot.namespace, slot.name, slot.tell, now))
        self._node.commit(rows, lambda outcome, _: self._let_gone(slot, outcome))

    def _let_gone(self, slot: Slot, outcome: str) -> None:
        if outcome == "error" and slot.host is not None:
            slot.state = "parked" if slot.turn is not None else "idle"
            self._arm_idle(slot)
            return
        more = slot.more or slot.stale
        self.forget(slot)
        if more:
            self.ring(slot.uid)

    def forget(self, slot: Slot) -> None:
        """Drop the slot, and all that points at it."""
        if slot.host is not None:
            if slot.state == "running":
                self._node.hosts.turn_over(slot.host)
            slot.host.slots.discard(slot)
            self._node.hosts.idle(slot.host)
            slot.host = None
        if slot.turn is not None:
            self._by_turn.pop(slot.turn.turn_id, None)
        self._node.slots.drop(slot)

    def fenced(self, slot: Slot, what: str, outcome: str, detail: str) -> None:
        """Another owner, or a store in trouble: forget the attempt; what is committed decides how it goes on."""
        log.warning("%s of %s: %s %s", what, slot.address, outcome, detail)
        if slot.host is not None:
            slot.host.wire.send(Evict(slot.uid, slot.epoch, abort=True))
        uid, epoch = slot.uid, slot.epoch
        self.forget(slot)
        now = self._node.clock()
        row = (sql.RELEASE_EPOCH, (now, uid, epoch), -1)
        again = TROUBLE_S if outcome == "error" else 0.0
        loop = asyncio.get_running_loop()

        def released(_outcome: str, _detail: str) -> None:
            loop.call_later(again, self.ring, uid)

        self._node.commit([row], released)

    # Dispatch

    def _dispatch(self, slot: Slot, turn: TurnRef) -> None:
        host = slot.host
        assert host is not None
        if host.inflight >= self._node.bounds.host_window:
            if slot not in host.waiting:
                host.waiting.append(slot)
            return
        turn = slot.turn = replace(
            turn, owner=host.host_id, epoch=slot.epoch, version=slot.version, digest=host.digest, spec=slot.spec
        )
        slot.cancel_timers()
        frame = run_frame(self._node, slot, turn)
        slot.state, slot.started, slot.more = "running", self._node.clock(), False
        slot.await_position = None
        slot.effects.clear()
        host.inflight += 1
        self._by_turn[turn.turn_id] = slot
        host.wire.send(frame)

    def of(self, host: Host, turn_id: str, epoch: int) -> Slot | None:
        """The slot that a host may speak for; a stale host is told to forget."""
        slot = self._by_turn.get(turn_id)
        if slot is not None and slot.host is host and slot.epoch == epoch and slot.state == "running":
            return slot
        if slot is not None and slot.host is not host:
            host.wire.send(Evict(slot.uid, epoch, abort=True))
        return None

    # What hosts say

    def park(self, host: Host, frame: Park) -> None:
        slot = self.of(host, frame.turn_id, frame.epoch)
        if slot is None or slot.turn is None:
            return
        turn = slot.turn
        if not frame.entries:
            self._parked(slot, turn, Aftermath())
            return
        now = self._node.clock()
        rows, after = journaling.park(turn, frame.entries, frame.cpu_ns, now, self.generations(slot, frame.entries))
        slot.state = "committing"
        grown = replace(turn, recorded=True, entries=turn.entries + len(frame.entries))
        self._node.commit(
            rows,
            lambda outcome, detail: (
                self._parked(slot, grown, after) if outcome == "ok" else self.fenced(slot, "parking", outcome, detail)
            ),
        )

    def _parked(self, slot: Slot, turn: TurnRef, after: Aftermath) -> None:
        self.settle(after)
        if self._node.slots.get(slot.uid) is not slot or slot.host is None:
            return
        slot.turn, slot.state, slot.await_position = turn, "parked", turn.entries - 1
        self._node.hosts.turn_over(slot.host)
        self._arm_idle(slot)
        self._node.timers.recheck(slot)

    def commit(self, host: Host, frame: Commit) -> None:
        slot = self.of(host, frame.turn_id, frame.epoch)
        if slot is None or slot.turn is None or frame.version != slot.version:
            return
        turn, now = slot.turn, self._node.clock()
        rows, after = journaling.commit(turn, frame, now, self.generations(slot, frame.entries))
        slot.state = "committing"
        effects = turn.entries + len(frame.entries)
        self._node.commit(
            rows,
            lambda outcome, detail: (
                self._committed(slot, after, effects, now)
                if outcome == "ok"
                else self.fenced(slot, "committing", outcome, detail)
            ),
        )

    def _committed(self, slot: Slot, after: Aftermath, effects: int, now: float) -> None:
        self._node.summaries.add(slot.namespace, slot.name, effects, now)
        slot.version += 1
        slot.resident, slot.state_text = slot.version, None
        self._over(slot)
        self.settle(after)

    def failed(self, host: Host, frame: Failed) -> None:
        slot = self.of(host, frame.turn_id, frame.epoch)
        if slot is None or slot.turn is None:
            return
        turn, now = slot.turn, self._node.clock()
        slot.state = "committing"
        if frame.retry and turn.attempts + 1 < self._node.bounds.turn_attempts_max:
            rows = journaling.failed_again(turn, frame.cpu_ns, now)
            self._node.commit(
                rows,
                lambda outcome, detail: (
                    self._retry(slot, turn) if outcome == "ok" else self.fenced(slot, "failing", outcome, detail)
                ),
            )
            return
        self._bury(slot, turn, orjson.loads(frame.problem), frame.cpu_ns)

    def _retry(self, slot: Slot, turn: TurnRef) -> None:
        if self._node.slots.get(slot.uid) is not slot or slot.host is None:
            return
        slot.turn = replace(turn, attempts=turn.attempts + 1)
        slot.state = "idle"
        self._node.hosts.turn_over(slot.host)
        wait_s = min(RETRY_MOST_S, RETRY_FIRST_S * 2**turn.attempts)
        slot.retry_timer = asyncio.get_running_loop().call_later(wait_s, self._again, slot)

    def _again(self, slot: Slot) -> None:
        slot.retry_timer = None
        self.pump(slot)

    def _bury(self, slot: Slot, turn: TurnRef, found: dict[str, Any], cpu_ns: int, *, owned: bool = True) -> None:
        now = self._node.clock()
        rows, after = journaling.failed_for_good(turn, found, cpu_ns, now, owned=owned)

        def buried(outcome: str, detail: str) -> None:
            if outcome != "ok":
                self.fenced(slot, "burying", outcome, detail)
                return
            self._node.summaries.add(slot.namespace, slot.name, turn.entries, now, failed=True)
            self._over(slot)
            self.settle(after)

        self._node.commit(rows, buried)

    def _give_up(self, slot: Slot, turn: TurnRef) -> None:
        """A message whose every attempt took its host along."""
        detail = f"{turn.attempts} attempts at {turn.message_id} ended with the host"
        found = problem("TURN_FAILED", detail, attempts=turn.attempts, message_id=turn.message_id)
        owned = slot.state == "idle"
        owner = slot.host.host_id if slot.host is not None else ""
        ref = replace(turn, owner=owner, epoch=slot.epoch, version=slot.version)
        slot.state = "committing"
        self._bury(slot, ref, found.model_dump(mode="json"), 0, owned=owned)

    def timed_out(self, slot: Slot) -> None:
        """The turn holds its host for longer than it may: it is over, whatever it would have done."""
        turn = slot.turn
        if turn is not None and slot.state == "running":
            most = float(slot.limits.get("turn_s_max", 60))
            detail = f"the turn held its host for more than {most:g} s"
            found = problem("TURN_TIMEOUT", detail, limit="turn_s_max", max=most).model_dump(mode="json")
            rows, after = journaling.failed_for_good(turn, found, 0, self._node.clock())
            self._node.commit(rows, lambda outcome, _: self.settle(after) if outcome == "ok" else None)

    def _over(self, slot: Slot) -> None:
        """A turn has ended: the agent is idle, or goes on with the next."""
        if slot.turn is not None:
            self._by_turn.pop(slot.turn.turn_id, None)
        slot.turn = None
        if self._node.slots.get(slot.uid) is not slot:
            return
        host = slot.host
        if host is None:
            slot.state = "free"
        else:
            slot.state = "idle"
            slot.stale = slot.stale or slot.digest != host.digest
            self._node.hosts.turn_over(host)
        self.pump(slot)

    # Afterwards

    def settle(self, after: Aftermath) -> None:
        """Ring whoever a committed unit was for."""
        if after.due_at is not None:
            self._node.timers.arm(after.due_at)
        for address in after.agents:
            self.ring_name(*address)
        for channel in after.channels:
            self._node.delivery.kick(*channel)
        for await_id in (*after.answered, *after.asked):
            self._node.timers.resolved(await_id)

    def resume(self, slot: Slot, position: int, outcome: str, result: str, at: float) -> None:
        """The answer to what a parked turn waits for, handed to the coroutine that still lives."""
        turn, host = slot.turn, slot.host
        if turn is None or host is None or slot.state != "parked" or slot.await_position != position:
            slot.more = True
            return
        slot.cancel_timers()
        slot.state, slot.await_position, slot.started = "running", None, self._node.clock()
        host.inflight += 1
        host.wire.send(Resolved(turn.turn_id, "0", position, outcome, result.encode(), at))

    def generations(self, slot: Slot, entries: Sequence[Entry]) -> dict[str, int]:
        """The next generation of each name that a spawn would take over from a deleted agent."""
        found: dict[str, int] = {}
        for entry in entries:
            if entry.kind == "spawn":
                name = orjson.loads(entry.body)["name"]
                row = self._node.reader.one(sql.RESOURCE, slot.namespace, name)
                found[name] = 1 if row is None else int(row[1]) + 1
        return found
