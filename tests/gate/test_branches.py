"""Effects and coroutines of a turn side by side: at once, each once or in doubt, over the death of host and gate."""

import asyncio
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.gate.far import HELD, refused, settle
from tests.gate.running import RunningGate, running, true

pytestmark = pytest.mark.anyio

SOURCE = """
import asyncio

from ray_runtime import Agent, Refusal


def said(it):
    return it.problem.reason if isinstance(it, Refusal) else it["noted"] if isinstance(it, dict) else it


class Many(Agent):
    async def on_message(self, turn, envelope):
        promises = [turn.perform(it.pop("effect"), **it) for it in envelope.data]
        found = await turn.gather(*promises, return_exceptions=True)
        turn.send("nobody", len(found))
        return [said(it) for it in found]


class Mixed(Agent):
    async def on_message(self, turn, envelope):
        path, fault, seen = envelope.data["path"], envelope.data.get("fault", ""), []

        async def part(name, steps):
            for step in range(steps):
                found = await turn.perform("notes.again", path=path, text=f"{name}{step}", wait_s=0.05)
                seen.append([found["noted"], turn.random()])
                await turn.sleep(0.05)
            return name

        async def one():
            try:
                return (await turn.perform("notes.once", path=path, text="one", fault=fault))["noted"]
            except Refusal as refusal:
                return refusal.problem.reason

        found = await turn.gather(part("a", 2), one(), part("b", 3), turn.ask("echo", 1))
        return [*found[:3], found[3].data, sorted(it[0] for it in seen)]


class Person(Agent):
    async def on_message(self, turn, envelope):
        async def part():
            return [await turn.perform("notes.again", path=envelope.data, text=it, wait_s=0.3) for it in ("a", "b")]

        return await turn.gather(turn.ask_human("Shall I?"), part())


class Torn(Agent):
    async def on_message(self, turn, envelope):
        async def other():
            await turn.sleep(0.1)
            await asyncio.sleep(0)  # which ends the turn

        note = {"path": envelope.data["path"], "text": "x", "fault": "break"}
        if envelope.data.get("late"):
            note["wait_s"] = 0.8
        return await turn.gather(turn.perform("notes.once", **note), other())


class Echo(Agent):
    async def on_message(self, turn, envelope):
        return await turn.gather(turn.sleep(0.1), turn.sleep(0.05)) and envelope.data
"""
GRANTS: dict[str, Any] = {"mandate": {"grants": [{"effect": "notes.*", "connection": None}]}}
MIXED = ["a", "one", "b", 1, ["a0", "a1", "b0", "b1", "b2"]]


async def _agents(gate: RunningGate, **spec: Any) -> None:
    code = await gate.code(SOURCE)
    for name in ("Many", "Mixed", "Person", "Echo"):
        await gate.agent(name.lower(), code, name, **GRANTS, **spec)


def _nine(effect: str, path: Path, wait_s: float) -> list[dict[str, Any]]:
    return [{"effect": effect, "path": str(path), "text": f"n{it}", "wait_s": wait_s} for it in range(9)]


NAMES = [f"n{it}" for it in range(9)]


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


@pytest.mark.parametrize(
    ("dies", "effect", "answers"),
    [
        ("host", "notes.once", NAMES),
        ("gate", "notes.again", NAMES),
        ("gate", "notes.once", ["IN_DOUBT"] * 9),
    ],
)
async def test_a_death_amid_nine_effects(
    database_url: str, tmp_path: Path, dies: str, effect: str, answers: list[str]
) -> None:
    """All are on their way at once. Each is done once, or again under its key, or held and in doubt by itself."""
    async with running(database_url) as gate:
        await _agents(gate)
        notes = tmp_path / "notes"
        asked = asyncio.create_task(gate.ask("many", _nine(effect, notes, 0.8), "m1", 40))
        await true(lambda: len(_lines(notes)) == 9)
        assert await gate.rows("SELECT 1 FROM journal WHERE outcome IS NOT NULL") == [], "nothing was answered yet"
        if dies == "gate":
            gate.kill()
            gate.start()
        else:
            gate.hosts[0].kill()
            gate.host()
        assert await asked == answers
        assert len(set(_lines(notes))) == 9, "the key is turn, branch and position"
        assert len(_lines(notes)) == (18 if effect == "notes.again" else 9)
        told = await gate.rows("SELECT 1 FROM event WHERE type = 'effect.in_doubt'")
        assert len(told) == answers.count("IN_DOUBT")
        assert await gate.rows(HELD) == []
        assert len(await gate.rows("SELECT 1 FROM journal WHERE kind = 'send'")) == 1
        assert await gate.rows("SELECT outcome, attempts FROM turn WHERE message_id = 'm1'") == [("committed", 1)]


