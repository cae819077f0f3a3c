"""Nobody waits any more: what was asked ends, all the way down, and deadlines only narrow."""

import asyncio
from pathlib import Path

import orjson
import pytest

from tests.faults.points import Arming
from tests.gate.far import settle
from tests.gate.running import RunningGate, running
from tests.gate.zoo import SOURCE as ZOO

pytestmark = pytest.mark.anyio
SOURCE = """
from ray_runtime import Agent, Refusal


class Boss(Agent):
    async def on_message(self, turn, envelope):
        if "first" in envelope.data:
            return (await turn.ask_all(envelope.data["first"], 0.3, first=True)).answers[0].data
        return (await turn.ask(envelope.data["whom"], envelope.data["what"], envelope.data.get("s", 60))).data


class Fast(Agent):
    async def on_message(self, turn, envelope):
        await turn.sleep(envelope.data)
        return "fast"


class Slow(Agent):
    async def on_message(self, turn, envelope):
        turn.send("ledger", "begun")
        return (await turn.ask("deep", 3600)).data


class Goes(Slow):
    async def on_message(self, turn, envelope):
        if envelope.continues is None:
            return turn.continue_as(envelope.data)
        return await super().on_message(turn, envelope)


class Deep(Agent):
    async def on_message(self, turn, envelope):
        await turn.sleep(envelope.data)
        return "deep"


class Ledger(Agent):
    async def on_message(self, turn, envelope):
        self.state["seen"] = self.state.get("seen", 0) + 1
        return self.state["seen"]
"""
PARKED = "SELECT 1 FROM turn t JOIN agent a ON a.uid = t.agent WHERE t.outcome = 'parked' AND a.name = 'deep'"
ENDED = "SELECT a.name, t.outcome FROM turn t JOIN agent a ON a.uid = t.agent WHERE t.trigger = 'message'"
TOLD = "SELECT name FROM event WHERE type = 'turn.cancelled' ORDER BY name"


async def cast(gate: RunningGate) -> None:
    code = await gate.code(SOURCE)
    for name in ("boss", "fast", "slow", "goes", "deep", "ledger"):
        await gate.agent(name, code, name.capitalize(), suspend_after_ms=0)
    await gate.until("SELECT 1 FROM turn WHERE finished_at > 0", lambda rows: len(rows) == 6)


async def ended_below(gate: RunningGate, slow: str = "slow") -> None:
    """The slow one and the one that it asks; both go on with what comes next, and nothing of theirs is left."""
    await gate.until(TOLD, lambda rows: [row[0] for row in rows] == ["deep", slow])
    assert await gate.rows("SELECT 1 FROM awaiting WHERE resolved_at IS NULL") == []
    assert await gate.rows("SELECT 1 FROM turn WHERE finished_at IS NULL") == []
    assert await gate.rows("SELECT 1 FROM dead_letter WHERE name <> 'boss'") == []
    assert await gate.ask("deep", 0, "d1") == "deep"
    assert await gate.ask("ledger", 0, "l1") == 2, "what it sent stays sent"


async def test_whoever_is_needed_no_more_ends_with_all_below(database_url: str) -> None:
    """The first of two answers: the other one and its own question are over."""
    async with running(database_url) as gate:
        await cast(gate)
        assert await gate.ask("boss", {"first": ["slow", "fast"]}, "m1") == "fast"
        await ended_below(gate)
        assert await gate.rows("SELECT 1 FROM event WHERE type = 'answer.late'") == []


async def test_what_a_deleted_agent_had_asked_ends(quick_url: str) -> None:
    """Its question, and what that had asked."""
    async with running(quick_url) as gate:
        await cast(gate)
        await gate.send("boss", {"whom": "slow", "what": 1}, "m1")
        await gate.until(PARKED, bool)
        await gate.client.control("remove", "agent_boss", {})
        await ended_below(gate)


