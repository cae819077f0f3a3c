"""The life of a turn: dispatched, running, parked, committed, failed.

Turns of an agent are strictly serial. What a host says counts only for the turn that it was given, and
only while it owns the agent: the units are fenced, and a fenced host is told to forget. After each
commit the slot changes first, then whoever the unit was for is rung, then the agent goes on.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import orjson

from controlplane.effects import journaling
from controlplane.effects.entries import Aftermath, TurnRef
from controlplane.effects.hosts import Host
from controlplane.effects.node import Node
from controlplane.effects.reading import Away
from controlplane.effects.resuming import run_frame
from controlplane.effects.segments import Unfit, generations, unfit, unfit_end
from controlplane.effects.slots import Slot
from controlplane.resources.problems import problem
from schemas import faults
from schemas.wire import Commit, Entry, Evict, Failed, Park, Resolved

log = logging.getLogger("steward.gate")
RETRY_FIRST_S, RETRY_MOST_S = 0.05, 10.0


class Turns:
    """The turns of this gate's agents."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._by_turn: dict[str, Slot] = {}

    def forget(self, slot: Slot) -> None:
        """The slot speaks for its turn no longer; another one may by now."""
        if slot.turn is not None and self._by_turn.get(slot.turn.turn_id) is slot:
            del self._by_turn[slot.turn.turn_id]

    def of(self, host: Host, turn_id: str, epoch: int) -> Slot | None:
        """The slot that a host may speak for; a stale host is told to forget."""
        slot = self._by_turn.get(turn_id)
        if slot is not None and slot.host is host and slot.epoch == epoch and slot.state == "running":
            return slot
        if slot is not None and slot.host is not host:
            host.wire.send(Evict(slot.uid, epoch, abort=True))
        return None

    def running(self, turn_id: str) -> Slot | None:
        """The slot of a turn that is with its host."""
        slot = self._by_turn.get(turn_id)
        return slot if slot is not None and slot.state == "running" else None

    def dispatch(self, slot: Slot, turn: TurnRef) -> None:
        """Hand a turn to the agent's host, as soon as its window has room."""
        host = slot.host
        assert host is not None
        if not self._node.hosts.enter(slot, alone=turn.turn_id in self._node.hosts.suspects):
            return
        turn = slot.turn = replace(
            turn, owner=host.host_id, epoch=slot.epoch, version=slot.version, digest=host.digest, spec=slot.spec
        )
        slot.cancel_timers()
        frame = run_frame(self._node, slot, turn)
        slot.state, slot.started, slot.more, slot.await_position = "running", self._node.steady(), False, None
        slot.effects.clear()
        self._by_turn[turn.turn_id] = slot
        faults.at("gate.run.sending")
        host.wire.send(frame)
        faults.at("gate.run.sent")

    # What hosts say

    def park(self, host: Host, frame: Park) -> None:
        slot = self.of(host, frame.turn_id, frame.epoch)
        if slot is None or slot.turn is None:
            return
        turn = slot.turn
        if not frame.entries:
            self._parked(slot, turn, Aftermath())
            return
        if self.refused(slot, turn, frame.entries, frame.cpu_ns):
            return
        now = self._node.clock()
        rows, after = journaling.park(
            turn, frame.entries, frame.cpu_ns, now, generations(self._node.reader, turn, frame.entries)
        )
        slot.state = "committing"
        grown = replace(turn, recorded=True, entries=turn.entries + len(frame.entries))
        self._submit(slot, "park", rows, lambda: self._parked(slot, grown, after))

    def _parked(self, slot: Slot, turn: TurnRef, after: Aftermath) -> None:
        held = self._node.slots.holds(slot)
        if held:
            slot.turn, slot.state, slot.await_position = turn, "parked", turn.entries - 1
            self._node.hosts.turn_over(slot)
            self._node.ownership.arm_idle(slot)
        self.settle(after)
        if held:
            self._node.timers.recheck(slot)
            if slot.leave:
                self._node.ownership.let_go(slot)

    def commit(self, host: Host, frame: Commit) -> None:
        slot = self.of(host, frame.turn_id, frame.epoch)
        if slot is None or slot.turn is None or frame.version != slot.version:
            return
        turn = slot.turn
        found = unfit_end(frame, self._node.bounds.state_bytes_max) or unfit(self._node, slot, turn, frame.entries)
        if found is not None:
            self._refuse(slot, turn, found, frame.cpu_ns)
            return
        now = self._node.clock()
        rows, after = journaling.commit(turn, frame, now, generations(self._node.reader, turn, frame.entries))
        slot.state = "committing"
        told = self._node.summaries.ending(now)

        def committed() -> None:
            slot.version += 1
            slot.resident, slot.state_text = slot.version, None
            self._over(slot, after)

        self._submit(slot, "commit", rows, committed, told)

    def failed(self, host: Host, frame: Failed) -> None:
        slot = self.of(host, frame.turn_id, frame.epoch)
        if slot is not None and slot.turn is not None:
            self._fail(slot, slot.turn, Unfit(orjson.loads(frame.problem), frame.retry), frame.cpu_ns)

    # Failures

    def refused(self, slot: Slot, turn: TurnRef, entries: Sequence[Entry], cpu_ns: int = 0) -> bool:
        """Whether a segment holds what it may not."""
        if (found := unfit(self._node, slot, turn, entries)) is not None:
            self._refuse(slot, turn, found, cpu_ns)
        return found is not None

    def _refuse(self, slot: Slot, turn: TurnRef, found: Unfit, cpu_ns: int) -> None:
        """The turn fails; its host forgets what it took for done."""
        assert slot.host is not None
        slot.host.wire.send(Evict(slot.uid, slot.epoch, abort=True))
        slot.resident = -1
        self._fail(slot, turn, found, cpu_ns)

    def _fail(self, slot: Slot, turn: TurnRef, found: Unfit, cpu_ns: int) -> None:
        slot.state = "committing"
        if found.retry and turn.attempts + 1 < self._node.bounds.turn_attempts_max:
            rows = journaling.failed_again(turn, cpu_ns, self._node.clock())
            self._submit(slot, "again", rows, lambda: self._retry(slot, turn, found.problem.get("retry_after_s")))
        else:
            self._bury(slot, turn, found.problem, cpu_ns)

    def _retry(self, slot: Slot, turn: TurnRef, least_s: float | None) -> None:
        if not self._node.slots.holds(slot):
            return
        slot.turn, slot.state = replace(turn, attempts=turn.attempts + 1), "idle"
        self._node.hosts.turn_over(slot)
        wait_s = max(least_s or 0.0, min(RETRY_MOST_S, RETRY_FIRST_S * 4**turn.attempts))
        slot.retry_timer = asyncio.get_running_loop().call_later(wait_s, self._again, slot)

    def _again(self, slot: Slot) -> None:
        slot.retry_timer = None
        self._node.ownership.pump(slot)

    def _bury(self, slot: Slot, turn: TurnRef, found: dict[str, Any], cpu_ns: int, *, owned: bool = True) -> None:
        slot.state = "committing"
        now = self._node.clock()
        rows, after = journaling.failed_for_good(turn, found, cpu_ns, now, owned=owned)
        told = self._node.summaries.ending(now)
        self._submit(slot, "bury", rows, lambda: self._over(slot, after), told)

    def give_up(self, slot: Slot, turn: TurnRef) -> None:
        """A message whose every attempt took its host along, or could not be committed."""
        detail = f"{turn.attempts} attempts at {turn.message_id} ended without an end of the turn"
        found = problem("TURN_FAILED", detail, attempts=turn.attempts, message_id=turn.message_id)
        owner = slot.host.host_id if slot.host is not None else ""
        ref = replace(turn, owner=owner, epoch=slot.epoch, version=slot.version, attempts=turn.attempts - 1)
        self._bury(slot, ref, found.model_dump(mode="json"), 0, owned=slot.state == "idle")

    def timed_out(self, slot: Slot) -> None:
        """The turn holds its host for longer than it may: it is over, whatever it would have done."""
        turn = slot.turn
        if turn is None or slot.state != "running":
            return
        most = float(slot.limits.get("turn_s_max", 60))
        detail = f"the turn held its host for more than {most:g} s"
        found = problem("TURN_TIMEOUT", detail, limit="turn_s_max", max=most).model_dump(mode="json")
        self._bury(slot, turn, found, 0)

    # Afterwards

    def _submit(
        self,
        slot: Slot,
        unit: str,
        rows: Sequence[Any],
        then: Callable[[], None],
        told: Callable[[], None] | None = None,
    ) -> None:
        """Commit a unit of the turn; what is refused is fenced."""

        def ended(outcome: str, detail: str) -> None:
            if told is not None:
                told()
            if outcome == "ok":
                then()
            else:
                self._node.ownership.fenced(slot, unit, outcome, detail)

        self._node.commit(unit, rows, ended)

    def _over(self, slot: Slot, after: Aftermath) -> None:
        """A turn has ended: the agent is idle, or goes on with the next."""
        self.forget(slot)
        if slot.turn is not None:
            self._node.hosts.suspects.discard(slot.turn.turn_id)
            if slot.turn.trigger == "start":
                self._node.planes.rouse()
        slot.turn = None
        held = self._node.slots.holds(slot)
        if held and slot.host is not None:
            slot.state = "idle"
            slot.stale = slot.stale or slot.digest != slot.host.digest
            self._node.hosts.turn_over(slot)
        elif held:
            slot.state = "free"
        self.settle(after)
        self._node.ownership.pump(slot)

    def settle(self, after: Aftermath) -> None:
        """Ring whoever a committed unit was for."""
        if after.due_at is not None:
            self._node.timers.arm(after.due_at)
        with contextlib.suppress(Away):  # then the sweep finds them
            for await_id in (*after.answered, *after.asked):
                self._node.timers.resolved(await_id)
            for address in after.agents:
                self._node.ownership.ring_name(*address)
            for channel in after.channels:
                self._node.delivery.kick(*channel)

    def resume(self, slot: Slot, position: int, outcome: str, result: str, at: float) -> None:
        """The answer to what a parked turn waits for, handed to the coroutine that still lives."""
        turn, host = slot.turn, slot.host
        if turn is None or host is None or slot.state != "parked" or slot.await_position != position:
            slot.more = True
            if slot.state in ("free", "idle"):  # it is not with its host: by replay, then
                slot.await_position = None
                self._node.ownership.pump(slot)
            return
        slot.cancel_timers()
        slot.state, slot.await_position, slot.started = "running", None, self._node.steady()
        self._node.hosts.count(slot)
        self._by_turn[turn.turn_id] = slot
        faults.at("gate.resume")
        host.wire.send(Resolved(turn.turn_id, "0", position, outcome, result.encode(), at))
