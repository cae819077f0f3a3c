"""What lasts, and what is in doubt, keeps its part of a budget until it has ended, over the death of the gate."""

import asyncio
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.economy.test_budgets import budget, limited, lines, note
from tests.gate import far
from tests.gate.computer import Computer
from tests.gate.running import running, true
from tests.gate.test_branches import SOURCE as BRANCHES
from tests.gate.test_computing import SOURCE as THINKERS
from tests.gate.zoo import SOURCE

pytestmark = pytest.mark.anyio
GRANTS: dict[str, Any] = {
    "mandate": {"grants": [{"effect": it, "connection": None} for it in ("notes.*", "compute.*")]}
}
BY_NOBODY = "SELECT turn_id, branch FROM awaiting WHERE kind = 'effect' AND resolved_at IS NULL AND agent IS NULL"
OPEN = "SELECT 1 FROM awaiting WHERE kind = 'compute' AND resolved_at IS NULL"


def _on_gpu(deadline_s: float) -> dict[str, Any]:
    return {"deadline_s": deadline_s, "resources": {"num_gpus": 1}}


async def test_a_compute_is_let_in_only_if_all_of_it_has_room(quick_url: str) -> None:
    """It reserves what it may take until its deadline, over the death of the gate; then what it took counts, for its
    budget and its chain."""
    async with running(quick_url) as gate:
        await budget(gate, "hundred", {"gpu_s": 100}, "deny")
        computer, code = Computer(gate.socket, gpus=4.0), await gate.code(THINKERS)
        for name in ("one", "two"):
            await gate.agent(name, code, "Thinker", suspend_after_ms=0, **GRANTS)
        chain = {"limits": {"gpu_s": 110}}
        first = asyncio.create_task(gate.ask("one", _on_gpu(60), "m1", 40, chain=chain))
        key = await computer.task()
        assert (await gate.ask("two", _on_gpu(60), "m2"))[0] == "BUDGET_EXCEEDED"
        gate.kill()
        gate.start()
        assert (await gate.ask("two", _on_gpu(60), "m3"))[0] == "BUDGET_EXCEEDED"
        computer.end(key, "succeeded", "thought", 50)
        assert await first == "thought"
        second = asyncio.create_task(gate.ask("two", _on_gpu(40), "m4"))
        computer.end(await computer.task(beside=1), "succeeded", "too", 40)
        assert await second == "too"
        reason, detail = await gate.ask("two", _on_gpu(20), "m5")
        assert (reason, "of 100 gpu_s that budget default/hundred allows 90 are used" in detail) == (
            "BUDGET_EXCEEDED", True
        )  # fmt: skip
        sums = "SELECT chain, amount FROM used WHERE meter = 'gpu_s' ORDER BY amount"
        assert await gate.rows(sums) == [("", 40_000_000), ("m1", 50_000_000)]
        await computer.close()


async def test_what_no_window_has_room_for_is_refused(sqlite_url: str, tmp_path: Path) -> None:
    """A budget that lets its agents wait would let this one wait for ever."""
    async with running(sqlite_url) as gate:
        await budget(gate, "little", {"noted": 1.5}, "pause")  # a note may take 2
        await gate.agent("noter", await gate.code(SOURCE), "Noter", **GRANTS)
        assert await gate.ask("noter", note(tmp_path / "notes"), "n1") == "BUDGET_EXCEEDED"
        ((result, outcome),) = await gate.rows("SELECT result, verdict FROM journal WHERE kind = 'effect'")
        found = orjson.loads(result)
        assert "this may use 2, which is more than all of it" in found["detail"]
        assert (found["retry_after_s"], orjson.loads(outcome)["outcome"]) == (None, "deny")


