"""A suspended agent is rows, and nothing else: no object of it lives in the gate."""

import asyncio
import signal
import time
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.gate.census import NAMED, NONE
from tests.gate.running import RunningGate, running

pytestmark = pytest.mark.anyio
SOURCE = """
from ray_runtime import Agent


class Sleeper(Agent):
    async def on_start(self, turn):
        turn.timer("later", every_s=3600)

    async def on_message(self, turn, envelope):
        if envelope.data == "wait":
            await turn.sleep(3600)
        return envelope.data
"""
MANY = 200


def counted(gate: RunningGate, path: Path) -> dict[str, Any]:
    """What there is in the gate, once nothing but one slot is left, or when the time is over.

    How much more an inbox takes is kept of so many that were sent to last, and no more: that is let be.
    """
    limit = time.monotonic() + 20
    while True:
        told_by = time.monotonic() + 10
        path.unlink(missing_ok=True)
        assert gate.gate is not None
        gate.gate.send_signal(signal.SIGUSR1)
        while not path.exists():
            assert time.monotonic() < told_by, "the gate did not tell"
            time.sleep(0.01)
        found: dict[str, Any] = orjson.loads(path.read_bytes())
        found["naming"] = [it for it in found["naming"] if "_Room(" not in it]
        if (found["Slot"] <= 1 and not found["naming"]) or time.monotonic() > limit:
            return found


async def test_a_suspended_agent_has_no_live_object(quick_url: str, tmp_path: Path) -> None:
    """Two hundred were awake: half of them are asleep within a turn, all of them have a timer. One that is awake is
    counted, so what is not counted is not there.
    """
    path = tmp_path / "census.json"
    async with running(quick_url, census_to=str(path), replay_one_in=0) as gate:
        code = await gate.code(SOURCE)
        awake = await gate.agent("awake", code, "Sleeper", suspend_after_ms=600_000)
        await gate.until("SELECT 1 FROM turn WHERE outcome = 'committed'", bool)
        before = await asyncio.to_thread(counted, gate, path)

        async def wake(n: int) -> None:
            await gate.agent(f"{NAMED}-{n}", code, "Sleeper", suspend_after_ms=0)
            await gate.send(f"{NAMED}-{n}", ("wait", "go")[n % 2], f"m{n}")

        await asyncio.gather(*map(wake, range(MANY)))
        rested = (
            "SELECT (SELECT COUNT(*) FROM turn WHERE outcome = 'committed'),"
            " (SELECT COUNT(*) FROM awaiting WHERE kind = 'sleep' AND resolved_at IS NULL),"
            " (SELECT COUNT(*) FROM timer)"
        )
        whole = (1 + MANY + MANY // 2, MANY // 2, 1 + MANY)
        await gate.until(rested, lambda rows: rows == [whole])
        owned = "SELECT uid FROM agent WHERE owner IS NOT NULL"
        await gate.until(owned, lambda rows: rows == [(awake,)])
        after = await asyncio.to_thread(counted, gate, path)  # what is told of the last ones is on its way
    for found in (before, after):
        assert {name: found[name] for name in NONE} == NONE | {"Slot": 1}
    assert after["timers"] < before["timers"] + MANY // 10
    assert after["naming"] == []
