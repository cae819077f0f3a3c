"""kill -9 around the sending of effects, against a far side that honours keys and one that ignores them."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tests.faults.points import Arming, around, moments, supervised
from tests.gate.counting import counting
from tests.gate.far import HELD, HONOURED, IGNORED, connected, grants, request, settle
from tests.gate.running import RunningGate, running, true
from tests.gate.zoo import SOURCE

pytestmark = pytest.mark.anyio
BOUNDS: dict[str, Any] = {"send_within_s": 2.5, "hold_s": 60}
LIMITS = {"timeout_s": 0.5}
AROUND = ("gate.effect.sending", "gate.effect.sent", "gate.receipt.before")
UNITS = ("hold", "resend", "settle")
CASES = [[around(unit)[n] for unit in UNITS] for n in range(len(moments(UNITS[0])))]
FIRES = frozenset([*AROUND, *around(*UNITS)])


async def _noters(gate: RunningGate) -> None:
    code = await gate.code(SOURCE)
    for name in ("keyed", "bare"):
        await gate.agent(name, code, "Noter", suspend_after_ms=50, **grants(name))


async def _ask(gate: RunningGate, name: str, mark: str) -> Any:
    return await gate.ask(name, request(name), mark, 40)


async def test_the_gate_dies_around_sending(quick_url: str, tmp_path: Path, arming: Arming) -> None:
    """Honoured keys: done exactly once. Ignored ones: at most once, and held until an operator says what it was."""
    async with (
        counting() as honest, counting(honours=False) as forgetful,
        running(quick_url, **BOUNDS) as gate, supervised(gate),
    ):  # fmt: skip
        await _noters(gate)
        await connected(gate, "keyed", honest, HONOURED, limits=LIMITS)
        await connected(gate, "bare", forgetful, IGNORED, limits=LIMITS)
        for n, point in enumerate(AROUND):
            forgetful.acts.clear()
            arming.arm(point)
            answers = [asyncio.create_task(_ask(gate, name, f"m{n}-{name}")) for name in ("keyed", "bare")]
            await arming.fired()
            assert (await answers[0])["json"] == {"done": n}, "an honoured key needs no operator"
            assert len(honest.acts) == n + 1
            await gate.until(HELD, lambda rows, bare=answers[1]: bool(rows) or bare.done())  # type: ignore[misc]
            if not answers[1].done():
                turn = (await gate.rows(HELD))[0][0]
                await settle(gate, turn, "succeeded", result={"json": {"done": 0}})
            assert (await answers[1])["json"] == {"done": 0}
            assert len(forgetful.acts) <= 1, point
            assert await gate.rows(HELD) == []


@pytest.mark.parametrize("points", CASES, ids="-".join)
async def test_the_gate_dies_while_it_holds_sends_again_or_settles(
    quick_url: str, tmp_path: Path, arming: Arming, points: list[str]
) -> None:
    """Of a hold, of an operator's retry and of a settlement: each happens once, whenever the gate dies."""
    async with counting(honours=False) as far, running(quick_url, **BOUNDS) as gate, supervised(gate):
        await _noters(gate)
        await connected(gate, "bare", far, IGNORED, limits=LIMITS)
        arming.arm(*points)
        far.behave = ["lost", "lost"]
        asked = asyncio.create_task(_ask(gate, "bare", "m1"))
        turn = (await gate.until(HELD, bool))[0][0]
        await settle(gate, turn, "retry")
        await arming.fired(1)
        await gate.until(HELD, bool)
        await settle(gate, turn, "succeeded", result={"order": 1})
        assert await asked == {"order": 1}
        assert len(far.asked) <= 2, "sent by the turn, and once more by the operator's word"
        assert await gate.rows(HELD) == []
        assert arming.left() == []
        settled = await gate.rows("SELECT turn_id FROM event WHERE type = 'effect.settled'")
        assert len(settled) == 2


async def test_the_host_dies_while_the_effect_is_on_its_way(quick_url: str) -> None:
    """The gate goes on with it: done once, whatever the far side does with keys."""
    async with counting(honours=False) as far, running(quick_url, **BOUNDS) as gate, supervised(gate):
        await _noters(gate)
        await connected(gate, "bare", far, IGNORED, limits={"timeout_s": 5})
        far.late_s = 0.8
        asked = asyncio.create_task(_ask(gate, "bare", "m1"))
        await true(lambda: far.asked)
        gate.hosts[0].kill()
        assert (await asked)["json"] == {"done": 0}
        assert len(far.acts) == 1