async def test_what_is_in_doubt_keeps_its_place(database_url: str, tmp_path: Path) -> None:
    """Nobody else is let in for it, before or after a restart, until an operator says what came of it."""
    async with running(database_url, hold_s=3600.0) as gate:
        await budget(gate, "few", {"effects": 2}, "deny")
        for name in ("a", "b", "c"):
            await gate.agent(name, await gate.code(SOURCE), "Noter", **GRANTS)
        notes = tmp_path / "notes"
        broken, plain = note(notes) | {"fault": "break"}, note(notes)
        first = asyncio.create_task(gate.ask("a", broken, "a1", 60))
        turn_id = await far.held(gate)
        assert await gate.ask("b", plain, "b1") == {"noted": "x"}
        assert await gate.ask("b", plain, "b2") == "BUDGET_EXCEEDED"
        await far.settle(gate, turn_id, "failed")
        assert await first == "EFFECT_FAILED"
        second = asyncio.create_task(gate.ask("a", broken, "a2", 60))
        await far.settle(gate, await far.held(gate), "succeeded", result="done")
        assert await second == "done"
        assert await gate.ask("b", plain, "b3") == "BUDGET_EXCEEDED", "what an operator says counts at once"
        await limited(gate, "few", {"effects": 4}, "deny")
        await gate.send("a", broken, "a3")
        await far.held(gate)
        await gate.send("c", note(notes, 30.0), "c1")
        await true(lambda: lines(notes) == 5)
        assert await gate.ask("b", plain, "b4") == "BUDGET_EXCEEDED"
        gate.kill()
        gate.start()
        await gate.until(far.HELD, lambda rows: len(rows) == 2)
        assert await gate.ask("b", plain, "b5") == "BUDGET_EXCEEDED"
        used = "SELECT SUM(amount) FROM used WHERE meter = 'effects' AND effect = 'notes.once'"
        assert int((await gate.rows(used))[0][0]) == 2_000_000


@pytest.mark.parametrize("late", [False, True])
async def test_what_a_failed_turn_leaves_in_doubt_keeps_its_place(
    quick_url: str, tmp_path: Path, *, late: bool
) -> None:
    """Though another branch has failed the turn, before or after it came to be in doubt, and over the gate's death."""
    async with running(quick_url, hosts=2, hold_s=3600.0, turn_attempts_max=1, send_within_s=1.0) as gate:
        await budget(gate, "few", {"effects": 2}, "deny")
        await gate.agent("torn", await gate.code(BRANCHES), "Torn", **GRANTS)
        await gate.agent("b", await gate.code(SOURCE), "Noter", **GRANTS)
        failed = await gate.ask("torn", {"path": str(tmp_path / "torn"), "late": late}, "t1")
        assert failed["reason"] == "NONDETERMINISTIC"
        ((turn_id, branch),) = await gate.until(BY_NOBODY, bool)
        plain = note(tmp_path / "notes")
        assert await gate.ask("b", plain, "b1") == {"noted": "x"}
        assert await gate.ask("b", plain, "b2") == "BUDGET_EXCEEDED"
        gate.kill()
        gate.start()
        assert await gate.ask("b", plain, "b3") == "BUDGET_EXCEEDED"
        await far.settle(gate, turn_id, "failed", branch=branch)
        assert await gate.ask("b", plain, "b4") == {"noted": "x"}
        assert await gate.ask("b", plain, "b5") == "BUDGET_EXCEEDED"


async def test_what_a_turn_has_in_doubt_does_not_stand_in_its_own_way(sqlite_url: str, tmp_path: Path) -> None:
    """A turn goes on to send once more what an operator wants sent, though that is all there is left."""
    async with running(sqlite_url, hold_s=3600.0, rates={"noted": "0.5", "active_s": "0.01"}) as gate:
        await budget(gate, "money", {"money": 2}, "deny")
        await gate.agent("a", await gate.code(SOURCE), "Noter", **GRANTS)
        notes = tmp_path / "notes"
        await gate.send("a", note(notes) | {"fault": "break"}, "a1")
        turn_id = await far.held(gate)
        await limited(gate, "money", {"money": 1.5})  # the note may cost 1, and a turn of a minute 0.6
        await far.settle(gate, turn_id, "retry")
        await true(lambda: lines(notes) == 2)
