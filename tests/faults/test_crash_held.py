"""The gate dies while it frees the neighbours of a turn that holds its host."""

import asyncio

import pytest

from schemas.faults import MOMENTS
from tests.conftest import SOAK
from tests.faults.points import Arming, around, supervised
from tests.gate.running import running
from tests.gate.zoo import SOURCE

pytestmark = pytest.mark.anyio
UNITS = ("held", "freed")
CASES = [tuple(f"gate.{it}.{moment}" for it in UNITS) for moment in MOMENTS] if SOAK else [tuple(around(*UNITS))]
FIRES = frozenset(point for case in CASES for point in case)


@pytest.mark.parametrize("moments", CASES, ids=str)
async def test_the_gate_dies_while_it_frees_who_is_held_up(
    sqlite_url: str, arming: Arming, moments: tuple[str, ...]
) -> None:
    """The next gate goes on: everybody is answered, and nothing is counted twice."""
    async with running(sqlite_url, hosts=2, lease_s=20.0, loop_held_s_max=1.0) as gate, supervised(gate, hosts=2):
        code = await gate.code(SOURCE)
        await gate.agent("counter", code, "Counter", suspend_after_ms=60_000)
        await gate.agent("slow", code, "Slow", suspend_after_ms=60_000)
        await gate.agent("ledger", code, "Ledger")
        await gate.until("SELECT 1 FROM turn WHERE finished_at > 0", lambda rows: len(rows) == 3)
        arming.arm(*moments)
        for n in range(2):
            slow = asyncio.create_task(gate.ask("slow", 2.5, f"s{n}", 40))
            await asyncio.sleep(0.1)
            counted = asyncio.create_task(gate.ask("counter", n, f"m{n}", 40))
            assert await counted == n + 1
            assert await slow == "done"
            if arming.left() == []:
                break
        assert arming.left() == []
        got = (await gate.ask("counter", "count", "c"))["got"]
        assert got == list(range(len(got)))
