"""Who owns an agent: woken, acquired, idle, let go, forgotten.

One function, `pump`, decides what an agent does next, from its slot alone; whatever happens calls it.
Calling it once too often changes nothing, and a call that was missed is made up for by the sweep. An
agent that nobody needs is a row without an owner, and nothing in memory. An owner nobody speaks for
is taken away by a new epoch, never argued with. Only so many are acquired at once; of those who wait, one
of each namespace is next, of a higher class first.
"""

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

from controlplane.effects import eventing
from controlplane.effects.endings import expired, too_late, worn_out
from controlplane.effects.fairness import Turnstile
from controlplane.effects.node import MESSAGES, Node
from controlplane.effects.reading import Away
from controlplane.effects.resuming import next_turn
from controlplane.effects.slots import Came, Slot
from controlplane.effects.surviving import survived
from controlplane.effects.turnref import TurnRef
from controlplane.store import statements as sql
from schemas.wire import Evict

log = logging.getLogger("steward.gate")
TROUBLE_S = 0.25
LOOK_S = 30.0
RINGS = 32
WAITING_MAX, BRANCHED_MAX = 2_000, 500  # so many are looked at in one sweep; the next goes on behind them


def _in_turn(agents: Iterable[tuple[str, str]]) -> list[str]:
    """Uids, one of each namespace in turn: what is rung some at a time is rung fairly, too."""
    line: Turnstile[str] = Turnstile()
    for namespace, uid in agents:
        line.put(namespace, uid)
    return [uid for uid in iter(line.take, None) if uid is not None]


