"""External effects: admitted, judged, written ahead, executed once, confirmed.

The intent commits, fenced, before anything is sent; the lease is checked right before sending; the
receipt commits before the turn hears of it. A denial is journaled like an effect that failed. After a
crash an intent without a receipt is in doubt: done again under the same key if the effector says that
doing it twice is doing it once, otherwise answered as in doubt. Effectors run as tasks under a bound
each, so that a slow one holds nobody else.
"""

import asyncio
import logging
from dataclasses import replace
from typing import Any

import orjson
from pydantic import BaseModel

from controlplane.effects import journaling
from controlplane.effects.admission import admit
from controlplane.effects.entries import TurnRef
from controlplane.effects.guarding import judge
from controlplane.effects.hosts import Host
from controlplane.effects.node import Node
from controlplane.effects.segments import generations
from controlplane.effects.slots import Slot
from controlplane.resources.problems import problem, refuse
from controlplane.store import statements as sql
from schemas import faults
from schemas.effect import Verdict
from schemas.ports import Effector
from schemas.problem import Problem, Refusal
from schemas.wire import Ask, Receipt

log = logging.getLogger("steward.gate")
AT_ONCE_MAX = 16
SEND_WITHIN_S = 30.0
AGAIN_S = 0.5
RESULT_BYTES_MAX = 1_048_576
BRANCH = "0"


class Execution:
    """The effects of this gate's agents."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._bounds = {name: asyncio.Semaphore(AT_ONCE_MAX) for name in node.effectors}
        self._tasks: set[asyncio.Task[None]] = set()
        self._open: set[tuple[str, int]] = set()

    def asked(self, host: Host, frame: Ask) -> None:
        """An effect, asked for the first time or again by a replay."""
        slot = self._node.turns.of(host, frame.turn_id, frame.epoch)
        if slot is None or slot.turn is None or frame.branch != BRANCH or slot.effects:
            return
        if frame.position < slot.turn.entries:
            slot.effects.add(frame.position)
            self._again(slot, slot.turn, frame)
        elif frame.position == slot.turn.entries + len(frame.entries):
            if not self._node.turns.refused(slot, slot.turn, frame.entries):
                slot.effects.add(frame.position)
                self._first(slot, slot.turn, frame)
        else:
            log.warning("%s asked for an effect at %d, out of place", slot.address, frame.position)
            host.wire.close()

    def _first(self, slot: Slot, turn: TurnRef, frame: Ask) -> None:
        verdict, refused, act = self._decided(slot, frame)
        now = self._node.clock()
        next_generations = generations(self._node.reader, turn, frame.entries)
        send_by, steady_by = now + SEND_WITHIN_S, self._node.steady() + SEND_WITHIN_S
        rows, after = journaling.intent(turn, frame, verdict.model_dump_json(), send_by, now, next_generations)
        told = b"" if refused is None else refused.model_dump_json().encode()
        if refused is not None:
            rows += journaling.receipt(frame.turn_id, frame.branch, frame.position, "failed", told, now)
            rows.append(_denied(turn, frame, refused, now))
        grown = replace(turn, recorded=True, entries=turn.entries + len(frame.entries) + 1)

        def written(outcome: str, detail: str) -> None:
            if outcome != "ok":
                self._node.ownership.fenced(slot, "intending", outcome, detail)
                return
            if slot.turn is turn:
                slot.turn = grown
            self._node.turns.settle(after)
            if refused is not None:
                self._tell(frame, "failed", told, now)
            elif act is not None and self._still(slot, frame):
                self._start(slot, frame, *act, steady_by)

        self._node.commit("intent", rows, written)

    def _decided(self, slot: Slot, frame: Ask) -> tuple[Verdict, Problem | None, tuple[Effector, BaseModel] | None]:
        grants = (slot.spec.get("mandate") or {}).get("grants") or []
        connection = frame.connection or None
        verdict = judge(frame.effect, connection, grants)
        if verdict.outcome != "allow":
            detail = f"the mandate of {slot.address} does not grant {frame.effect}" + (
                f" over {connection}" if connection else ""
            )
            refused = problem("NOT_GRANTED", detail, effect=frame.effect, connection=connection, agent=slot.address)
            return verdict, refused, None
        arguments = orjson.loads(frame.arguments)
        most = int(slot.limits.get("effects_max", 1000))
        admitted = admit(frame.effect, arguments, frame.position, most, self._node.effectors)
        if isinstance(admitted, Problem):
            return verdict, admitted, None
        return verdict, None, admitted

    def _again(self, slot: Slot, turn: TurnRef, frame: Ask) -> None:
        """An intent of before: it is on its way, or was answered meanwhile, or nobody knows."""
        if (frame.turn_id, frame.position) in self._open:
            return  # it will be told
        row = self._node.reader.one(sql.RECEIPT_AT, frame.turn_id, frame.position)
        if row is None:
            self._node.ownership.fenced(slot, "asking again", "conflict", "there is no intent")
            return
        if row[0] is not None:
            self._tell(frame, row[0], (row[1] or "null").encode(), row[2])
            return
        effector = self._node.effectors.get(frame.effect)
        if effector is not None and effector.repeats_safely:
            arguments = effector.arguments.model_validate(orjson.loads(frame.arguments))
            self._start(slot, frame, effector, arguments, self._node.steady() + SEND_WITHIN_S)
            return
        found = _in_doubt(frame, "was sent before a crash")
        self._confirm(slot, frame, turn, "in_doubt", found.model_dump_json().encode())

    # Acting

    def _start(self, slot: Slot, frame: Ask, effector: Effector, arguments: BaseModel, send_by: float) -> None:
        self._open.add((frame.turn_id, frame.position))
        task = asyncio.get_running_loop().create_task(self._act(slot, frame, effector, arguments, send_by))
        self._tasks.add(task)
        task.add_done_callback(lambda ended: self._acted(ended, slot, frame, effector))

    async def _act(self, slot: Slot, frame: Ask, effector: Effector, arguments: BaseModel, send_by: float) -> Any:
        """Send, if the turn still has its host and it is not too late; what comes back is the task's."""
        async with self._bounds[effector.name]:
            if not self._still(slot, frame):
                raise Unsent
            if self._node.steady() > send_by:
                detail = f"{effector.name} had no place for it within {SEND_WITHIN_S:g} s; it was not sent"
                raise refuse("EFFECT_FAILED", detail, effect=effector.name)
            async with asyncio.timeout(effector.timeout_s):
                key = f"{frame.turn_id}:{frame.branch}:{frame.position}"
                faults.at("gate.effect.sending")
                told = orjson.dumps(await effector.execute(arguments, key))
                faults.at("gate.effect.sent")
                return told

    def _acted(self, task: "asyncio.Task[Any]", slot: Slot, frame: Ask, effector: Effector) -> None:
        """Whatever an effector raises, the turn gets a receipt."""
        self._tasks.discard(task)
        if task.cancelled() or isinstance(task.exception(), Unsent):
            self._open.discard((frame.turn_id, frame.position))
            return
        outcome, told = _receipt(task, frame, effector)
        self._confirm(slot, frame, slot.turn, outcome, told)

    def _confirm(self, slot: Slot, frame: Ask, turn: TurnRef | None, outcome: str, told: bytes) -> None:
        now = self._node.clock()
        rows = journaling.receipt(frame.turn_id, frame.branch, frame.position, outcome, told, now)
        if outcome == "in_doubt" and turn is not None:
            data = {"effect": frame.effect, "position": frame.position}
            rows.append(journaling.event("effect.in_doubt", turn, data, now))

        def confirmed(committed: str, detail: str) -> None:
            if committed == "error" and detail.startswith(("NOT_READY", "STORAGE_FULL")):
                asyncio.get_running_loop().call_later(AGAIN_S, self._confirm, slot, frame, turn, outcome, told)
                return
            self._open.discard((frame.turn_id, frame.position))
            if committed == "ok":
                self._tell(frame, outcome, told, now)
            else:
                self._node.ownership.fenced(slot, "confirming", committed, detail)

        self._node.commit("receipt", rows, confirmed)

    def _still(self, slot: Slot, frame: Ask) -> bool:
        """Whether the turn that asked still has its host."""
        turn = slot.turn
        return (
            turn is not None
            and turn.turn_id == frame.turn_id
            and slot.host is not None
            and slot.host.alive(self._node.steady())
        )

    def _tell(self, frame: Ask, outcome: str, told: bytes, at: float) -> None:
        """Tell the turn, wherever it runs by now."""
        slot = self._node.turns.running(frame.turn_id)
        if slot is not None and slot.host is not None and frame.position in slot.effects:
            slot.effects.discard(frame.position)
            slot.host.wire.send(Receipt(frame.turn_id, frame.branch, frame.position, outcome, told, at))


