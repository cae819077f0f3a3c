"""Whatever has a time: timers of agents, deadlines, sleeps, delayed messages. One wake-up for the earliest.

Nothing is scanned but what is due, by an index on the time. Firing inserts the message in the unit
that advances the timer, so it fires once; what was missed goes by the timer's policy. An await is
resolved by its first answer, or by its time, whichever commits first.
"""

import asyncio
import logging
from functools import partial

from controlplane.effects import journaling
from controlplane.effects.entries import timer_begin
from controlplane.effects.expiring import Expiring
from controlplane.effects.firing import Due, fired, set_aside
from controlplane.effects.gathers import came, gathering_of
from controlplane.effects.node import MESSAGES, Node
from controlplane.effects.rings import Waits, reached, ring_through, rings
from controlplane.effects.slots import Slot
from controlplane.effects.surviving import survived
from controlplane.effects.turnref import TurnRef
from controlplane.resources.problems import problem
from controlplane.store import queues
from controlplane.store import statements as sql
from controlplane.store.expired import NEXT_EXPIRED
from controlplane.store.gathers import MEMBERS
from controlplane.store.schedules import MADE_UP_MAX
from schemas.branches import Place

log = logging.getLogger("steward.gate")
NEVER_S = 3600.0
AT_ONCE_S = 0.001
LOOK_S_MIN, BROKEN_S = 0.005, 1.0
RINGS_S = 60.0  # between two looks for rings; more where a look takes more than a thousandth of that


