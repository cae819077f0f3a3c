"""A budget goes along with a question: each hop may narrow it, none widens it, and a crash takes nothing from it."""

import asyncio
import time
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from controlplane.economy.rating import RateCard
from controlplane.operations.living import inspection, usage
from schemas.calls import Named
from schemas.usage import UsageReportInput
from tests.gate.running import RunningGate, running, true
from tests.living import world

pytestmark = pytest.mark.anyio
GRANTS: dict[str, Any] = {"mandate": {"grants": [{"effect": "notes.*", "connection": None}]}}
RATES = {"rates": {"noted": "0.185"}}  # a note costs 0.37
NOTE = Decimal("0.37")
CARD = RateCard("EUR", {"noted": Decimal("0.185")})
SOURCE = """
from ray_runtime import Agent, Refusal


class Link(Agent):
    state: dict

    async def on_message(self, turn, envelope):
        return await self.work(turn, envelope, envelope.data)

    async def on_reply(self, turn, reply):
        self.state["reply"] = [reply.onbehalfof, reply.intentid, reply.chainid]
        for n in range(self.state.pop("after", 0)):
            await self.note(turn, self.state["notes"], "reply", 0)

    async def work(self, turn, envelope, data):
        made, why = 0, None
        try:
            for n in range(data.get("notes", 0)):
                await self.note(turn, data["path"], f"{self.name}{n}", data.get("wait_s", 0))
                made += 1
        except Refusal as refusal:
            why = refusal.problem.detail
        found = {"made": made, "why": why, "for": envelope.onbehalfof, "intent": envelope.intentid}
        for below in data.get("below", []):
            try:
                answer = await turn.ask(below["to"], below, budget=below.get("budget"))
                found.setdefault("below", []).append(answer.data)
            except Refusal as refusal:
                found.setdefault("below", []).append(refusal.problem.reason)
        if "request" in data:
            self.state |= {"after": data["after"], "notes": data["path"]}
            turn.request(data["request"], {}, budget=data.get("budget"))
        if "spawn" in data:
            turn.spawn(data["spawn"], budget=data.get("budget"))
        if data.get("fail"):
            await self.note(turn, data["path"], "more", 0)
        while data.get("busy"):
            await turn.perform("notes.again", path=data["path"], text="busy", wait_s=0.05)
        return found

    async def note(self, turn, path, text, wait_s):
        await turn.perform("notes.again", path=path, text=text, wait_s=wait_s)
"""


def _lines(path: Path) -> int:
    return len(path.read_text().splitlines()) if path.exists() else 0


async def _used(gate: RunningGate) -> dict[str, Decimal]:
    """What each chain has cost by itself, without what is below it."""
    rows = await gate.rows("SELECT chain, SUM(amount) FROM used WHERE meter = 'noted' GROUP BY chain")
    return {chain: Decimal(int(amount)) * Decimal(RATES["rates"]["noted"]) / 1_000_000 for chain, amount in rows}


async def _chains(gate: RunningGate) -> list[tuple[str, str | None, str, str]]:
    rows = await gate.rows("SELECT chain_id, parent, opened_by, limits FROM chain ORDER BY created_at, chain_id")
    return [(row[0], row[1], row[2], row[3]) for row in rows]


async def test_three_agents_in_a_chain_each_with_less(quick_url: str, tmp_path: Path) -> None:
    """What is below counts above, a hop that asks for more gets what is above it, and a gate killed in the middle
    changes nothing of the sums."""
    async with running(quick_url, **RATES) as gate:
        code = await gate.code(SOURCE)
        for name in "abc":
            await gate.agent(name, code, "Link", **GRANTS)
        notes = str(tmp_path / "notes")
        last = {"to": "c", "path": notes, "notes": 5, "budget": {"money": 100.0}, "wait_s": 0.2}
        middle = {"to": "b", "path": notes, "notes": 2, "budget": {"money": 1.5, "active_s": 1000.0}, "below": [last]}
        first = {"path": notes, "notes": 1, "below": [middle, {"to": "b", "path": notes, "notes": 9}]}
        asked = asyncio.create_task(gate.ask("a", first, "m1", chain={"limits": {"money": 2.3}, "intent": "tidy up"}))
        await true(lambda: _lines(Path(notes)) >= 4)  # c has made one, or is at it
        gate.kill()
        gate.start()
        found = await asked
        below, beside = found["below"]
        assert (found["made"], below["made"], below["below"][0]["made"]) == (1, 2, 2)
        assert "budget of chain" in below["below"][0]["why"]
        assert "of 1.5 money" in below["below"][0]["why"]  # though it asked for 100
        assert beside["made"] == 1, "of 2.3 there was one left for what is asked without a budget of its own"
        assert {found["for"], below["for"], below["below"][0]["for"]} == {"test"}
        assert {found["intent"], below["below"][0]["intent"]} == {"m1"}
        (head, *_), (second, of, by, _), (third, under, _, cut) = await _chains(gate)
        assert (head, of, by, under, cut) == ("m1", "m1", "default/a", second, '{"money":1.5}')
        used = await _used(gate)
        assert used == {"m1": 2 * NOTE, second: 2 * NOTE, third: 2 * NOTE}
        report = usage.handlers(gate.store, CARD)["usage.report"]
        for chain, money in (("m1", "2.22"), (second, "1.48"), (third, "0.74")):
            of_chain: Any = await report(world.call("usage.report", now=time.time()), UsageReportInput(chain=chain))
            assert (of_chain.money, sum(Decimal(it.money) for it in of_chain.items)) == (money, Decimal(money))


