"""External effects: admitted, judged, written ahead, executed once, confirmed.

The intent commits, fenced, before anything is sent; the lease is checked right before sending; the receipt commits
before anything that the turn builds on it, which hears of it meanwhile (`handing`). A denial is journaled like an
effect that failed. After a crash an intent without a receipt is in doubt: sent again under the same key while the
effector says that this is safe, otherwise held for an operator (`holding`). Effectors run as tasks under a bound
each, so that a slow one holds nobody else; over a connection that bound is the connection's own.
"""

import asyncio
import logging
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Any

import orjson

from controlplane.economy import meters
from controlplane.economy.accounts import Work
from controlplane.effects import journaling
from controlplane.effects.admission import admit, roles_of
from controlplane.effects.budgeting import beyond, exceeded
from controlplane.effects.computing import awaited, denied
from controlplane.effects.guarding import featured, judge
from controlplane.effects.handing import UNCOUNTED, ahead
from controlplane.effects.hosts import Host
from controlplane.effects.known import Key, Known
from controlplane.effects.node import TURNS, Node
from controlplane.effects.previewing import Previewing, judged_before
from controlplane.effects.segments import outside
from controlplane.effects.sending import Act, Unsent, doubt_of, place, receipt_of, send, too_late
from controlplane.effects.slots import Slot
from controlplane.effects.telling import ended, telling
from controlplane.effects.turnref import Row, TurnRef, carried
from controlplane.protocols.finding import effector_of
from controlplane.resources.problems import problem
from controlplane.store import external
from controlplane.store import statements as sql
from schemas.branches import BRANCHES_MAX, ORDER, ROOT, is_branch
from schemas.effect import Verdict
from schemas.ports import Doubt, EffectCall, Lasting, Preview
from schemas.problem import Problem
from schemas.wire import Ask, Receipt

log = logging.getLogger("steward.gate")
AT_ONCE_MAX = 16
AGAIN_S = 0.5


