"""A budget acts before its limit is passed: it refuses, holds back, or lets its agents wait."""

import asyncio
from pathlib import Path
from typing import Any

import orjson
import pytest
from sqlalchemy import update
from sqlmodel import col

from controlplane.operations.living import inspection
from controlplane.operations.recording import LABEL, UNLABEL
from controlplane.store.tables import ResourceRow
from controlplane.store.unit import Unit
from schemas.budget import BudgetSpec
from schemas.calls import Named
from tests.gate import far
from tests.gate.running import RunningGate, running, true
from tests.gate.zoo import SOURCE
from tests.living import world

pytestmark = pytest.mark.anyio
GRANTS: dict[str, Any] = {"mandate": {"grants": [{"effect": "notes.*", "connection": None}]}}
RATES = {"rates": {"noted": "0.5"}}


async def budget(gate: RunningGate, name: str, limits: dict[str, float], action: str, **scope: Any) -> None:
    given = {"limits": limits, "action": action, "window": "total", "scope": scope}
    await far.put(gate, Unit(), "Budget", name, BudgetSpec.model_validate(given).model_dump(mode="json"))


async def limited(gate: RunningGate, name: str, limits: dict[str, float], action: str = "hold") -> None:
    spec = BudgetSpec.model_validate({"limits": limits, "window": "total", "action": action}).model_dump_json()
    unit = Unit().run(
        update(ResourceRow)
        .where(col(ResourceRow.kind) == "Budget", col(ResourceRow.name) == name)
        .values(spec=spec, generation=2)
    )
    assert await gate.store.write(unit)


def note(path: Path, wait_s: float = 0.0) -> dict[str, Any]:
    return {"effect": "notes.once", "path": str(path), "text": "x", "wait_s": wait_s}


def lines(path: Path) -> int:
    return len(path.read_text().splitlines()) if path.exists() else 0


async def test_a_budget_that_denies_is_never_passed(database_url: str, tmp_path: Path) -> None:
    """Of effects asked for at once by agents of one budget as many are sent as it has room for; through a crash."""
    async with running(database_url, **RATES) as gate:
        code = await gate.code(SOURCE)
        notes = tmp_path / "notes"
        await budget(gate, "three", {"money": 3.5}, "deny")  # one costs 1
        for n in range(4):
            await gate.agent(f"noter{n}", code, "Noter", **GRANTS)
        answers = await asyncio.gather(*(gate.ask(f"noter{n}", note(notes, 0.3), f"a{n}") for n in range(4)))
        assert sorted(map(str, answers)) == ["BUDGET_EXCEEDED", *["{'noted': 'x'}"] * 3]
        gate.kill()
        gate.start()
        assert await gate.ask("noter0", note(notes), "b0") == "BUDGET_EXCEEDED"
        (refused, *_) = await gate.rows("SELECT result, verdict FROM journal WHERE outcome = 'failed'")
        found = orjson.loads(refused[0])
        assert (found["metadata"]["limit"], found["metadata"]["meter"]) == ("3.5", "money")
        assert [it["operation"] for it in found["next"]] == ["usage.report", "budgets.get"]
        assert orjson.loads(refused[1])["outcome"] == "deny"
        await limited(gate, "three", {"money": 5})
        assert await gate.ask("noter0", note(notes), "b1") == {"noted": "x"}
        assert lines(notes) == 4


