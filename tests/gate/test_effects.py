"""External effects through crashes and faults: written ahead, done once or said to be in doubt, always answered."""

import asyncio
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.gate.running import running, true
from tests.gate.zoo import SOURCE

pytestmark = pytest.mark.anyio
GRANTS: dict[str, Any] = {"mandate": {"grants": [{"effect": "notes.*", "connection": None}]}}


def _note(effect: str, path: Path, **more: Any) -> dict[str, Any]:
    return {"effect": effect, "path": str(path), "text": "x", **more}


async def test_an_effect_always_gets_a_receipt(database_url: str, tmp_path: Path) -> None:
    """Whatever an effector does: what it does not know, it does not say; what may have happened has not failed."""
    async with running(database_url, send_within_s=2.0) as gate:
        code = await gate.code(SOURCE)
        await gate.agent("noter", code, "Noter", **GRANTS)
        notes = tmp_path / "notes"
        cases: list[tuple[dict[str, Any], Any]] = [
            (_note("notes.once", notes), {"noted": "x"}),
            (_note("notes.once", notes, fault="refuse"), "EFFECT_FAILED"),
            (_note("notes.once", notes, fault="break"), "IN_DOUBT"),
            (_note("notes.once", notes, fault="no json"), "IN_DOUBT"),
            (_note("notes.once", notes, wait_s="soon"), "INVALID_VALUE"),
            (_note("notes.never", notes), "UNKNOWN_EFFECT"),
            (_note("machine.read", notes), "NOT_GRANTED"),
            (_note("notes.again", notes, wait_s=60), "IN_DOUBT"),
            (_note("notes.once", notes, wait_s=60), "IN_DOUBT"),
        ]
        for n, (effect, answer) in enumerate(cases):
            assert await gate.ask("noter", effect, f"n{n}") == answer, effect
        rows = await gate.rows("SELECT verdict, outcome FROM journal")
        assert [row for row in rows if row[1] is None] == []
        denied = [orjson.loads(row[0]) for row in rows if orjson.loads(row[0])["outcome"] == "deny"]
        assert [it["rules"] for it in denied] == [["no-grant"]]
        types = await gate.rows("SELECT type FROM event WHERE type LIKE 'effect.%' ORDER BY cursor")
        doubts, refusals = ["effect.in_doubt"] * 2, ["effect.refused"] * 2
        assert [row[0] for row in types] == [*doubts, *refusals, "effect.denied", *doubts]


@pytest.mark.parametrize(("effect", "answer", "times"), [("notes.once", "IN_DOUBT", 1), ("notes.again", "x", 2)])
async def test_an_effect_cut_off_by_a_crash(
    database_url: str, tmp_path: Path, effect: str, answer: str, times: int
) -> None:
    """One that repeats safely is done again under the same key; any other is in doubt, and never done twice."""
    async with running(database_url) as gate:
        code = await gate.code(SOURCE)
        await gate.agent("noter", code, "Noter", **GRANTS)
        notes = tmp_path / "notes"
        asked = asyncio.create_task(gate.ask("noter", _note(effect, notes, wait_s=1.0), "n1", 40))
        await true(lambda: notes.exists() and notes.read_text())
        gate.kill()
        gate.start()
        assert await asked == ({"noted": "x"} if answer == "x" else answer)
        lines = notes.read_text().splitlines()
        assert len(lines) == times
        assert len(set(lines)) == 1, "the key is the turn and the position"
        told = await gate.rows("SELECT 1 FROM event WHERE type = 'effect.in_doubt'")
        assert len(told) == (answer == "IN_DOUBT")


async def test_an_effect_whose_host_dies_is_done_once(database_url: str, tmp_path: Path) -> None:
    """The gate goes on with it; the next attempt of the turn gets the receipt, and no attempt is counted."""
    async with running(database_url) as gate:
        code = await gate.code(SOURCE)
        await gate.agent("noter", code, "Noter", **GRANTS)
        notes = tmp_path / "notes"
        asked = asyncio.create_task(gate.ask("noter", _note("notes.once", notes, wait_s=1.0), "n1", 40))
        await true(notes.exists)
        gate.hosts[0].kill()
        gate.host()
        assert await asked == {"noted": "x"}
        assert len(notes.read_text().splitlines()) == 1
        assert await gate.rows("SELECT attempts FROM turn WHERE message_id = 'n1'") == [(1,)]
