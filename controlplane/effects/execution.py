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
from controlplane.effects.slots import Slot
from controlplane.resources.problems import problem
from controlplane.store import statements as sql
from schemas.effect import Verdict
from schemas.ports import Effector
from schemas.problem import Problem, Refusal
from schemas.wire import Ask, Receipt

log = logging.getLogger("steward.gate")
AT_ONCE_MAX = 16
SEND_WITHIN_S = 30.0


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
        if slot is None or slot.turn is None:
            return
        slot.effects.add(frame.position)
        row = self._node.reader.one(sql.RECORDED_AT, frame.turn_id, frame.position)
        if row is not None:
            self._again(slot, slot.turn, frame)
            return
        self._first(slot, slot.turn, frame)

    def _first(self, slot: Slot, turn: TurnRef, frame: Ask) -> None:
        verdict, refused, act = self._decided(slot, frame)
        now = self._node.clock()
        generations = self._node.turns.generations(slot, frame.entries)
        send_by = now + SEND_WITHIN_S
        rows, after = journaling.intent(turn, frame, verdict.model_dump_json(), send_by, now, generations)
        if refused is not None:
            told = refused.model_dump(mode="json")
            rows += journaling.receipt(frame.turn_id, frame.branch, frame.position, "failed", orjson.dumps(told), now)
            rows.append(_denied(turn, frame, refused, now))
        grown = replace(turn, recorded=True, entries=turn.entries + len(frame.entries) + 1)

        def written(outcome: str, detail: str) -> None:
            if outcome != "ok":
                self._node.turns.fenced(slot, "intending", outcome, detail)
                return
            if slot.turn is turn:
                slot.turn = grown
            self._node.turns.settle(after)
            if refused is not None:
                self._tell(slot, frame, "failed", orjson.dumps(refused.model_dump(mode="json")), now)
            elif act is not None and self._still(slot, frame) and self._node.clock() < send_by:
                self._start(slot, frame, *act)

        self._node.commit(rows, written)

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
        """An intent without a receipt, asked for again by a replay."""
        if (frame.turn_id, frame.position) in self._open:
            return  # it is on its way, and will be told
        effector = self._node.effectors.get(frame.effect)
        if effector is not None and effector.repeats_safely:
            self._start(slot, frame, effector, effector.arguments.model_validate(orjson.loads(frame.arguments)))
            return
        detail = f"{frame.effect} was sent before a crash, and nobody knows whether it happened"
        found = problem("IN_DOUBT", detail, effect=frame.effect, turn_id=frame.turn_id, position=frame.position)
        told = orjson.dumps(found.model_dump(mode="json"))
        now = self._node.clock()
        event = journaling.event("effect.in_doubt", turn, {"effect": frame.effect, "position": frame.position}, now)
        self._confirm(slot, frame, "in_doubt", told, [event])

    # Acting

    def _start(self, slot: Slot, frame: Ask, effector: Effector, arguments: BaseModel) -> None:
        self._open.add((frame.turn_id, frame.position))
        task = asyncio.get_running_loop().create_task(self._act(slot, frame, effector, arguments))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _act(self, slot: Slot, frame: Ask, effector: Effector, arguments: BaseModel) -> None:
        key = f"{frame.turn_id}:{frame.branch}:{frame.position}"
        async with self._bounds[effector.name]:
            outcome, told = await _executed(effector, arguments, key)
        self._open.discard((frame.turn_id, frame.position))
        self._confirm(slot, frame, outcome, told, [])

    def _confirm(self, slot: Slot, frame: Ask, outcome: str, told: bytes, rows: list[Any]) -> None:
        now = self._node.clock()
        rows = [*journaling.receipt(frame.turn_id, frame.branch, frame.position, outcome, told, now), *rows]

        def confirmed(committed: str, detail: str) -> None:
            if committed == "ok":
                self._tell(slot, frame, outcome, told, now)
            else:
                log.warning("receipt of %s at %d: %s %s", frame.turn_id, frame.position, committed, detail)
                if self._still(slot, frame):
                    self._node.turns.fenced(slot, "confirming", committed, detail)

        self._node.commit(rows, confirmed)

    def _still(self, slot: Slot, frame: Ask) -> bool:
        """Whether the turn that asked is still this one."""
        return slot.turn is not None and slot.turn.turn_id == frame.turn_id and slot.host is not None

    def _tell(self, slot: Slot, frame: Ask, outcome: str, told: bytes, now: float) -> None:
        """Tell the turn, wherever it runs by now."""
        here = self._node.slots.get(slot.uid)
        if here is None or here.turn is None or here.turn.turn_id != frame.turn_id or here.host is None:
            return
        here.effects.discard(frame.position)
        here.host.wire.send(Receipt(frame.turn_id, frame.branch, frame.position, outcome, told, now))


async def _executed(effector: Effector, arguments: BaseModel, key: str) -> tuple[str, bytes]:
    """What came of it, as the receipt says it."""
    try:
        async with asyncio.timeout(effector.timeout_s):
            return "succeeded", orjson.dumps(await effector.execute(arguments, key))
    except Refusal as refusal:
        return "failed", orjson.dumps(refusal.problem.model_dump(mode="json"))
    except (TimeoutError, OSError, ValueError, TypeError, RuntimeError) as error:
        detail = f"{effector.name}: {type(error).__name__}: {error}".strip()
        found = problem("EFFECT_FAILED", detail, effect=effector.name, error=type(error).__name__)
        return "failed", orjson.dumps(found.model_dump(mode="json"))


def _denied(turn: TurnRef, frame: Ask, refused: Problem, now: float) -> Any:
    data = {"effect": frame.effect, "connection": frame.connection or None, "reason": refused.reason}
    kind = "effect.denied" if refused.reason == "NOT_GRANTED" else "effect.refused"
    return journaling.event(kind, turn, data, now)