class Ownership:
    """Every agent that is awake on this gate, or about to be."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._line: Turnstile[Slot] = Turnstile()
        self._acquiring = 0
        self._spoken: dict[str, int] = {}  # epochs that a host may have heard of, and that were not committed
        self._look_at = 0.0  # at turns of which one branch waits, and another could go on
        self._waiting_from = self._branched_from = ""
        self._first_round = True  # of those that wait, which is done without a rest
        self._unrung: deque[str] = deque()
        self._ended = False

    def ring(self, uid: str) -> None:
        """Something may have come for an agent."""
        if (slot := self._node.slots.load(uid)) is not None:
            slot.more = True
            self.pump(slot)

    def ring_all(self, uids: Sequence[str]) -> None:
        """Some at a time: the first must not wait until a thousand others were looked at."""
        if self._ended:
            return
        self._unrung.extend(uids)
        for _ in range(min(RINGS, len(self._unrung))):
            with contextlib.suppress(Away):  # then the sweep finds it
                survived(partial(self.ring, self._unrung.popleft()), "the ring of an agent")
        if self._unrung:
            asyncio.get_running_loop().call_soon(self.ring_all, ())
        elif self._first_round and self._waiting_from:
            asyncio.get_running_loop().call_soon(self._look_behind)

    def end(self) -> None:
        """Of many that are to be rung, nobody is any more: what they would be read by is about to be closed."""
        self._ended = True

    def ring_name(self, namespace: str, name: str) -> None:
        if (slot := self._node.slots.named(namespace, name)) is not None:
            slot.more = True
            self.pump(slot)

    def come(self, slot: Slot, message: Came) -> None:
        """An agent's inbox holds this message and nothing else; what is not known of otherwise will ring."""
        if slot.more or slot.turn is not None or slot.coming is not None or slot.state not in ("acquiring", "idle"):
            self.ring(slot.uid)
            return
        slot.coming = message
        self.pump(slot)
        if slot.state != "acquiring" and slot.coming is not None:  # it leaves, or may not go on now
            slot.coming, slot.more = None, True

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
            self._orphan(slot.uid, slot.epoch, slot)
        elif slot.state == "idle" and (slot.stale or slot.leave):
            self.let_go(slot)
        elif slot.stopped:
            self._rest(slot)
        else:
            self._go_on(slot)

    def _go_on(self, slot: Slot) -> None:
        """With its open turn, or the next message; one that waits may be held against newer code first."""
        slot.asked = None
        ready = next_turn(self._node, slot)
        if slot.stale and slot.state == "idle":
            self.let_go(slot)
            return
        if ready and slot.turn is not None and expired(slot.turn, self._node.clock()):
            self._node.turns.give_up(slot, slot.turn, too_late(slot.turn.message_id).model_dump(mode="json"))
            return
        rests = slot.state == "idle" or not ready  # one that is about to get a host is looked at there
        if (rests and self._node.cancelling.ends(slot)) or (not ready and self._node.upgrading.ends(slot)):
            return
        if ready and self._node.budgeting.spends(slot):
            return
        proving = slot.turn is not None and slot.turn.proving != ""
        if not (ready or proving or slot.keep) or self._node.budgeting.bars(slot) is not None:
            self._rest(slot)
        elif slot.turn is not None and slot.turn.attempts >= self._most(slot.turn):
            self._node.turns.give_up(slot, slot.turn, worn_out(slot.turn))
        elif slot.state == "free":
            self._acquire(slot)
        elif slot.turn is not None:
            self._node.turns.dispatch(slot, slot.turn)
        else:
            self._rest(slot)

    def _most(self, turn: TurnRef) -> int:
        return turn.attempts_max or self._node.bounds.turn_attempts_max

    def sweep(self) -> None:
        """Take up what no bell was heard for."""
        for slot in self._node.slots.all():
            survived(partial(self._look_at_one, slot), slot.address)
        for (uid,) in self._node.reader.rows(sql.OWNED_AGENTS):
            if self._node.slots.get(uid) is None:
                self.ring(uid)
        if not self._unrung:
            self._look_behind()

    def _look_at_one(self, slot: Slot) -> None:
        if slot.state == "parked" or (slot.state == "running" and slot.awaits):
            self._node.timers.recheck(slot)
        elif not slot.queued:
            self.pump(slot)

    def _look_behind(self) -> None:
        """Ring some of those who wait, behind those of the last time: who can not go on hides nobody."""
        if self._ended:
            return
        rows = self._node.reader.rows(sql.WAITING_AGENTS, self._waiting_from, WAITING_MAX)
        self._waiting_from = max(rows, key=lambda it: it[1])[0] if len(rows) == WAITING_MAX else ""
        self._first_round = self._first_round and self._waiting_from != ""
        found = _in_turn((namespace, uid) for uid, _, namespace in rows if namespace and not self._node.slots.get(uid))
        if self._node.steady() >= self._look_at:
            branched = [
                row[0] for row in self._node.reader.rows(sql.BRANCHED_AGENTS, self._branched_from, BRANCHED_MAX)
            ]
            self._branched_from = branched[-1] if len(branched) == BRANCHED_MAX else ""
            self._look_at = 0.0 if self._branched_from else self._node.steady() + LOOK_S
            found += branched
        self.ring_all(found)

    def _rest(self, slot: Slot) -> None:
        """Nothing to do: an agent without a host is forgotten, one with a host may stay a while."""
        slot.more = slot.keep = slot.last = False
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

    def acquire_for_firing(self, slot: Slot) -> None:
        """Acquire ahead of what a timer fires, unless a turn is open or a message waits: those go on when it rings."""
        if slot.state == "free" and slot.owner is None and not (next_turn(self._node, slot) or slot.awaits):
            self.acquire_ahead(slot)

    def acquire_ahead(self, slot: Slot) -> None:
        """Acquire, in the same group commit as the message that is on its way, an agent that has nothing else to do."""
        if (
            slot.state != "free"
            or slot.owner is not None
            or slot.stopped
            or slot.queued
            or slot.retry_timer is not None
            or slot.turn is not None
            or self._node.budgeting.bars(slot)
        ):
            return
        if self._node.hosts.pick(slot.key, slot.placement) is not None:
            self._acquire(slot)

    def acquire_at_once(self, slot: Slot) -> bool:
        """The same, and whether it goes on as if that were committed: all that it does is fenced by it."""
        if slot.state != "free" or slot.woken_by is not None or slot.move is not None:
            return False
        self.acquire_ahead(slot)
        if slot.host is None:
            return False
        slot.state, slot.owner, slot.epoch, slot.resident = "idle", slot.host.host_id, self._next_epoch(slot), -1
        self._spoken[slot.uid] = slot.epoch
        return True

    def owned(self, slot: Slot) -> bool:
        """Whether it has an owner, and that is committed."""
        return slot.owner is not None and self._spoken.get(slot.uid) != slot.epoch

    def _next_epoch(self, slot: Slot) -> int:
        """One that nobody has heard of: what a host still says of one that was not committed counts for no other."""
        return max(slot.epoch, self._spoken.get(slot.uid, 0)) + 1

    def _acquire(self, slot: Slot) -> None:
        if self._acquiring >= self._node.bounds.acquiring_max:
            slot.queued = True
            self._line.put(slot.namespace, slot, slot.priority)
            return
        host = self._node.hosts.pick(slot.key, slot.placement)
        if host is None:
            self._node.hosts.demand(slot)
            return
        self._acquiring += 1
        slot.state, slot.host = "acquiring", host
        host.slots.add(slot)
        now, host_id, epoch = self._node.clock(), host.host_id, self._next_epoch(slot)
        rows: list[Any] = [(sql.ACQUIRE, (host_id, epoch, now, slot.uid, slot.epoch), 1)]
        if slot.woken_by is not None:
            rows.append(eventing.agent_event("agent.woken", slot.namespace, slot.name, slot.woken_by, now))
        if slot.move is not None:
            rows.append(self._node.moving.arriving(slot, host, epoch, now))

        def acquired(outcome: str, detail: str) -> None:
            self._acquiring -= 1
            self._acquired(slot, host_id, epoch, outcome, detail)
            self._admit()

        self._node.commit("acquire", rows, acquired, MESSAGES)

    def _admit(self) -> None:
        """Acquire who waits, one of each namespace in turn."""
        while self._acquiring < self._node.bounds.acquiring_max and (slot := self._line.take()) is not None:
            slot.queued = False
            self.pump(slot)

    def _acquired(self, slot: Slot, host_id: str, epoch: int, outcome: str, detail: str) -> None:
        if outcome == "ok" and self._spoken.get(slot.uid) == epoch:
            del self._spoken[slot.uid]
        if not self._node.slots.holds(slot):  # the host was lost, or an operator came in between
            if outcome == "ok":
                self._orphan(slot.uid, epoch)
            return
        at_it = (slot.owner, slot.epoch) == (host_id, epoch)
        if outcome == "ok" and at_it:
            slot.tell_awake()
            if slot.more:
                self.pump(slot)
            return
        if outcome == "ok":
            slot.state, slot.owner, slot.epoch, slot.resident, slot.woken_by = "idle", host_id, epoch, -1, None
            slot.tell_awake()
            self._node.moving.arrived(slot)
            self.pump(slot)
            return
        log.info("acquiring %s: %s %s", slot.address, outcome, detail)
        if at_it and slot.host is not None:
            slot.host.wire.send(Evict(slot.uid, epoch, abort=True))
        self.forget(slot)
        asyncio.get_running_loop().call_later(TROUBLE_S, self._anew, slot)

    def _anew(self, before: Slot) -> None:
        """It is looked at as its row is by now; who wants it awake, or elsewhere, still does."""
        if (slot := self._node.slots.load(before.uid)) is not None:
            slot.more, slot.keep = True, slot.keep or before.keep
            slot.woken_by, slot.move = slot.woken_by or before.woken_by, slot.move or before.move
            slot.on_awake += before.on_awake
            self.pump(slot)

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
            rows.append(eventing.agent_event("agent.suspended", slot.namespace, slot.name, slot.suspended_by, now))
        self._node.commit("release", rows, partial(self._let_gone, slot))

    def _let_gone(self, slot: Slot, outcome: str, detail: str) -> None:
        held = self._node.slots.holds(slot)
        if held and outcome == "error" and slot.host is not None:  # the store is in trouble: the host forgot it already
            self.fenced(slot, "releasing", outcome, detail)
            return
        more = slot.more or slot.coming is not None or slot.stale or slot.leave or outcome == "conflict"
        more = more or (slot.turn is not None and not slot.awaits)  # it was about to begin
        move = slot.move
        self.forget(slot)
        if held and move is not None:
            self._node.moving.left(slot.uid, move)
        elif held and more:
            self.ring(slot.uid)

    def forget(self, slot: Slot) -> None:
        """Drop the slot, and all that points at it; whoever forgets it sees to what comes next."""
        if slot.host is not None:
            self._node.hosts.turn_over(slot)
            slot.host.slots.discard(slot)
            self._node.hosts.idle(slot.host)
            slot.host = None
        self._node.turns.forget(slot)
        self._node.budgeting.ended(slot, committed=False)
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
        if turn is not None and not turn.proving and not detail.startswith(("NOT_READY", "STORAGE_FULL", "IN_DOUBT")):
            rows.append((sql.ATTEMPT, (uid, turn.message_id), -1))
        loop = asyncio.get_running_loop()

        def again(_outcome: str, _detail: str) -> None:
            loop.call_later(TROUBLE_S, self.ring, uid)

        self._node.commit("fenced", rows, again)

    def _orphan(self, uid: str, epoch: int, slot: Slot | None = None) -> None:
        """The row names an owner that does not hold the agent: take it away, and look again."""
        slot = slot or self._node.slots.get(uid)
        if slot is not None and slot.state == "free":
            self.forget(slot)
        row = (sql.RELEASE_EPOCH, (self._node.clock(), uid, epoch), -1)
        again = partial(self.ring, uid) if slot is None else partial(self._anew, slot)
        self._node.commit("orphan", [row], lambda outcome, _: again() if outcome == "ok" else None)