async def test_a_budget_that_holds_asks_an_operator(sqlite_url: str, tmp_path: Path) -> None:
    """What there is no room for is not sent until an operator says so, and is told as not sent where nobody does."""
    async with running(sqlite_url, hold_s=3600.0) as gate:
        code = await gate.code(SOURCE)
        notes = tmp_path / "notes"
        await budget(gate, "one", {"effects": 1}, "hold", agent="noter")
        await gate.agent("noter", code, "Noter", **GRANTS)
        assert await gate.ask("noter", note(notes), "n1") == {"noted": "x"}
        asked = asyncio.create_task(gate.ask("noter", note(notes), "n2"))
        (row,) = await gate.until(far.HELD, bool)
        assert row[2] == "budget default/one: turns.settle of notes.once"
        await gate.until("SELECT 1 FROM agent WHERE owner IS NOT NULL", lambda rows: not rows)
        assert lines(notes) == 1
        await far.settle(gate, row[0], "retry")
        assert await asked == {"noted": "x"}
        assert lines(notes) == 2
        types = await gate.rows("SELECT type FROM event WHERE type IN ('effect.held', 'effect.in_doubt')")
        assert types == [("effect.held",)]


async def test_what_nobody_lets_through_was_not_sent(sqlite_url: str, tmp_path: Path) -> None:
    """After its time a held-back effect fails as BUDGET_EXCEEDED: it is no effect in doubt."""
    async with running(sqlite_url, hold_s=0.2) as gate:
        code = await gate.code(SOURCE)
        await budget(gate, "none", {"effects": 0}, "hold")
        await gate.agent("noter", code, "Noter", **GRANTS)
        assert await gate.ask("noter", note(tmp_path / "notes"), "n1") == "BUDGET_EXCEEDED"
        assert lines(tmp_path / "notes") == 0


async def test_a_budget_that_pauses_lets_its_agents_wait(database_url: str, tmp_path: Path) -> None:
    """A paused agent is suspended with its messages, says why, and goes on where it was once the budget is raised."""
    async with running(database_url) as gate:
        code = await gate.code(SOURCE)
        notes = tmp_path / "notes"
        await budget(gate, "one", {"effects": 1}, "pause", agent="noter")
        for name in ("noter", "other"):
            await gate.agent(name, code, "Noter", **GRANTS)
        for n in range(3):
            await gate.send("noter", note(notes), f"n{n}")
        await true(notes.exists)
        inspect = inspection.handlers(gate.store, gate.client)["agents.inspect"]
        told = ""
        while "budget default/one" not in told:
            found = await inspect(world.call("agents.inspect"), Named(name="noter"))
            told = str(found.why_awake)  # type: ignore[attr-defined]
            await asyncio.sleep(0.02)
        await gate.until("SELECT 1 FROM agent WHERE owner IS NOT NULL AND name = 'noter'", lambda rows: not rows)
        assert await gate.ask("other", note(tmp_path / "of other"), "o1") == {"noted": "x"}
        assert lines(notes) == 1
        await limited(gate, "one", {"effects": 5})
        await gate.until("SELECT 1 FROM inbox", lambda rows: not rows)
        assert lines(notes) == 3


async def test_money_of_another_currency_is_not_held_against_the_rates(sqlite_url: str, tmp_path: Path) -> None:
    """The rates came to be in another currency after the budget was written: what costs anything is not let in."""
    async with running(sqlite_url, **RATES) as gate:
        code = await gate.code(SOURCE)
        given = {"limits": {"money": 1000}, "action": "deny", "window": "total", "currency": "USD"}
        spec = BudgetSpec.model_validate(given).model_dump(mode="json")
        await far.put(gate, Unit(), "Budget", "dollars", spec)
        await gate.agent("noter", code, "Noter", **GRANTS)
        assert await gate.ask("noter", note(tmp_path / "notes"), "n1") == "BUDGET_EXCEEDED"
        (refused,) = await gate.rows("SELECT result FROM journal WHERE outcome = 'failed'")
        assert "of 1000 USD money that budget default/dollars allows" in orjson.loads(refused[0])["detail"]
        assert await gate.ask("noter", "count", "n2") == {"seen": 0, "started": 0, "got": ["BUDGET_EXCEEDED"]}


