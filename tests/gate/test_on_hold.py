"""`on_hold: raise`: a handler hears at once of an effect that would be held for an operator, and goes on without it."""

import asyncio
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.economy.test_budgets import budget, limited
from tests.gate import far
from tests.gate.running import running

pytestmark = pytest.mark.anyio
SOURCE = """
from ray_runtime import Agent, Refusal


class Noter(Agent):
    async def on_message(self, turn, envelope):
        try:
            found = await turn.perform("notes.once", **envelope.data)
        except Refusal as refusal:
            found = refusal.problem.reason
        await turn.sleep(0.5)
        return found
"""
RAISES: dict[str, Any] = {
    "mandate": {"grants": [{"effect": "notes.*", "connection": None}]}, "on_hold": "raise", "suspend_after_ms": 0,
}  # fmt: skip


def _note(path: Path, fault: str = "", wait_s: float = 0.0) -> dict[str, Any]:
    return {"path": str(path), "text": "x", "fault": fault, "wait_s": wait_s}


async def test_what_a_budget_would_hold_raises(quick_url: str, tmp_path: Path) -> None:
    """Nothing is sent or held; a replay hears the same, though there is room by then, and the next turn has that."""
    async with running(quick_url, hold_s=3600.0) as gate:
        await budget(gate, "none", {"effects": 0}, "hold")
        await gate.agent("noter", await gate.code(SOURCE), "Noter", **RAISES)
        asked = asyncio.create_task(gate.ask("noter", _note(tmp_path / "notes"), "n1"))
        await gate.until("SELECT 1 FROM turn WHERE outcome = 'parked'", bool)
        await limited(gate, "none", {"effects": 9})
        assert await asked == "HELD"
        assert not (tmp_path / "notes").exists()
        assert await gate.rows(far.HELD) == []
        ((text, verdict),) = await gate.rows("SELECT result, verdict FROM journal WHERE outcome = 'failed'")
        found = orjson.loads(text)
        assert "it would be held for an operator, since of 0 effects that budget default/none" in found["detail"]
        assert [it["operation"] for it in found["next"]] == ["usage.report", "budgets.get"]
        assert orjson.loads(verdict)["rules"] == ["budget none"]
        assert await gate.ask("noter", _note(tmp_path / "notes"), "n2") == {"noted": "x"}


@pytest.mark.parametrize("note", [{"fault": "break"}, {"wait_s": 30.0}], ids=["broken", "late"])
async def test_what_is_in_doubt_raises(quick_url: str, tmp_path: Path, note: dict[str, Any]) -> None:
    """It is told, and nobody is asked; as long as an answer may come, that is waited for."""
    async with running(quick_url, hold_s=3600.0) as gate:
        await gate.agent("noter", await gate.code(SOURCE), "Noter", **RAISES)
        assert await gate.ask("noter", _note(tmp_path / "notes", **note), "n1") == "IN_DOUBT"
        assert len((tmp_path / "notes").read_text().splitlines()) == 1
        assert await gate.rows("SELECT 1 FROM event WHERE type = 'effect.in_doubt'")
        assert await gate.rows("SELECT outcome, attempts FROM turn WHERE message_id = 'n1'") == [("committed", 1)]
        slow = _note(tmp_path / "notes", wait_s=4.0)  # it may take 3
        assert await gate.ask("noter", slow, "n2") == {"noted": "x"}


async def test_a_turn_stays_on_what_it_began_with(sqlite_url: str, tmp_path: Path) -> None:
    """A turn of code that expects no such error has none when its agent comes to want one."""
    source = SOURCE.replace("        try:", "        await turn.sleep(0.5)\n        try:")
    async with running(sqlite_url, hold_s=3600.0) as gate:
        code = await gate.code(source)
        await budget(gate, "none", {"effects": 0}, "hold")
        await gate.agent("noter", code, "Noter", **RAISES | {"on_hold": "park"})
        await gate.send("noter", _note(tmp_path / "notes"), "n1", 9e9)
        await gate.until("SELECT 1 FROM turn WHERE outcome = 'parked'", bool)
        await gate.deploy("noter", 2, code, "Noter", **RAISES)
        turn_id = await far.held(gate)
        await far.settle(gate, turn_id, "retry", position=1)
        await gate.until("SELECT 1 FROM turn WHERE message_id = 'n1' AND outcome = 'committed'", bool)
        assert await gate.ask("noter", _note(tmp_path / "notes"), "n2") == "HELD"
