"""What was done is counted once, whatever crashed meanwhile; waiting costs nothing."""

from pathlib import Path
from typing import Any

import pytest

from controlplane.economy import meters
from tests.gate.running import RunningGate, running, true
from tests.gate.zoo import SOURCE

pytestmark = pytest.mark.anyio
GRANTS: dict[str, Any] = {"mandate": {"grants": [{"effect": "notes.*", "connection": None}]}}
MESSAGES = 8


async def used(gate: RunningGate, agent: str, meter: str, effect: str = "") -> float:
    """The sum of a meter, over all hours."""
    query = "SELECT COALESCE(SUM(amount), 0) FROM usage WHERE agent = :agent AND meter = :meter AND effect = :effect"
    rows = await gate.rows(query, agent=agent, meter=meter, effect=effect)
    return float(rows[0][0]) / meters.MICRO


async def test_work_is_counted_exactly_through_crashes(database_url: str, tmp_path: Path) -> None:
    """A host and a gate killed while turns and effects are under way double nothing and lose nothing."""
    async with running(database_url) as gate:
        code = await gate.code(SOURCE)
        await gate.agent("noter", code, "Noter", **GRANTS)
        notes = tmp_path / "notes"
        note = {"effect": "notes.again", "path": str(notes), "text": "x", "wait_s": 0.1}
        for n in range(MESSAGES):
            await gate.send("noter", note, f"n{n}")
        await true(notes.exists)
        gate.hosts[0].kill()
        gate.host()
        await true(lambda: len(notes.read_text().splitlines()) >= 3)
        gate.kill()
        gate.start()
        await gate.until("SELECT 1 FROM inbox", lambda rows: not rows, 40)
        assert await used(gate, "noter", "turns") == MESSAGES + 1, "those, and the one that started it"
        assert await used(gate, "noter", "effects", "notes.again") == MESSAGES
        assert await used(gate, "noter", "noted", "notes.again") == 2 * MESSAGES, "what the effector says that it took"
        assert len(notes.read_text().splitlines()) >= MESSAGES


async def test_waiting_costs_nothing(database_url: str) -> None:
    """Neither a suspended nor a parked agent's meters move, while others work; nor does time count that one slept."""
    async with running(database_url) as gate:
        code = await gate.code(SOURCE)
        for name, cls in (("echo", "Echo"), ("napper", "Asker"), ("busy", "Echo")):
            await gate.agent(name, code, cls, suspend_after_ms=0)
        await gate.ask("echo", 1, "e1")
        asked = {"whom": "default/echo", "sleep": 1.0}
        await gate.send("napper", asked, "s1")
        parked = "SELECT 1 FROM awaiting WHERE kind = 'sleep' AND resolved_at IS NULL"
        await gate.until(parked, bool)
        await gate.until("SELECT 1 FROM agent WHERE owner IS NOT NULL", lambda rows: not rows)
        names = ("echo", "napper")
        before = [await used(gate, name, meter) for name in names for meter in meters.TURN_METERS]
        assert await gate.rows(parked)
        await gate.ask("busy", 1, "b1")
        assert [await used(gate, name, meter) for name in names for meter in meters.TURN_METERS] == before
        await gate.until("SELECT 1 FROM inbox", lambda rows: not rows)
        assert await used(gate, "napper", "turns") == 2
        assert 0 < await used(gate, "napper", "active_s") < 1.0
        assert await used(gate, "napper", "cpu_s") > 0


def test_what_can_not_be_counted_is_not() -> None:
    """An effector's amounts that are no amounts are left out, and its own names for ours do not count."""
    used = {"tokens_in": 12.0, "nan": float("nan"), "owed": -1.0, "vast": 1e30, "effects": 99.0}
    found = meters.of_effect(10, 0, used)
    assert found == {"tokens_in": 12_000_000, "effects": 1_000_000, "bytes_out": 10_000_000}