async def test_labels_count_as_they_are(sqlite_url: str, tmp_path: Path) -> None:
    """An agent that stays awake comes under a budget, with what it has used, and leaves it, by its labels alone."""
    async with running(sqlite_url) as gate:
        await budget(gate, "free", {"effects": 2}, "deny", labels={"tier": "free"})
        await gate.agent("noter", await gate.code(SOURCE), "Noter", suspend_after_ms=60_000, **GRANTS)
        for n in range(2):
            assert await gate.ask("noter", note(tmp_path / "notes"), f"n{n}") == {"noted": "x"}
        await _labelled(gate, LABEL, '{"tier":"free"}')
        assert await gate.ask("noter", note(tmp_path / "notes"), "n2") == "BUDGET_EXCEEDED"
        await _labelled(gate, UNLABEL, "{}")
        assert await gate.ask("noter", note(tmp_path / "notes"), "n3") == {"noted": "x"}


BREEDER = f"""{SOURCE}

class Breeder(Agent):
    async def on_message(self, turn, envelope):
        return await turn.spawn(envelope.data, entrypoint="zoo:Noter")
"""


@pytest.mark.parametrize("scope", [{"labels": {"tier": "free"}}, {"fleet": "writers"}], ids=["labels", "fleet"])
async def test_a_child_is_under_the_same_budget(database_url: str, tmp_path: Path, scope: dict[str, Any]) -> None:
    """Children use up what their parent may use, also when they are gone and the gate is a new one."""
    async with running(database_url) as gate:
        await far.put(gate, Unit(), "Fleet", "writers", {})
        await gate.agent("noter", await gate.code(BREEDER), "Breeder", **GRANTS)
        await _labelled(gate, LABEL, '{"tier":"free"}')
        owned = Unit().raw("UPDATE resource SET owner = 'fleet_writers' WHERE uid = 'agent_noter'", [], 1)
        assert await gate.store.write(owned)
        await budget(gate, "free", {"effects": 2}, "deny", **scope)
        gate.kill()
        gate.start()
        assert await gate.ask("noter", "kid", "s1") == "default/kid"
        for n in range(2):
            assert await gate.ask("kid", note(tmp_path / "notes"), f"n{n}") == {"noted": "x"}
        assert await gate.ask("kid", note(tmp_path / "notes"), "n2") == "BUDGET_EXCEEDED"
        gone = Unit().raw("UPDATE resource SET deleted_at = 2.0 WHERE name = 'kid'", [], 1)
        gone.raw("DELETE FROM agent WHERE name = 'kid'", [], 1)
        gone.raw(UNLABEL, ["Agent", "default", "kid", "tier", "free"], 1)
        assert await gate.store.write(gone)
        gate.kill()
        gate.start()
        assert await gate.ask("noter", "other", "s2") == "default/other"
        assert await gate.ask("other", note(tmp_path / "notes"), "n3") == "BUDGET_EXCEEDED"


async def _labelled(gate: RunningGate, statement: str, labels: str) -> None:
    """What a commit writes that changes labels alone."""
    unit = Unit().raw("UPDATE resource SET labels = ? WHERE uid = 'agent_noter'", [labels], 1)
    assert await gate.store.write(unit.raw(statement, ["Agent", "default", "noter", "tier", "free"], 1))


async def test_turns_wait_for_their_budget(sqlite_url: str) -> None:
    """A turn that could pass a limit does not begin; its message waits."""
    async with running(sqlite_url) as gate:
        code = await gate.code(SOURCE)
        await budget(gate, "few", {"turns": 3, "active_s": 100}, "deny", agent="counter")
        await gate.agent("counter", code, "Counter")
        await gate.agent("ledger", code, "Ledger")
        for n in range(4):
            await gate.send("counter", n, f"c{n}")
        await gate.until("SELECT 1 FROM inbox WHERE agent = 'agent_counter'", lambda rows: len(rows) == 2)
        await gate.until("SELECT 1 FROM agent WHERE owner IS NOT NULL", lambda rows: not rows)
        await limited(gate, "few", {"active_s": 61})
        assert await gate.ask("counter", "count", "c9") == {"seen": 4, "started": 1, "got": [0, 1, 2, 3]}