@pytest.mark.parametrize("slow", ["slow", "goes"])
async def test_a_gate_that_died_finds_what_was_cancelled(
    quick_url: str, slow: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It committed the answer that made the other question needless, and told nobody. Whether its turn goes on as
    another does not matter."""
    arming = Arming(tmp_path, monkeypatch)
    async with running(quick_url) as gate:
        await cast(gate)
        asked = asyncio.create_task(gate.ask("boss", {"first": [slow, "fast"]}, "m1"))
        await gate.until(PARKED, bool)
        arming.arm("gate.commit.committed")
        await arming.fired()
        assert gate.gate is not None
        gate.gate.wait(timeout=10)
        gate.start()
        assert await asked == "fast"
        await ended_below(gate, slow)


async def test_a_question_that_did_not_begin_does_not(quick_url: str) -> None:
    """It waits behind another turn when its asker is deleted; it never runs."""
    async with running(quick_url) as gate:
        await cast(gate)
        await gate.send("deep", 0.5, "d0")
        await gate.until(PARKED, bool)
        await gate.send("boss", {"whom": "deep", "what": 3600}, "m1")
        await gate.until("SELECT 1 FROM awaiting WHERE kind = 'ask'", bool)
        await gate.client.control("remove", "agent_boss", {})
        assert await gate.ask("deep", 0, "d1") == "deep"
        assert [row[0] for row in await gate.rows(TOLD)] == ["deep"]
        assert await gate.rows("SELECT 1 FROM journal j JOIN turn t ON t.turn_id = j.turn_id WHERE j.body LIKE '%3600%'"
                               " AND t.agent = 'agent_deep'") == []  # fmt: skip


async def test_what_is_in_doubt_is_settled_first(quick_url: str, tmp_path: Path) -> None:
    """The turn that is for nobody keeps its held effect until an operator has said what came of it."""
    async with running(quick_url, hosts=2, hold_s=60) as gate:
        await cast(gate)
        mandate = {"grants": [{"effect": "notes.once"}]}
        await gate.agent("noter", await gate.code(ZOO), "Noter", suspend_after_ms=0, mandate=mandate)
        note = {"effect": "notes.once", "path": str(tmp_path / "notes"), "text": "x", "fault": "break"}
        await gate.send("boss", {"whom": "noter", "what": note}, "m1")
        held = await gate.until("SELECT turn_id FROM awaiting WHERE kind = 'effect'", bool)
        await gate.until("SELECT 1 FROM agent WHERE name = 'noter' AND owner IS NULL", bool)
        await gate.client.control("remove", "agent_boss", {})
        assert await gate.rows("SELECT 1 FROM awaiting WHERE kind = 'ask' AND outcome = 'cancelled'") == [(1,)]
        assert (await settle(gate, held[0][0], "failed")).outcome == "failed"
        await gate.until(TOLD, lambda rows: [row[0] for row in rows] == ["noter"])
        assert (tmp_path / "notes").read_text().count("x") == 1


async def test_deadlines_only_narrow(quick_url: str) -> None:
    """Who is asked with a minute to go asks nobody for a day."""
    async with running(quick_url) as gate:
        await cast(gate)
        await gate.send("boss", {"whom": "slow", "what": 1, "s": 60}, "m1")
        await gate.until(PARKED, bool)
        until = dict(await gate.rows("SELECT target, until FROM awaiting WHERE kind = 'ask'"))
        assert until["default/deep"] == pytest.approx(until["default/slow"], abs=0.01)
        ((body,),) = await gate.rows("SELECT body FROM inbox WHERE agent = 'agent_deep'")
        above = orjson.loads((await gate.rows("SELECT body FROM inbox WHERE agent = 'agent_slow'"))[0][0])
        assert orjson.loads(body)["deadline"] == above["deadline"]


CARRYING = """
from ray_runtime import Agent


class Head(Agent):
    async def on_message(self, turn, envelope):
        turn.send("tail", 1)
        turn.publish("news", 1)
        turn.spawn("child")
        turn.request("tail", 1)
        return "asked"

    async def on_reply(self, turn, reply):
        await turn.ask("tail", 2)


class Tail(Agent):
    async def on_message(self, turn, envelope):
        if envelope.data == 2:
            await turn.sleep(3600)
"""


async def test_all_that_is_done_because_of_a_question_has_its_deadline(quick_url: str) -> None:
    """A message, a child's start, what is published, and what an answer leads to, also after it was answered."""
    async with running(quick_url) as gate:
        code = await gate.code(SOURCE + CARRYING)
        await gate.channel("news")
        for name in ("boss", "head", "tail"):
            await gate.agent(name, code, name.capitalize(), suspend_after_ms=0)
        assert await gate.ask("boss", {"whom": "head", "what": 0, "s": 60}, "m1") == "asked"
        asked = "SELECT until FROM awaiting WHERE kind = 'ask' ORDER BY since"
        (above,), (below,) = await gate.until(asked, lambda rows: len(rows) == 2)
        assert below == pytest.approx(above, abs=0.01)
        told = "SELECT message FROM turn UNION ALL SELECT body FROM inbox UNION ALL SELECT body FROM channel_message"
        bodies = [orjson.loads(row[0]) for row in await gate.rows(told)]
        ((head,),) = await gate.rows("SELECT message FROM turn WHERE agent = 'agent_head' AND trigger = 'message'")
        until = orjson.loads(head)["deadline"]
        carried = {it["type"]: it.get("deadline") for it in bodies if it["source"].endswith("/head")}
        assert carried == {"steward.message": until, "steward.start": until}