class Timers:
    """The clock of all agents of this gate."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._handle: asyncio.TimerHandle | None = None
        self._at = float("inf")
        self._firing: set[tuple[str, str]] = set()
        self._expiring = Expiring(node)
        self._breaking: set[str] = set()
        self._rings_at = 0.0
        self._ended = False

    def end(self) -> None:
        """Look no more."""
        self._ended = True
        if self._handle is not None:
            self._handle.cancel()

    def arm(self, at: float) -> None:
        """Look at `at`, if nothing earlier is planned."""
        if at >= self._at or self._ended:
            return
        if self._handle is not None:
            self._handle.cancel()
        self._at = at
        wait_s = min(NEVER_S, max(AT_ONCE_S, at - self._node.clock()))
        self._handle = asyncio.get_running_loop().call_later(wait_s, self.look)

    def look(self) -> None:
        """Fire what is due, and plan the next look."""
        if self._handle is not None:
            self._handle.cancel()
        self._handle, self._at = None, float("inf")
        now, reader = self._node.clock(), self._node.reader
        due = [partial(self._fire, Due(*row), now) for row in reader.rows(sql.DUE_TIMERS, now)]
        due += [partial(self._expire, row[0], row[1], row[2], now) for row in reader.rows(sql.DUE_AWAITS, now)]
        due += self._expiring.due(now) + self._node.delaying.due(now)
        broken = [step for step in due if not survived(step, "what is due")]
        soonest = now + (BROKEN_S if broken else LOOK_S_MIN)
        delayed = max(soonest, self._node.delaying.paused_until)
        looks = ((sql.NEXT_TIMER, soonest), (sql.NEXT_AWAIT, soonest), (NEXT_EXPIRED, soonest))
        for query, from_ in (*looks, (queues.NEXT_DUE, delayed)):
            if (first := reader.one(query)) is not None:
                self.arm(max(float(first[0]), from_))

    def _fire(self, timer: Due, now: float) -> None:
        agent, name = timer.agent, timer.name
        if (agent, name) in self._firing:
            return
        begin = timer_begin(name)
        waiting = self._node.reader.one(sql.FIRINGS_WAITING, agent, begin, begin, MADE_UP_MAX)
        try:
            (rows, next_at), fires = fired(timer, int(waiting[0]) if waiting else 0, now), True
        except Exception as error:  # whatever it is, it is this row's, and not the others'
            log.exception("timer %s of %s/%s can not fire", name, timer.namespace, timer.of)
            rows, next_at, fires = set_aside(timer, repr(error), now), None, False
        self._firing.add((agent, name))  # not before: a read that finds the database away must leave nothing behind

        def over(outcome: str, _detail: str) -> None:
            self._firing.discard((agent, name))
            if outcome == "ok":
                if next_at is not None:
                    self.arm(next_at)
                self._node.ownership.ring(agent)
            else:
                self.arm(now + 1)

        self._node.commit("timer", rows, over, MESSAGES)
        if fires and (slot := self._node.slots.load(agent)) is not None:
            self._node.ownership.acquire_for_firing(slot)

    def _expire(self, await_id: str, kind: str, target: str, now: float) -> None:
        if ("", await_id) in self._firing:
            return
        self._firing.add(("", await_id))
        if kind == "sleep":
            rows = journaling.resolution(await_id, "slept", "null", now)
        elif kind == "effect" and target.startswith(journaling.HELD_BACK):
            detail = f"{target} did not come in time; the effect was not sent"
            unsent = problem("BUDGET_EXCEEDED", detail, await_id=await_id, target=target)
            rows = journaling.resolution(await_id, "failed", unsent.model_dump_json(), now)
        elif kind == "compute":
            late = problem("DEADLINE", f"{target} did not end in time", target=target, await_id=await_id)
            rows = journaling.receipt_of_await(await_id, "timeout", late.model_dump_json().encode(), now)
            rows += self._node.computing.cut(await_id)
        elif kind == "effect":
            detail = f"{target} did not come in time, and nobody knows whether it happened"
            rows = journaling.resolution(
                await_id, "in_doubt", problem("IN_DOUBT", detail, await_id=await_id).model_dump_json(), now
            )
        else:
            late = problem("DEADLINE", f"{target} did not answer in time", target=target, await_id=await_id)
            found = late.model_dump(mode="json")
            if kind == "question":
                rows = journaling.question_expired(await_id, found, now)
            else:
                rows = journaling.timed_out(await_id, target, found, now)

        def expired(outcome: str, _detail: str) -> None:
            self._firing.discard(("", await_id))
            if outcome == "ok":
                self.resolved(await_id)
            else:
                self.arm(now + 1)

        self._node.commit("expire", rows, expired, MESSAGES)

    # Awaits that were resolved

    def resolved(self, await_id: str) -> None:
        """After a commit that may have resolved an await: tell whoever waits."""
        await_id = gathering_of(await_id) or await_id
        row = self._node.reader.one(sql.AWAIT_ROW, await_id)
        if row is None or row[7] is None:
            return
        agent, turn_id, branch, position, kind, outcome, result, at = row
        if kind == "gather":
            self._node.cancelling.settled(await_id)
        elif kind == "compute":
            self._node.computing.look()
        elif kind == "effect" and outcome != "retry":  # that one is sent again, within what is reserved for it
            self._node.budgeting.free((turn_id, branch, position))
        if agent is None:
            self._node.planes.answered(await_id)
        elif kind == "request":
            self._node.ownership.ring(agent)
        else:
            self._wake(agent, turn_id, (branch, position), outcome, self._told(await_id, kind, result), at)

    def _told(self, await_id: str, kind: str, result: str | None) -> str:
        """The result, as a turn that is parked in its host hears it."""
        return came(self._node.reader.rows(MEMBERS, await_id)) if kind == "gather" else result or "null"

    def _wake(self, agent: str, turn_id: str, place: Place, outcome: str, result: str, at: float) -> None:
        slot = self._node.slots.get(agent)
        if slot is None or slot.turn is None:  # or it was made without a look at its turn
            self._node.ownership.ring(agent)
        elif slot.turn.turn_id == turn_id:
            self._node.handing.resume(slot, place, outcome, result, at)

    def recheck(self, slot: Slot) -> None:
        """A turn has just parked: its answers may be there already, or never come, because it waits for itself."""
        for place in sorted(slot.awaits):
            if slot.turn is not None:
                self._recheck(slot, slot.turn, place)

    def _recheck(self, slot: Slot, turn: TurnRef, place: Place) -> None:
        row = self._node.reader.one(sql.AWAIT_AT, slot.uid, turn.turn_id, *place)
        if row is None:
            return
        await_id, kind, outcome, result, at, target = row
        if at is not None:
            self._node.handing.resume(slot, place, outcome, self._told(await_id, kind, result), at)
        elif kind == "ask":
            self._break_rings(slot, [target])
        elif kind == "gather":
            rows = self._node.reader.rows(sql.AWAITS_OF_TURN, turn.turn_id)
            self._break_rings(slot, [asked for _, of_member, asked in rows if of_member == "ask"])

    # Rings

    def _break_rings(self, slot: Slot, targets: list[str | None]) -> None:
        """Whoever waits for one of these may close a ring; whether anybody is stuck in it is seen by all who wait."""
        if any(it is not None and ring_through(slot.uid, it, self._asked) for it in targets):
            for newest, agents in rings(reached(slot.uid, self._waits)):
                self._break(newest, agents)

    def _waits(self, agent: str) -> list[Waits]:
        found = [Waits(*row) for row in self._node.reader.rows(sql.WAITS_OF, agent)]
        return [it for it in found if it.await_id not in self._breaking]

    def _asked(self, agent: str) -> list[str]:
        """Whom an agent waits for; not over a question that is being broken: one of a ring is enough."""
        rows = self._node.reader.rows(sql.WAITS_FOR, agent)
        return [target for target, await_id in rows if target is not None and await_id not in self._breaking]

    def _break(self, newest: Waits, agents: int) -> None:
        """One question of a ring fails. Where that can not be written, rings are looked for again."""
        await_id, address = newest.await_id, f"{newest.namespace}/{newest.name}"
        found = problem("ASK_CYCLE", f"{address} would wait for itself, over {agents} agents", agents=agents)
        rows = journaling.resolution(await_id, "failed", found.model_dump_json(), self._node.clock())
        self._breaking.add(await_id)

        def broken(outcome: str, _detail: str) -> None:
            self._breaking.discard(await_id)
            self._rings_at = self._rings_at if outcome == "ok" else 0.0
            self.resolved(await_id)

        self._node.commit("cycle", rows, broken)

    def rings(self) -> None:
        """Rings that closed while nobody parked: no gate lived to break one, or who could still answer has failed."""
        began = self._node.steady()
        if began < self._rings_at:
            return
        found = [Waits(*row) for row in self._node.reader.rows(sql.WAITS)]
        for newest, agents in rings(it for it in found if it.await_id not in self._breaking):
            self._break(newest, agents)
        ended = self._node.steady()
        self._rings_at = ended + max(RINGS_S, 1000 * (ended - began))