async def test_whoever_asked_hears_that_the_budget_is_used_up(sqlite_url: str, tmp_path: Path) -> None:
    """An effect that is refused fails its turn, a turn with nothing left does not begin, one at work is cut off."""
    async with running(sqlite_url, **RATES) as gate:
        code = await gate.code(SOURCE)
        for name in "abc":
            await gate.agent(name, code, "Link", **GRANTS)
        notes = str(tmp_path / "notes")
        fails = {"to": "b", "path": notes, "notes": 1, "fail": True, "budget": {"effects": 1.0}}
        refused = {"to": "c", "path": notes, "budget": {"turns": 0.0}}
        busy = {"to": "c", "path": notes, "busy": True, "budget": {"active_s": 0.4}}
        found = await gate.ask("a", {"path": notes, "below": [fails, refused, busy]}, "m1")
        assert found["below"] == ["BUDGET_EXCEEDED"] * 3
        problems = await gate.rows("SELECT problem FROM turn WHERE outcome = 'failed' ORDER BY started_at")
        assert "of 1 effects that the budget of chain" in problems[0][0]
        assert "of 0 turns that the budget of chain" in problems[1][0]
        assert "was active for all the 0.4 s" in problems[2][0]
        counted = await gate.rows("SELECT SUM(amount) FROM used WHERE meter = 'turns' AND chain <> ''")
        assert [int(it[0]) for it in counted] == [2_000_000], "a turn that was not let begin is none"


async def test_replies_and_children_stay_within(sqlite_url: str, tmp_path: Path) -> None:
    """The answer to a request goes on in the chain of who asked; a child is within it for life."""
    async with running(sqlite_url, **RATES) as gate:
        code = await gate.code(SOURCE)
        for name in "ab":
            await gate.agent(name, code, "Link", **GRANTS)
        notes = tmp_path / "notes"
        about = {"path": str(notes), "request": "b", "after": 2, "spawn": "kid", "budget": {"effects": 1.0}}
        await gate.ask("a", about, "m1", chain={"limits": {"effects": 3.0}})
        await gate.until("SELECT 1 FROM agent WHERE name = 'a' AND version = 3", bool)
        assert (await _used(gate)) == {"m1": 2 * NOTE}
        (state,) = await gate.rows("SELECT state FROM agent WHERE name = 'a'")
        assert '"reply":["test","m1","m1"]' in state[0]
        (kid,) = await gate.until("SELECT chain FROM agent WHERE name = 'kid'", bool)
        assert [it[1] for it in await _chains(gate) if it[0] == kid[0]] == ["m1"]
        answer = await gate.ask("kid", {"path": str(notes), "notes": 3}, "m2")
        assert (answer["made"], _lines(notes)) == (1, 3)


async def test_an_agent_says_what_bounds_it(sqlite_url: str, tmp_path: Path) -> None:
    """`agents.inspect` shows the chain of the open turn: its limits, what was used of them, and what it is all for."""
    async with running(sqlite_url, **RATES) as gate:
        code = await gate.code(SOURCE)
        for name in "ab":
            await gate.agent(name, code, "Link", **GRANTS)
        notes = tmp_path / "notes"
        below = {"to": "b", "path": str(notes), "notes": 2, "wait_s": 1.0, "budget": {"money": 2.0}}
        said = {"limits": {"effects": 9.0}, "intent": "look around"}
        asked = asyncio.create_task(gate.ask("a", {"path": str(notes), "notes": 1, "below": [below]}, "m1", chain=said))
        await true(lambda: _lines(notes) == 3)
        inspect = inspection.handlers(gate.store, gate.client, CARD)["agents.inspect"]
        a, b = [(await inspect(world.call("agents.inspect"), Named(name=name))).chain for name in "ab"]  # type: ignore[attr-defined]
        assert (a.chain_id, a.limits, a.money, a.used["effects"]) == ("m1", {"effects": 9.0}, "0.74", 2.0)
        assert (b.parent, b.opened_by, b.limits, b.money) == ("m1", "default/a", {"money": 2.0}, "0.37")
        assert (b.on_behalf_of, b.intent) == ("test", "look around")
        assert (await asked)["below"][0]["made"] == 2
