"""The life of a turn: dispatched, running, parked, committed, failed.

Turns of an agent are strictly serial. What a host says counts only for the turn that it was given, and
only while it owns the agent: the units are fenced, and a fenced host is told to forget. After each
commit the slot changes first, then whoever the unit was for is rung, then the agent goes on.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence
from typing import Any

from msgspec.structs import replace

from controlplane.economy import meters
from controlplane.effects import journaling
from controlplane.effects.endings import said, too_long
from controlplane.effects.handing import UNCOUNTED
from controlplane.effects.hosts import Host
from controlplane.effects.node import TURNS, Node
from controlplane.effects.reading import Away
from controlplane.effects.resuming import run_frame
from controlplane.effects.segments import Unfit, outside, unfit, unfit_end, unfit_folder, weight
from controlplane.effects.slots import Slot, State
from controlplane.effects.turnref import Aftermath, Row, TurnRef
from controlplane.store.states import keep
from schemas import faults
from schemas.branches import Place
from schemas.problem import Problem
from schemas.wire import Ask, Commit, Entry, Evict, Failed, Park

log = logging.getLogger("steward.gate")
RETRY_FIRST_S, RETRY_MOST_S = 0.05, 10.0
Act = Callable[[], None]
Ahead = Callable[[Slot, TurnRef], bool]
Said = Ask | Park | Commit | Failed


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
        """The slot that a host may speak for; a stale host is told to forget. Whoever speaks is not held."""
        host.holding, host.held_s = "", 0.0
        slot = self._by_turn.get(turn_id)
        if slot is not None and slot.host is host and slot.epoch == epoch and slot.state == "running":
            return slot
        if slot is not None and slot.host is not host:
            host.wire.send(Evict(slot.uid, epoch, abort=True))
        return None

    def running(self, turn_id: str, state: State = "running") -> Slot | None:
        """The slot of a turn that is with its host; or that is in another state there."""
        slot = self._by_turn.get(turn_id)
        return slot if slot is not None and slot.state == state else None

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
        self._node.budgeting.began(slot)
        frame = run_frame(self._node, slot, turn)
        slot.state, slot.started = "running", self._node.steady()
        slot.begin()
        self._by_turn[turn.turn_id] = slot
        faults.at("gate.run.sending")
        self._node.handing.offer(slot, host, frame)
        faults.at("gate.run.sent")

    def goes_on(self, slot: Slot, turn: TurnRef) -> None:
        """A parked turn has its answer, and its host is about to hear it."""
        slot.cancel_timers()
        slot.state, slot.started = "running", self._node.steady()
        self._node.hosts.count(slot)
        self._by_turn[turn.turn_id] = slot
        self._node.budgeting.began(slot)

    # What hosts say

    def heard(self, host: Host, frame: Said, act: Callable[[Slot, TurnRef], None], ahead: Ahead | None = None) -> None:
        """A frame of a turn, as soon as what its host said before is written.

        What it asks of the world waits for what is sure, unless `ahead` says that it may be written ahead before.
        """
        slot = self.of(host, frame.turn_id, frame.epoch)
        if slot is None or slot.turn is None:
            return
        if slot.unsure:  # first of all, so that frames stay in their order
            slot.unsure.append(lambda: self.heard(host, frame, act, ahead))
        elif slot.writing:
            slot.line.append(lambda: self.heard(host, frame, act, ahead))
        elif slot.unsure is not None and isinstance(frame, Ask) and not (ahead and ahead(slot, slot.turn)):
            slot.unsure.append(lambda: self.heard(host, frame, act, ahead))
            self._node.committer.hurry()
        else:
            act(slot, slot.turn)

    def in_line(self, slot: Slot, act: Callable[[], None]) -> None:
        """One unit of a turn at a time: each says how long the journal is that it finds."""
        if slot.writing:
            slot.line.append(act)
        else:
            self._node.handing.take_up(slot, act)

    def wrote(self, slot: Slot) -> None:
        """A unit of a running turn is committed: the next one may be."""
        slot.writing = False
        while slot.line and not slot.writing and self._node.slots.holds(slot):
            if not self._node.handing.take_up(slot, slot.line.popleft()):
                return

    def park(self, host: Host, frame: Park) -> None:
        self.heard(host, frame, lambda slot, turn: self._park(slot, turn, frame))

    def _park(self, slot: Slot, turn: TurnRef, frame: Park) -> None:
        """The turn rests, if its host has heard all that it was told and nothing is on its way; else branches do."""
        waits = set(frame.waits) - slot.told
        rests = frame.heard == slot.said and not slot.effects - slot.held
        if turn.proving:
            if rests or frame.entries:
                self._node.upgrading.reached(slot, turn, here=not frame.entries, waits=waits)
            return
        if not rests:
            self._half(slot, turn, frame, waits)
            return
        if not (frame.entries or turn.branches or slot.lasting):
            slot.rested(self._node.steady())
            self._node.budgeting.ended(slot, committed=False)
            self.parked(slot, turn, Aftermath(), waits)
            return
        self._write(slot, turn, frame, rests=True, then=lambda grown, after: self.parked(slot, grown, after, waits))

    def _half(self, slot: Slot, turn: TurnRef, frame: Park, waits: set[Place]) -> None:
        """Branches wait and others go on; what the former wait for is written, and may be answered, meanwhile."""
        if not frame.entries:
            self._wait_for(slot, waits)
            return

        def written(grown: TurnRef, after: Aftermath) -> None:
            if self._node.slots.holds(slot):
                slot.turn = grown
                self._node.budgeting.began(slot)
            self.settle(after)
            self._wait_for(slot, waits)
            self.wrote(slot)

        self._write(slot, turn, frame, rests=False, then=written)

    def _write(
        self, slot: Slot, turn: TurnRef, frame: Park, *, rests: bool, then: Callable[[TurnRef, Aftermath], None]
    ) -> None:
        """Commit what branches wait for, unless it holds what it may not."""
        if self.refused(slot, turn, frame.entries, frame.cpu_ns):
            return
        now = self._node.clock()
        beyond = outside(self._node, slot, turn, frame.entries)
        rows, after = journaling.park(turn, frame.entries, frame.cpu_ns, now, beyond, rests=rests)
        self._metered(slot, rows, frame.cpu_ns, now, ended=False)
        if rests:
            slot.state = "committing"
        else:
            slot.started, slot.writing = self._node.steady(), True
        grown = turn.grown(it.branch for it in frame.entries)
        self._submit(slot, "park", rows, lambda: then(grown, after), passes=(turn, after))

    def _wait_for(self, slot: Slot, waits: set[Place]) -> None:
        """From now on answers may be told; some may be there already."""
        new = (waits - slot.told) - slot.awaits
        slot.awaits = waits - slot.told
        if new and slot.state == "running":
            self._node.timers.recheck(slot)

    def parked(self, slot: Slot, turn: TurnRef, after: Aftermath, waits: set[Place]) -> None:
        """The turn waits; who shall leave its host, or has another spec by now, leaves."""
        held = self._node.slots.holds(slot)
        if held:
            slot.turn, slot.state, slot.awaits = turn, "parked", waits
            self._node.hosts.turn_over(slot)
            self._node.ownership.arm_idle(slot)
        self.settle(after)
        if held:
            self._node.handing.parked(slot)
            if slot.state != "parked":  # it goes on at once
                return
            self._node.timers.recheck(slot)
            self._node.cancelling.parked(slot)
            if slot.leave or slot.stale or slot.held:  # who waits for an operator does so as a row
                self._node.ownership.let_go(slot)

    def commit(self, host: Host, frame: Commit) -> None:
        self.heard(host, frame, lambda slot, turn: self._commit(slot, turn, frame))

    def _commit(self, slot: Slot, turn: TurnRef, frame: Commit) -> None:
        if frame.version != slot.version:
            return
        if turn.proving:
            self._node.upgrading.reached(slot, turn, here=False)
            return
        found = (
            unfit_end(frame, self._node.bounds.state_bytes_max)
            or unfit_folder(self._node, turn, frame)
            or unfit(self._node, slot, turn, frame.entries, ends=True)
        )
        if found is not None:
            self.refuse(slot, turn, found, frame.cpu_ns)
            return
        now = self._node.clock()
        kept = keep(frame.state, slot.chunks)
        beyond = outside(self._node, slot, turn, frame.entries)
        rows, after = journaling.commit(turn, frame, kept, now, beyond)
        self._metered(slot, rows, frame.cpu_ns, now, ended=True)
        slot.state = "committing"
        told = self._node.summaries.ending(now)

        def committed() -> None:
            slot.version += 1
            slot.resident, slot.state_text, slot.chunks = slot.version, None, kept.chunks
            slot.state_version = frame.state_version
            self._over(slot, after)

        self._submit(slot, "commit", rows, committed, told, passes=(turn, after), at=now)

    def failed(self, host: Host, frame: Failed) -> None:
        found = Unfit(said(frame.problem), frame.retry)
        self.heard(host, frame, lambda slot, turn: self._fail(slot, turn, found, frame.cpu_ns))

    # Failures

    def refused(
        self, slot: Slot, turn: TurnRef, entries: Sequence[Entry], cpu_ns: int = 0, asks: Ask | None = None
    ) -> bool:
        """Whether a segment holds what it may not."""
        if (found := unfit(self._node, slot, turn, entries, asks=asks)) is not None:
            self.refuse(slot, turn, found, cpu_ns)
        slot.journaled += weight(entries, asks)
        return found is not None

    def refuse(self, slot: Slot, turn: TurnRef, found: Unfit, cpu_ns: int) -> None:
        """The turn fails; its host forgets what it took for done."""
        assert slot.host is not None
        slot.host.wire.send(Evict(slot.uid, slot.epoch, abort=True))
        slot.resident = -1
        self._fail(slot, turn, found, cpu_ns)

    def _fail(self, slot: Slot, turn: TurnRef, found: Unfit, cpu_ns: int) -> None:
        if turn.proving:
            self._node.upgrading.differs(slot, turn, found.problem)
            return
        slot.state = "committing"
        if found.problem.get("reason") == "TURN_TIMEOUT":
            found = found._replace(problem=self._cut(slot, found.problem))
        if found.retry and turn.attempts + 1 < (turn.attempts_max or self._node.bounds.turn_attempts_max):
            now = self._node.clock()
            rows = journaling.failed_again(turn, cpu_ns, now)
            self._metered(slot, rows, cpu_ns, now, ended=False)
            self._submit(slot, "again", rows, lambda: self._retry(slot, turn, found.problem.get("retry_after_s")))
        else:
            self.bury(slot, turn, found.problem, cpu_ns)

    def _retry(self, slot: Slot, turn: TurnRef, least_s: float | None) -> None:
        if not self._node.slots.holds(slot):
            return
        given = slot.turn.given if slot.turn is not None else turn.given
        slot.turn, slot.state = replace(turn, attempts=turn.attempts + 1, given=given), "idle"
        slot.resident, slot.active_s = -1, 0.0
        self._node.hosts.turn_over(slot)
        wait_s = max(least_s or 0.0, min(RETRY_MOST_S, RETRY_FIRST_S * 4**turn.attempts))
        slot.retry_timer = asyncio.get_running_loop().call_later(wait_s, self._again, slot)

    def _again(self, slot: Slot) -> None:
        slot.retry_timer = None
        self._node.ownership.pump(slot)

    def _cut(self, slot: Slot, found: dict[str, Any]) -> dict[str, Any]:
        return self._node.budgeting.cut(slot, Problem.model_validate(found)).model_dump(mode="json")

    def bury(
        self, slot: Slot, turn: TurnRef, found: dict[str, Any], cpu_ns: int, *, owned: bool = True, counts: bool = True
    ) -> None:
        """The turn fails for good; `owned` by a host, or as a row. One that was not let begin does not count."""
        slot.state = "committing"
        now = self._node.clock()
        rows, after = journaling.failed_for_good(turn, found, cpu_ns, now, owned=owned)
        self._metered(slot, rows, cpu_ns, now, ended=counts)
        rows += self._node.computing.cut(turn.turn_id)
        told = self._node.summaries.ending(now)
        asked = self._node.cancelling.asked_by(turn.turn_id) if turn.recorded else []

        def buried() -> None:
            self._over(slot, after)
            self._node.cancelling.cancelled(asked)
            self._node.computing.over(turn.turn_id)

        self._submit(slot, "bury", rows, buried, told)

    def give_up(self, slot: Slot, turn: TurnRef, found: dict[str, Any]) -> None:
        """A message whose every attempt took its host along, or could not be committed; or that came too late."""
        owner = slot.host.host_id if slot.host is not None else ""
        ref = replace(turn, owner=owner, epoch=slot.epoch, version=slot.version, attempts=turn.attempts - 1)
        self.bury(slot, ref, found, 0, owned=slot.state == "idle")

    def timed_out(self, slot: Slot) -> None:
        """The turn holds its host for longer than it may: it is over, whatever it would have done."""
        turn = slot.turn
        if turn is None or slot.state != "running":
            return
        found = too_long(slot.turn_s_max)
        if turn.proving:
            self._node.upgrading.differs(slot, turn, found)
        else:
            self.bury(slot, turn, self._cut(slot, found), 0)

    # Afterwards

    def _metered(self, slot: Slot, rows: list[Row], cpu_ns: int, now: float, *, ended: bool) -> None:
        """What the segment used is of its unit, behind the fence."""
        slot.used = meters.of_turn(slot.rested(self._node.steady()), cpu_ns, ended=ended, gpus=slot.gpus)
        rows[1:1] = meters.rows(slot.who, meters.TURN, slot.used, now)

    def _submit(
        self, slot: Slot, unit: str, rows: Sequence[Row], then: Act, told: Act | None = None,
        passes: tuple[TurnRef, Aftermath] | None = None, at: float | None = None,
    ) -> None:  # fmt: skip
        """Commit a unit of the turn, and hand on what it `passes`; `at` its end. What is refused is fenced."""
        handed: list[Callable[[bool], None]] = []

        def ended(outcome: str, detail: str) -> None:
            if told is not None:
                told()
            self._node.budgeting.ended(slot, committed=outcome == "ok")
            for tell in handed:
                with contextlib.suppress(Away):  # then the sweep finds whoever was told
                    tell(outcome == "ok")
            if outcome == "ok":
                then()
            elif outcome == "conflict" and slot.turn is not None and slot.turn.given:
                self._node.ownership.fenced(slot, unit, outcome, UNCOUNTED)
            else:
                self._node.ownership.fenced(slot, unit, outcome, detail)

        lane = slot.lane if slot.turn is not None and slot.turn.given else TURNS
        self._node.commit(unit, rows, ended, lane)
        if passes is not None:
            handed.append(self._node.handing.passed(slot, *passes, lane))
            if at is not None:
                handed.append(self._node.handing.answered(slot, *passes, lane, at))

    def _over(self, slot: Slot, after: Aftermath) -> None:
        """A turn has ended: the agent is idle, or goes on with the next."""
        self.forget(slot)
        if slot.turn is not None:
            slot.handed.pop(slot.turn.message_id, None)
            self._node.hosts.suspects.pop(slot.turn.turn_id, None)
            if slot.turn.trigger == "start":
                self._node.planes.rouse()
        slot.turn, slot.awaits, slot.active_s = None, set(), 0.0
        self._node.budgeting.over_with(slot.uid)
        self._node.planes.freed(slot.uid)
        held = self._node.slots.holds(slot)
        if held and slot.host is not None:
            slot.state = "idle"
            slot.stale = slot.stale or slot.key != slot.host.key
            self._node.hosts.turn_over(slot)
        elif held:
            slot.state = "free"
        self.settle(after)
        slot.emptied, slot.last = slot.last and not slot.more, False
        if slot.emptied:
            self._node.handing.next(slot)
        self._node.ownership.pump(slot)
        slot.emptied = False

    def settle(self, after: Aftermath) -> None:
        """Ring whoever a committed unit was for."""
        if after.due_at is not None:
            self._node.timers.arm(after.due_at)
        for await_id in after.operators:
            self._node.planes.answered(await_id)
        with contextlib.suppress(Away):  # then the sweep finds them
            for address in after.agents:
                self._node.ownership.ring_name(*address)
            for await_id in (*after.answered, *after.asked):
                self._node.timers.resolved(await_id)
            self._node.delivery.moved(after.published, after.members, after.queues)
