"""What an effect would touch is counted before it is judged (rule G6), and the turn's other units wait for that.

An effector that previews answers magnitudes and what the connection allows of them. They stand in the
verdict as features; what is more than allowed is denied; and what was judged goes with the effect, which
its effector must not pass. What can not be counted is not sent.
"""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import orjson

from controlplane.effects.guarding import measured
from controlplane.effects.node import Node
from controlplane.effects.reading import Away
from controlplane.effects.sending import Act
from controlplane.effects.slots import Slot
from controlplane.effects.turnref import TurnRef
from controlplane.protocols.scrubbing import encodable, scrubbed, shortened
from controlplane.resources.problems import problem
from schemas.effect import Verdict
from schemas.ports import EffectCall, Preview, Previewed
from schemas.problem import Problem, Refusal
from schemas.wire import Ask

Judged = Callable[[Slot, TurnRef, Ask, Verdict, Act | Problem], None]
Place = Callable[[Act, float], Any]
Key = tuple[str, str, int]
WHY_CHARS_MAX = 1000
AGAIN_S = 0.5


class Previewing:
    """The effects of this gate's agents that are being counted."""

    def __init__(self, node: Node, place: Place) -> None:
        self._node = node
        self._place = place
        self._open: dict[Key, asyncio.Task[Previewed]] = {}

    def begin(
        self, slot: Slot, turn: TurnRef, frame: Ask, verdict: Verdict, act: Act, send_by: float, judged: Judged
    ) -> None:
        """Count, then go on with the judged effect, unless the attempt at its turn is over by then."""
        key = frame.turn_id, frame.branch, frame.position
        slot.writing = True
        loop = asyncio.get_running_loop()
        task = self._open[key] = loop.create_task(self._counted(act, send_by))

        def counted() -> None:
            if self._open.get(key) is not task:  # it is being counted for another attempt
                return
            there = slot.turn is turn and slot.epoch == frame.epoch and slot.host is not None and slot.writing
            if there and self._node.slots.holds(slot) and key[1:] in slot.effects and not task.cancelled():
                slot.writing = False
                try:
                    judged(slot, turn, frame, *self._verdict(task, verdict, act))
                except Away:  # it is judged when the database is back
                    slot.writing = True
                    loop.call_later(AGAIN_S, counted)
                    return
            del self._open[key]

        task.add_done_callback(lambda _: counted())

    async def _counted(self, act: Act, send_by: float) -> Previewed:
        effector = act.effector
        assert isinstance(effector, Preview)
        await effector.ready()
        async with self._place(act, send_by):
            link = None if act.declared is None else self._node.connections.link(act.declared)
            act.call = EffectCall("", link)
            async with asyncio.timeout(act.timeout_s):
                return await effector.preview(act.arguments, link)

    def _verdict(self, task: "asyncio.Task[Previewed]", verdict: Verdict, act: Act) -> tuple[Verdict, Act | Problem]:
        error = task.exception()
        if error is None:
            found = task.result()
            act.judged = dict(found.magnitudes)
            verdict = measured(verdict, found.magnitudes, found.most)
            return verdict, _beyond(act, found) if verdict.outcome == "deny" else act
        return measured(verdict, {}, {}), _uncounted(error, act)


def judged_before(verdict: str | None) -> dict[str, int]:
    """The magnitudes that an effect was judged by when it was written ahead."""
    features = orjson.loads(verdict or "{}").get("features") or {}
    return {name: it["value"] for name, it in features.items() if isinstance(it["value"], int) and it["known"]}


def _beyond(act: Act, found: Previewed) -> Problem:
    name, value, most = next(
        (name, value, most)
        for name, value in found.magnitudes.items()
        if (most := found.most.get(name)) is not None and value > most
    )
    connection = act.declared.name if act.declared is not None else None
    detail = f"{act.effector.name} would touch {value} {name}, and connection {connection} allows {most}"
    about: dict[str, Any] = {"effect": act.effector.name, "connection": connection, "value": value}
    return problem("LIMIT_REACHED", detail, limit=f"{name}_max", max=most, **about)


def _uncounted(error: BaseException, act: Act) -> Problem:
    """Why it was not sent."""
    if isinstance(error, Refusal):
        found = error.problem
    else:
        why = "it took too long" if isinstance(error, TimeoutError) else str(error)
        detail = f"{act.effector.name} was not sent: what it would touch can not be counted: {why}"
        detail = shortened(encodable(detail), WHY_CHARS_MAX, act.secret)
        found = problem("EFFECT_FAILED", detail, effect=act.effector.name, error=type(error).__name__)
    told: Mapping[str, Any] = scrubbed(found.model_dump(mode="json"), act.secret)
    return Problem.model_validate(told)