class Execution:
    """The effects of this gate's agents."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._bounds = {name: asyncio.Semaphore(AT_ONCE_MAX) for name in node.effectors}
        self._tasks: set[asyncio.Task[None]] = set()
        self._open: dict[Key, str] = {}  # on its way; and why it is in doubt, if it is
        self._awaited: dict[Key, tuple[Slot, TurnRef, Ask]] = {}  # asked for again by a replay while it is on its way
        self._unsent = Known()  # intents that this gate knows were not sent
        self._ended = Known()  # in doubt, and nothing of it on its way any more
        self._previewing = Previewing(node, self._place)

    def flying(self, key: Key) -> bool:
        """Whether this gate still waits for what the far side says."""
        return key in self._open

    def ended(self, key: Key) -> bool:
        """Whether this gate itself sent it last, and listens no more: nothing of it is on its way."""
        return key in self._ended

    def asked(self, host: Host, frame: Ask) -> None:
        """An effect, asked for the first time or again by a replay; several, of as many branches."""
        self._node.turns.heard(host, frame, partial(self._asked, host, frame), partial(ahead, self._node, frame))

    def _asked(self, host: Host, frame: Ask, slot: Slot, turn: TurnRef) -> None:
        place = frame.branch, frame.position
        if place in slot.effects:
            return
        length = turn.length(frame.branch)
        here = is_branch(frame.branch) and len(slot.effects) < BRANCHES_MAX
        if turn.proving and (frame.entries or frame.position >= length or frame.branch == ROOT):
            at_end = not frame.entries and frame.position == length - 1
            self._node.upgrading.reached(slot, turn, here=at_end, waits={place}, held=True)
        elif here and frame.position < length:
            slot.effects.add(place)
            if turn.proving:  # all that it rests at is held, or was until a moment ago
                self._node.holding.still(slot, frame)
            else:
                self._again(slot, turn, frame)
        elif here and frame.position == length + sum(it.branch == frame.branch for it in frame.entries):
            if not self._node.turns.refused(slot, turn, frame.entries, asks=frame):
                slot.effects.add(place)
                self._first(slot, turn, frame)
        else:
            log.warning("%s asked for an effect at %s:%d, out of place", slot.address, *place)
            host.wire.close()

    def _first(self, slot: Slot, turn: TurnRef, frame: Ask) -> None:
        verdict, decided = self._decided(slot, turn, frame)
        if isinstance(decided, Act) and isinstance(decided.effector, Preview):
            self._previewing.begin(slot, turn, frame, verdict, decided, self._send_by(0.0)[1], self._judged)
        else:
            self._judged(slot, turn, frame, verdict, decided)

    def _judged(self, slot: Slot, turn: TurnRef, frame: Ask, verdict: Verdict, decided: Act | Problem) -> None:
        if isinstance(decided, Act) and (excess := self._node.budgeting.lacks(slot, frame, decided)) is not None:
            verdict = beyond(excess, verdict)
            if excess.action == "pause" and not excess.alone:
                self._node.budgeting.pause(slot, turn, frame, decided, excess)
                return
            if excess.action == "hold" and not turn.raises:
                self._ended.add(_key(frame))
                self._node.holding.hold_back(slot, turn, frame, verdict, excess)
                return
            decided = exceeded(excess, self._node.clock())
        refused = decided if isinstance(decided, Problem) else None
        now = self._node.clock()
        met = outside(self._node, slot, turn, frame.entries)
        send_by, steady_by = self._send_by(now)
        rows, after = journaling.intent(turn, frame, verdict.model_dump_json(), send_by, now, met)
        lasts = isinstance(decided, Act) and isinstance(decided.effector, Lasting)
        rows += [awaited(turn, frame, decided, now)] if lasts and isinstance(decided, Act) else []
        told = b"" if refused is None else refused.model_dump_json().encode()
        if refused is not None:
            rows += journaling.receipt(frame.turn_id, frame.branch, frame.position, "failed", told, now)
            rows.append(journaling.denied(turn, frame, refused, now))
        branches = [*(it.branch for it in frame.entries), frame.branch]

        def written(outcome: str, detail: str) -> None:
            if outcome != "ok":
                self._node.budgeting.over(frame)
                unsure = outcome == "conflict" and slot.turn is not None and slot.turn.given
                self._node.ownership.fenced(slot, "intending", outcome, UNCOUNTED if unsure else detail)
                return
            if slot.turn is not None and slot.turn.is_at(turn):
                slot.turn = slot.turn.grown(branches)
            self._node.turns.settle(after)
            if isinstance(decided, Problem):
                self._tell(frame, "failed", told, now)
            elif lasts:
                self._node.computing.begun(slot, frame)
            else:
                self._start(slot, frame, decided, steady_by)
            self._node.turns.wrote(slot)

        slot.writing = True
        self._node.commit("intent", rows, written, slot.lane if turn.given else TURNS)

    def _send_by(self, now: float) -> tuple[float, float]:
        """Until when an effect is sent, by the clock of the records and by the steady one."""
        within_s = self._node.bounds.send_within_s
        return now + within_s, self._node.steady() + within_s

    def _decided(self, slot: Slot, turn: TurnRef, frame: Ask) -> tuple[Verdict, Act | Problem]:
        grants = (slot.spec.get("mandate") or {}).get("grants") or []
        connection = frame.connection or None
        verdict = judge(frame.effect, connection, grants, enforced=slot.host is not None and slot.host.enforced)
        if verdict.outcome != "allow":
            over = f" over {connection}" if connection else ""
            detail = f"the mandate of {slot.address} does not grant {frame.effect}{over}"
            refused = problem("NOT_GRANTED", detail, effect=frame.effect, connection=connection, agent=slot.address)
            return verdict, refused
        before = turn.entries - turn.length(ORDER) + sum(it.branch != ORDER for it in frame.entries)
        decided = self._act_of(slot, frame, before)
        if isinstance(decided, Act) and (roles := roles_of(decided.effector)):
            verdict = featured(verdict, roles=roles)
        return verdict, decided

    def _act_of(self, slot: Slot, frame: Ask, effects: int) -> Act | Problem:
        """What is to be done, over which connection; or why it can not be."""
        most = int(slot.limits.get("effects_max", 1000))
        name = frame.connection or None
        declared = self._node.connections.named(slot.namespace, name) if name is not None else None
        given, over = orjson.loads(frame.arguments), (slot.namespace, name, declared)
        admitted = admit(frame.effect, given, effects, most, self._node.effectors, *over)
        act = admitted if isinstance(admitted, Problem) else Act(*admitted, declared, who=slot.who)
        return act if isinstance(act, Problem) else denied(slot, act) or act

    def _again(self, slot: Slot, turn: TurnRef, frame: Ask) -> None:
        """An intent of before: it is on its way, or was answered meanwhile, or nobody knows."""
        key = _key(frame)
        doubt = self._open.get(key)
        held = self._node.reader.one(external.HELD_AT, *key)
        if held is not None and held[3] is None:
            self._node.holding.still(slot, frame)
            return
        if doubt is not None:
            if doubt:
                self._node.holding.hold(frame, doubt)
            self._awaited[key] = slot, turn, frame  # it will be told
            return
        row = self._node.reader.one(sql.RECEIPT_AT, *key)
        if row is None:
            self._node.ownership.fenced(slot, "asking again", "conflict", "there is no intent")
            return
        if row[0] is not None:
            self._tell(frame, row[0], (row[1] or "null").encode(), row[2])
            return
        retried = held is not None and held[3] == "retry"
        if isinstance(effector_of(frame.effect, self._node.effectors, None), Lasting) and not retried:
            self._node.computing.waits(slot, frame)
            return
        act = self._act_of(slot, frame, frame.position)
        if isinstance(act, Problem):
            self._node.holding.hold(frame, f"was sent before a crash, and can not be sent again: {act.detail}")
            return
        act.age_s, act.judged = max(0.0, self._node.clock() - row[3]), judged_before(row[4])
        if held is not None and retried:
            self._resend(slot, turn, frame, act, held[0])
        elif (known := key in self._unsent) or self._repeats(act, row[3]):
            act.unsent = known
            self._unsent.discard(key)
            self._resend(slot, turn, frame, act, None)
        else:
            self._node.budgeting.doubted(slot, frame, act)
            self._node.holding.hold(frame, "was sent before a crash")

    def _repeats(self, act: Act, intended_at: float) -> bool:
        """Whether it may be sent once more under its key: even the latest moment is within the key's life."""
        latest = self._node.clock() + self._node.bounds.send_within_s + act.timeout_s
        return latest < intended_at + act.repeats_for_s

    def _resend(self, slot: Slot, turn: TurnRef, frame: Ask, act: Act, retry_of: str | None) -> None:
        """Write ahead that it is sent once more, then send it."""
        send_by, steady_by = self._send_by(self._node.clock())
        self._node.budgeting.reserve(slot, frame, act)
        rows = journaling.intent_again(turn, frame, send_by, retry_of, self._node.clock())
        lasts = isinstance(act.effector, Lasting)
        rows += [awaited(turn, frame, act, self._node.clock())] if lasts else []

        def written(outcome: str, detail: str) -> None:
            if outcome != "ok":
                self._node.budgeting.over(frame)
                if act.unsent:
                    self._not_sent(frame)
                self._node.ownership.fenced(slot, "sending again", outcome, detail)
                return
            if lasts:
                self._node.computing.begun(slot, frame)
            else:
                self._start(slot, frame, act, steady_by)
            self._node.turns.wrote(slot)

        slot.writing = True
        self._node.commit("resend", rows, written)

    # Acting

    def _start(self, slot: Slot, frame: Ask, act: Act, send_by: float) -> None:
        if not self._still(slot, frame):
            self._later(slot, frame, act, send_by)
            return
        key = _key(frame)
        self._open[key] = ""
        self._ended.discard(key)
        self._unsent.discard(key)
        task = asyncio.get_running_loop().create_task(self._act(slot, frame, act, send_by))
        self._tasks.add(task)
        task.add_done_callback(lambda it: self._acted(it, slot, frame, act, send_by))

    def _later(self, slot: Slot, frame: Ask, act: Act, send_by: float) -> None:
        """A turn whose host's lease is over has it again soon, when only this gate was late; or it has lost it."""
        self._not_sent(frame)
        if self._with_host(slot, frame):
            asyncio.get_running_loop().call_later(AGAIN_S, self._once_more, slot, frame, act, send_by)
        else:
            self._node.budgeting.over(frame)

    def _once_more(self, slot: Slot, frame: Ask, act: Act, send_by: float) -> None:
        """Unless the turn has lost its host meanwhile; then a replay may have had it sent already."""
        if self._with_host(slot, frame):
            self._start(slot, frame, act, send_by)
        elif _key(frame) in self._unsent:
            self._node.budgeting.over(frame)

    def _not_sent(self, frame: Ask) -> None:
        """It was written ahead, and certainly not sent: whoever asks again may have it sent."""
        self._unsent.add(_key(frame))

    async def _act(self, slot: Slot, frame: Ask, act: Act, send_by: float) -> Any:
        """Send, if the turn still has its host and it is not too late; what comes back is the task's."""
        await act.effector.ready()
        async with self._place(act, send_by):
            declared, turn = act.declared, slot.turn
            act.telling = None if turn is None else telling(self._node, turn, frame, act)
            act.call = EffectCall(
                f"{frame.turn_id}:{frame.branch}:{frame.position}",
                None if declared is None else self._node.connections.link(declared),
                None if act.telling is None else act.telling.part,
                **carried(turn),
                namespace=slot.namespace,
                agent=slot.name,
                judged=act.judged,
                sees=partial(self._node.connections.named, slot.namespace),
            )

            def may() -> None:
                if not self._still(slot, frame):
                    raise Unsent
                if self._node.steady() > send_by:
                    raise too_late(act)

            def doubted(why: str) -> None:
                if turn is not None and turn.raises:  # it goes on waiting, for as long as anything may come
                    return
                self._open[_key(frame)] = why
                self._node.holding.hold(frame, why)  # ours: it is late

            return await send(act, may, doubted)

    def _place(self, act: Act, send_by: float) -> AbstractAsyncContextManager[None]:
        return place(act, self._node.connections, self._bounds, send_by)

    def _acted(self, task: "asyncio.Task[Any]", slot: Slot, frame: Ask, act: Act, send_by: float) -> None:
        """Whatever an effector raises, the turn gets a receipt, or an operator the question."""
        self._tasks.discard(task)
        key = _key(frame)
        again = self._awaited.pop(key, None)
        if task.cancelled() or isinstance(task.exception(), Unsent):
            self._open.pop(key, None)
            self._not_sent(frame)
            if again is not None and self._with_host(again[0], again[2]):
                self._node.budgeting.over(frame)
                self._node.turns.in_line(again[0], lambda: self._again(*again))
            else:
                self._later(slot, frame, act, send_by)
            return
        error = task.exception()
        if isinstance(error, Doubt) and not act.effector.reads_only:
            held = self._open.pop(key, "")
            self._ended.add(key)
            self._node.budgeting.doubts(slot.uid, key)
            if not held:
                self._node.holding.hold(frame, doubt_of(str(error), act))
            return
        outcome, told = receipt_of(task, act)
        amounts = meters.of_effect(len(frame.arguments), len(told), act.used)
        used = Work(act.who or slot.who, slot.labels, meters.What(frame.effect, frame.connection or ""), amounts)
        self._confirm(slot, frame, outcome, told, used, ended(act, outcome), act)

    def _confirm(
        self, slot: Slot, frame: Ask, outcome: str, told: bytes, used: Work, last: list[Row], act: Act, tries: int = 1
    ) -> None:
        now, key = self._node.clock(), _key(frame)
        late = bool(self._open.get(key))
        rows = journaling.receipt(frame.turn_id, frame.branch, frame.position, outcome, told, now, late=late)
        rows += [*meters.rows(used.who, used.what, used.amounts, now), *last]

        def confirmed(committed: str, detail: str) -> None:
            if committed == "error" and detail.startswith(("NOT_READY", "STORAGE_FULL")):
                handed(False)  # noqa: FBT003
                more = outcome, told, used, last, act, tries + 1
                asyncio.get_running_loop().call_later(AGAIN_S, self._confirm, slot, frame, *more)
                return
            self._open.pop(key, None)
            self._awaited.pop(key, None)
            self._node.budgeting.over(frame, used if committed == "ok" else None)
            if committed != "ok":
                self._node.ownership.fenced(slot, "confirming", committed, detail)
                handed(False)  # noqa: FBT003  # behind that, which counts
                return
            handed(True)  # noqa: FBT003
            self._tell(frame, outcome, told, now)
            if act.telling is not None:
                act.telling.kick()
            if late:
                self._node.ownership.ring(slot.uid)

        hears = self._node.handing.hears(key) if not late and tries == 1 else None
        self._node.commit("receipt", rows, confirmed, patient=not last and self._node.handing.patient(hears))
        handed = self._node.handing.confirmed(hears, key, now, partial(self._tell, frame, outcome, told, now))

    def _still(self, slot: Slot, frame: Ask) -> bool:
        """Whether the turn that asked still has its host, and the host its lease."""
        return self._with_host(slot, frame) and slot.host is not None and slot.host.alive(self._node.steady())

    def _with_host(self, slot: Slot, frame: Ask) -> bool:
        """Whether nobody has taken the turn that asked from its host."""
        turn, place = slot.turn, (frame.branch, frame.position)
        ours = turn is not None and turn.turn_id == frame.turn_id and slot.epoch == frame.epoch
        return ours and slot.host is not None and place in slot.effects

    def _tell(self, frame: Ask, outcome: str, told: bytes, at: float) -> None:
        """Tell the turn, wherever it runs by now."""
        slot = self._node.turns.running(frame.turn_id)
        place = frame.branch, frame.position
        if slot is not None and slot.host is not None and place in slot.effects:
            slot.effects.discard(place)
            slot.held.discard(place)
            slot.told.add(place)
            slot.said += 1
            slot.host.wire.send(Receipt(frame.turn_id, frame.branch, frame.position, outcome, told, at))


def _key(frame: Ask) -> Key:
    return frame.turn_id, frame.branch, frame.position
