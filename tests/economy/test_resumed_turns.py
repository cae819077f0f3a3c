"""A turn that goes on in place is bounded as one that is woken: by its limits, by budgets, over all its stretches."""

import asyncio
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.economy.test_budgets import GRANTS, budget, limited
from tests.gate.running import RunningGate, running

pytestmark = pytest.mark.anyio
SOURCE = """
from ray_runtime import Agent


class Worker(Agent):
    async def on_message(self, turn, envelope):
        for n in range(envelope.data["times"]):
            await turn.perform("notes.again", path=envelope.data["path"], text="x", wait_s=envelope.data["wait_s"])
            await turn.sleep(envelope.data["rest_s"])
        return "done"
"""
PARKED = "SELECT 1 FROM turn WHERE outcome = 'parked'"
USED = "SELECT SUM(amount) FROM used WHERE meter = 'active_s'"


def _work(path: Path, times: int, wait_s: float, rest_s: float = 0.05) -> dict[str, Any]:
    return {"path": str(path), "times": times, "wait_s": wait_s, "rest_s": rest_s}


async def _used_s(gate: RunningGate) -> float:
    return int((await gate.rows(USED))[0][0] or 0) / 1_000_000


def _limits(turn_s_max: float) -> dict[str, Any]:
    return {"limits": {"effects_max": 100, "journal_bytes_max": 100_000, "turn_s_max": turn_s_max}}


async def test_a_budget_bars_a_turn_that_would_go_on_in_place(quick_url: str, tmp_path: Path) -> None:
    """What others used while it rested is not there for it: it waits as a row, and goes on once there is more."""
    async with running(quick_url) as gate:
        await budget(gate, "seconds", {"active_s": 2.6}, "deny")
        code = await gate.code(SOURCE)
        for name in "ab":
            await gate.agent(name, code, "Worker", suspend_after_ms=60_000, **GRANTS, **_limits(1.6))
        first = asyncio.create_task(gate.ask("a", _work(tmp_path / "a", 2, 0.5, rest_s=3.0), "a1", 60))
        await gate.until(PARKED, bool)
        assert await gate.ask("b", _work(tmp_path / "b", 1, 1.0), "b1") == "done"
        assert 1.5 <= await _used_s(gate) <= 2.6
        await gate.until("SELECT 1 FROM agent WHERE owner IS NOT NULL AND name = 'a'", lambda rows: not rows)
        assert await gate.rows(PARKED), "it has its answer, and waits for room"
        assert await _used_s(gate) <= 2.6
        await limited(gate, "seconds", {"active_s": 60.0}, "deny")
        assert await first == "done"


async def test_a_turn_that_goes_on_in_place_has_one_time_for_all_of_it(sqlite_url: str, tmp_path: Path) -> None:
    """It ends at `turn_s_max` of activity, and not at that much after each rest; its host and neighbours go on."""
    async with running(sqlite_url, late_s_max=2.0) as gate:
        code = await gate.code(SOURCE)
        await gate.agent("a", code, "Worker", suspend_after_ms=60_000, **GRANTS, **_limits(0.6))
        found = await gate.ask("a", _work(tmp_path / "a", 20, 0.2), "a1")
        assert (found["reason"], found["metadata"]["max"]) == ("TURN_TIMEOUT", 0.6)
        assert "more than 0.6 s" in found["detail"]
        assert 1 <= len((tmp_path / "a").read_text().splitlines()) <= 3
        assert await gate.ask("a", _work(tmp_path / "b", 1, 0.2), "a2") == "done", "the next turn has its own time"
        assert gate.hosts[0].poll() is None
        assert await gate.rows("SELECT 1 FROM event WHERE type = 'host.lost'") == []


async def test_waiting_takes_nothing_of_a_turn(sqlite_url: str, tmp_path: Path) -> None:
    """What passes while it rests, with its host or as a row, is none of its time."""
    async with running(sqlite_url) as gate:
        code = await gate.code(SOURCE)
        for name, ms in (("stays", 60_000), ("leaves", 0)):
            await gate.agent(name, code, "Worker", suspend_after_ms=ms, **GRANTS, **_limits(0.6))
        asked = (gate.ask(it, _work(tmp_path / it, 2, 0.05, 0.7), f"{it}1") for it in ("stays", "leaves"))
        assert await asyncio.gather(*asked) == ["done"] * 2


async def test_a_chain_is_told_how_much_is_left_to_who_goes_on(sqlite_url: str, tmp_path: Path) -> None:
    """Its host ends the turn when what the chain left it is over, and not when its own limits say so."""
    async with running(sqlite_url, late_s_max=60.0) as gate:
        code = await gate.code(SOURCE)
        await gate.agent("a", code, "Worker", suspend_after_ms=60_000, **GRANTS, **_limits(30.0))
        found = await gate.ask("a", _work(tmp_path / "a", 20, 0.3), "a1", chain={"limits": {"active_s": 0.5}})
        assert found["reason"] == "BUDGET_EXCEEDED"
        ((text,),) = await gate.rows("SELECT problem FROM turn WHERE outcome = 'failed'")
        assert "s that were left to it" in orjson.loads(text)["detail"]