async def test_branches_wait_for_what_is_durable(quick_url: str, tmp_path: Path) -> None:
    """Effects of one go on while another sleeps or asks; suspended whenever all wait, and killed: the same answer."""
    async with running(quick_url) as gate:
        await _agents(gate, suspend_after_ms=0)
        first = {"path": str(tmp_path / "first")}
        assert await gate.ask("mixed", first, "m1") == MIXED
        second = tmp_path / "second"
        asked = asyncio.create_task(gate.ask("mixed", {"path": str(second)}, "m2", 40))
        await true(lambda: any(it.startswith("b1") for it in _lines(second)))
        gate.hosts[0].kill()
        gate.host()
        assert await asked == MIXED
        assert sorted(it.split()[0] for it in set(_lines(second))) == ["a0", "a1", "b0", "b1", "b2", "one"]
        assert len(_lines(second)) == 6
        assert await gate.rows("SELECT 1 FROM turn WHERE outcome <> 'committed'") == []


async def test_a_held_effect_holds_its_branch_alone(quick_url: str, tmp_path: Path) -> None:
    """The others end; then the agent is a row until an operator says what it was: sent again, and once more settled."""
    async with running(quick_url, hold_s=60.0) as gate:
        await _agents(gate)
        notes = tmp_path / "notes"
        asked = asyncio.create_task(gate.ask("mixed", {"path": str(notes), "fault": "break"}, "m1", 40))
        open_ = "SELECT kind FROM awaiting WHERE agent = 'agent_mixed' AND resolved_at IS NULL"
        await true(lambda: {it.split()[0] for it in _lines(notes)} == {"a0", "a1", "b0", "b1", "b2", "one"})
        await gate.until(open_, lambda rows: rows == [("effect",)])
        await gate.until("SELECT owner FROM agent WHERE name = 'mixed'", lambda rows: rows == [(None,)])
        await gate.until("SELECT outcome FROM turn WHERE message_id = 'm1'", lambda rows: rows == [("parked",)])
        held = await gate.rows(HELD)
        await settle(gate, held[0][0], "retry", branch="0.2")
        await true(lambda: len([it for it in _lines(notes) if it.startswith("one")]) == 2)
        await gate.until(HELD, lambda rows: len(rows) == 1)
        await settle(gate, held[0][0], "succeeded", branch="0.2", result={"noted": "by hand"})
        assert await asked == ["a", "by hand", *MIXED[2:]]
        assert len(_lines(notes)) == 7
        orders = await gate.rows("SELECT body FROM journal WHERE branch = 'order' ORDER BY position")
        reached = [tuple(it) for row in orders for it in orjson.loads(row[0])["came"]]
        assert len(reached) == len(set(reached)) == 12


async def test_a_branch_that_waits_for_a_person_keeps_no_other_from_going_on(quick_url: str, tmp_path: Path) -> None:
    """The gate dies amid an effect: what comes after it is done, while nobody has answered yet."""
    async with running(quick_url) as gate:
        await _agents(gate)
        notes = tmp_path / "notes"
        asked = asyncio.create_task(gate.ask("person", str(notes), "m1", 40))
        await true(lambda: len(_lines(notes)) == 1)
        gate.kill()
        gate.start()
        await gate.client.up()
        ((question_id, uid),) = await gate.rows("SELECT await_id, agent FROM awaiting WHERE kind = 'question'")
        await true(lambda: any(it.startswith("b") for it in _lines(notes)))
        given = {"question_id": question_id, "answer": "yes", "principal": "ann", "dry_run": False}
        await gate.client.control("answer", uid, given)
        assert [it["noted"] if isinstance(it, dict) else it for it in (await asked)[1]] == ["a", "b"]


@pytest.mark.parametrize("late", [False, True])
async def test_what_is_in_doubt_can_be_settled_when_another_branch_has_failed(
    quick_url: str, tmp_path: Path, *, late: bool
) -> None:
    """Whether it was held before the turn failed, or came to be in doubt after it: it is told, and nobody sends it."""
    async with running(quick_url, hold_s=60.0, turn_attempts_max=1) as gate:
        await gate.agent("torn", await gate.code(SOURCE), "Torn", **GRANTS)
        failed = await gate.ask("torn", {"path": str(tmp_path / "notes"), "late": late}, "m1")
        assert failed["reason"] == "NONDETERMINISTIC"
        ((turn_id, branch),) = await gate.until(
            "SELECT turn_id, branch FROM awaiting WHERE kind = 'effect' AND resolved_at IS NULL",
            lambda it: len(it) == 1,
        )
        assert await gate.rows("SELECT COUNT(*) FROM event WHERE type = 'effect.in_doubt'") == [(1,)]
        assert await refused(gate, turn_id, "retry", branch=branch) == "NOT_HELD"
        await settle(gate, turn_id, "failed", branch=branch)
        assert await gate.rows("SELECT outcome FROM journal WHERE kind = 'effect'") == [("failed",)]
        assert len(_lines(tmp_path / "notes")) == 1
