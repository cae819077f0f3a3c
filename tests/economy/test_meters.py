"""What was done is counted once, whatever crashed meanwhile; waiting costs nothing."""

import asyncio
import time
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from controlplane.economy import meters
from controlplane.economy.rating import RateCard
from controlplane.operations.living import invoices
from ray_runtime.host import RESERVED
from schemas.usage import InvoiceInput
from tests.economy.test_budgets import budget
from tests.gate.computer import Computer
from tests.gate.running import RunningGate, running, true
from tests.gate.zoo import SOURCE
from tests.living import world

pytestmark = pytest.mark.anyio
GRANTS: dict[str, Any] = {"mandate": {"grants": [{"effect": "notes.*", "connection": None}]}}
AGENTS, MESSAGES = ("noter", "other"), 6
RATES = {"turns": Decimal("0.00137"), "notes.again:noted": Decimal("0.3371")}


async def used(gate: RunningGate, agent: str, meter: str, effect: str = "") -> float:
    """The sum of a meter, over all hours."""
    query = "SELECT COALESCE(SUM(amount), 0) FROM used WHERE agent = :agent AND meter = :meter AND effect = :effect"
    rows = await gate.rows(query, agent=agent, meter=meter, effect=effect)
    return float(rows[0][0]) / meters.MICRO


async def test_work_is_counted_exactly_through_crashes(database_url: str, tmp_path: Path) -> None:
    """A host and a gate killed while turns and effects are under way double nothing and lose nothing.

    So the invoice of it is the same as without them, and adds up: lines to agents, and these to the total.
    """
    async with running(database_url) as gate:
        code = await gate.code(SOURCE)
        notes = tmp_path / "notes"
        note = {"effect": "notes.again", "path": str(notes), "text": "x", "wait_s": 0.1}
        for agent in AGENTS:
            await gate.agent(agent, code, "Noter", **GRANTS)
            for n in range(MESSAGES):
                await gate.send(agent, note, f"{agent}{n}")
        await true(notes.exists)
        gate.hosts[0].kill()
        gate.host()
        await true(lambda: len(notes.read_text().splitlines()) >= 3 * len(AGENTS))
        gate.kill()
        gate.start()
        await gate.until("SELECT 1 FROM inbox", lambda rows: not rows, 40)
        for agent in AGENTS:
            assert await used(gate, agent, "turns") == MESSAGES + 1, "those, and the one that started it"
            assert await used(gate, agent, "effects", "notes.again") == MESSAGES
            assert await used(gate, agent, "noted", "notes.again") == 2 * MESSAGES, "what the effector says it took"
        assert len(notes.read_text().splitlines()) >= MESSAGES * len(AGENTS)
        exact = len(AGENTS) * ((MESSAGES + 1) * RATES["turns"] + 2 * MESSAGES * RATES["notes.again:noted"])
        assert await _invoiced(gate, RATES) == exact.quantize(Decimal("0.01"))
        assert await _invoiced(gate, RATES | {"active_s": Decimal("0.007"), "cpu_s": Decimal("0.3")}) > 0


async def _invoiced(gate: RunningGate, rates: dict[str, Decimal]) -> Decimal:
    """The total of the invoice, which is that of its agents, as that of each is of its lines."""
    handlers = invoices.handlers(gate.store, RateCard("EUR", rates))
    given = InvoiceInput(window="month", at=datetime.fromtimestamp(time.time(), UTC))
    found: Any = await handlers["usage.invoice"](world.call("usage.invoice", now=time.time()), given)
    for of_agent in found.agents:
        lines = [Decimal(it.money) for it in found.lines if it.agent == of_agent.agent]
        assert sum(lines, Decimal(0)) == Decimal(of_agent.money)
    assert sum((Decimal(it.money) for it in found.agents), Decimal(0)) == Decimal(found.money)
    return Decimal(found.money)


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


async def test_a_turn_has_the_gpus_of_its_own_host_while_it_is_active(quick_url: str, tmp_path: Path) -> None:
    """Its seconds are metered for each, reserved before it begins, and bounded by a chain; idle they cost nothing."""
    async with running(quick_url) as gate:
        computer, code = Computer(gate.socket, gpus=4.0), await gate.code(SOURCE)
        own = {"isolation": "dedicated", "resources": {"num_gpus": 2}, "suspend_after_ms": 60_000}
        note = {"effect": "notes.again", "path": str(tmp_path / "notes"), "text": "x"}
        asked = asyncio.create_task(gate.agent("heavy", code, "Noter", **own, **GRANTS))
        await true(lambda: computer.reserved)
        ((host_id, kept),) = computer.reserved.items()
        with pytest.MonkeyPatch.context() as patched:
            patched.setenv(RESERVED, kept)
            gate.host(host_id)
        await asked
        assert await gate.ask("heavy", note | {"wait_s": 0.2}, "m1") == {"noted": "x"}
        active_s, gpu_s = await used(gate, "heavy", "active_s"), await used(gate, "heavy", "gpu_s")
        assert gpu_s == pytest.approx(2 * active_s, abs=1e-5)
        assert active_s > 0.2
        left = await gate.ask("heavy", note | {"wait_s": 2.5}, "m2", chain={"limits": {"gpu_s": 1}})
        assert (left["reason"], "all the 0.5 s that were left" in left["detail"]) == ("BUDGET_EXCEEDED", True)
        await budget(gate, "gpu", {"gpu_s": 100}, "deny")
        await gate.send("heavy", note, "m3")  # a turn may take two minutes of GPUs
        await gate.client.control("suspend", "agent_heavy", {})
        look = {"why_awake": None}
        while "budget default/gpu" not in str(look["why_awake"]):
            look = await gate.client.control("look", "agent_heavy", {})
            await asyncio.sleep(0.02)
        await computer.close()


def test_what_can_not_be_counted_is_not() -> None:
    """An effector's amounts that are no amounts are left out, and its own names for ours do not count."""
    used = {"tokens_in": 12.0, "nan": float("nan"), "owed": -1.0, "vast": 1e30, "effects": 99.0}
    found = meters.of_effect(10, 0, used)
    assert found == {"tokens_in": 12_000_000, "effects": 1_000_000, "bytes_out": 10_000_000}