class Unsent(Exception):  # noqa: N818 - a state: the host was lost before the effect was sent; its successor asks again
    """Nothing was sent."""


def _receipt(task: "asyncio.Task[Any]", frame: Ask, effector: Effector) -> tuple[str, bytes]:
    """What came of it, as the receipt says it."""
    error = task.exception()
    if error is None:
        told: bytes = task.result()
        if len(told) <= RESULT_BYTES_MAX:
            return "succeeded", told
        detail = f"{effector.name} answered {len(told)} bytes, {RESULT_BYTES_MAX} at most"
        found = problem("EFFECT_FAILED", detail, effect=effector.name, bytes=len(told), max=RESULT_BYTES_MAX)
    elif isinstance(error, Refusal):
        found = error.problem
    elif isinstance(error, TimeoutError) and not effector.repeats_safely:
        return "in_doubt", _in_doubt(
            frame, f"did not answer within {effector.timeout_s:g} s"
        ).model_dump_json().encode()
    else:
        said = f"no answer within {effector.timeout_s:g} s" if isinstance(error, TimeoutError) else str(error)
        detail = f"{effector.name}: {type(error).__name__}: {said}"[:1000]
        found = problem("EFFECT_FAILED", detail, effect=effector.name, error=type(error).__name__)
    return "failed", found.model_dump_json().encode()


def _in_doubt(frame: Ask, why: str) -> Problem:
    detail = f"{frame.effect} {why}, and nobody knows whether it happened"
    return problem("IN_DOUBT", detail, effect=frame.effect, turn_id=frame.turn_id, position=frame.position)


def _denied(turn: TurnRef, frame: Ask, refused: Problem, now: float) -> Any:
    data = {"effect": frame.effect, "connection": frame.connection or None, "reason": refused.reason}
    kind = "effect.denied" if refused.reason == "NOT_GRANTED" else "effect.refused"
    return journaling.event(kind, turn, data, now)
