"""Gatherings on a real gate: several awaits of one turn, over suspension, deaths, late answers and rings."""

import asyncio
import time
from typing import Any

import orjson
import pytest

from tests.gate.running import RunningGate, running

pytestmark = pytest.mark.anyio

SOURCE = """
import time
from ray_runtime import Agent, Refusal


class Slow(Agent):
    async def on_message(self, turn, envelope):
        if envelope.data["s"]:
            await turn.sleep(envelope.data["s"].get(self.name, 0))
        if envelope.data.get("fail") == self.name:
            raise ValueError("on purpose")
        return self.name


class Both(Agent):
    async def on_message(self, turn, envelope):
        asks = [turn.ask(it, envelope.data) for it in envelope.data["of"]]
        *found, _ = await turn.gather(*asks, turn.sleep(envelope.data.get("least", 0.01)), return_exceptions=True)
        return [it.problem.reason if isinstance(it, Refusal) else it.data for it in found]


class All(Agent):
    async def on_message(self, turn, envelope):
        how = {k: v for k, v in envelope.data.items() if k in ("first", "quorum", "deadline_s")}
        found = await turn.ask_all(envelope.data["of"], envelope.data, **how)
        again = await turn.ask_all(envelope.data["of"], {"s": None})
        failures = {k: v.reason for k, v in found.failures.items()}
        return [[it.data for it in found.answers], failures, sorted(found.open), len(again.answers)]


class Ring(Agent):
    async def on_message(self, turn, envelope):
        if not envelope.data:
            return "end"
        found = await turn.ask_all(envelope.data[0], envelope.data[1:])
        return [len(found.answers), sorted(it.reason for it in found.failures.values())]
"""
NAMES = ("a", "b", "c")
OPEN = "SELECT kind FROM awaiting WHERE turn_id IS NOT NULL AND resolved_at IS NULL"


async def zoo(gate: RunningGate, suspend_after_ms: int) -> None:
    code = await gate.code(SOURCE)
    for name, cls in (*((it, "Slow") for it in NAMES), ("both", "Both"), ("all", "All")):
        await gate.agent(name, code, cls, suspend_after_ms=suspend_after_ms)
    await gate.until("SELECT 1 FROM turn WHERE trigger = 'start' AND outcome = 'committed'", lambda it: len(it) == 5)


def delays(*seconds: float) -> dict[str, float]:
    return dict(zip(NAMES, seconds, strict=True))


async def nothing_left(gate: RunningGate) -> None:
    """No await is open, and the journal says what came of each."""
    await gate.until(OPEN, lambda rows: rows == [])
    said = "SELECT 1 FROM journal j JOIN turn t ON t.turn_id = j.turn_id WHERE t.outcome = 'committed'"
    assert await gate.rows(f"{said} AND j.kind IN ('ask', 'sleep', 'gather') AND j.outcome IS NULL") == []


@pytest.mark.parametrize("suspend_after_ms", [0, 60_000])
async def test_several_are_waited_for_at_once(quick_url: str, suspend_after_ms: int) -> None:
    """In place and by replay: results in the order of the promises, failures in their place, a nobody too."""
    async with running(quick_url, turn_attempts_max=1) as gate:
        await zoo(gate, suspend_after_ms)
        asked = {"of": ["a", "b", "nobody", "c"], "s": delays(0.15, 0.05, 0.1), "fail": "b"}
        found = await gate.ask("both", asked, "m1")
        assert found == ["a", "HANDLER_ERROR", "TARGET_NOT_FOUND", "c"]
        await nothing_left(gate)


@pytest.mark.parametrize("suspend_after_ms", [0, 60_000])
async def test_all_first_and_quorum(quick_url: str, suspend_after_ms: int) -> None:
    """Answers in the order in which they came; the rest is closed, and whoever was asked for it ends."""
    async with running(quick_url) as gate:
        await zoo(gate, suspend_after_ms)
        asked = {"of": list(NAMES), "s": delays(0.45, 0.01, 0.25)}
        assert await gate.ask("all", asked, "m1") == [["b", "c", "a"], {}, [], 3]
        assert await gate.ask("all", {**asked, "first": True}, "m2") == [["b"], {}, ["default/a", "default/c"], 3]
        assert await gate.ask("all", {**asked, "quorum": 2}, "m3") == [["b", "c"], {}, ["default/a"], 3]
        await gate.until("SELECT 1 FROM event WHERE type = 'turn.cancelled'", lambda rows: len(rows) == 3)
        late = {**asked, "deadline_s": 0.35}
        assert await gate.ask("all", late, "m4") == [["b", "c"], {"default/a": "DEADLINE"}, [], 3]
        await nothing_left(gate)


async def test_deaths_between_the_answers(quick_url: str) -> None:
    """Gate and host are killed after each answer: the turn comes to the same, and each was asked once."""
    async with running(quick_url) as gate:
        await zoo(gate, 0)
        answered = "SELECT 1 FROM awaiting WHERE kind = 'ask' AND await_id LIKE 'gather%' AND outcome = 'answered'"
        asked = {"of": list(NAMES), "s": delays(0.1, 1.2, 2.4), "least": 0.2}
        await gate.send("both", asked, "m1", time.time() + 60)
        for count in (1, 2):
            await gate.until(answered, lambda rows, count=count: len(rows) >= count)  # type: ignore[misc]
            gate.hosts[-1].kill()
            gate.kill()
            gate.start()
            gate.host()
            await gate.client.up()
        rows = await gate.until(
            "SELECT result FROM awaiting WHERE await_id = 'm1' AND resolved_at IS NOT NULL", bool, timeout_s=30
        )
        assert orjson.loads(rows[0][0]) == ["a", "b", "c"]
        doubled = await gate.rows("SELECT message_id FROM turn GROUP BY agent, message_id HAVING COUNT(*) > 1")
        assert doubled == []
        await nothing_left(gate)


async def test_rings_through_gatherings_break(quick_url: str) -> None:
    """One question of each ring fails, whoever closes it; the others are answered, and nobody hangs."""
    async with running(quick_url) as gate:
        code = await gate.code(SOURCE)
        for name in ("one", "two", "three"):
            await gate.agent(name, code, "Ring", suspend_after_ms=10)
        path: list[Any] = [["two", "three"], ["one"]]
        answers, reasons = await gate.ask("one", path, "r1")
        assert answers + len(reasons) == 2
        both = await asyncio.gather(gate.ask("one", [["two"], []], "r2"), gate.ask("two", [["one"], []], "r3"))
        assert len(both) == 2
        assert await gate.ask("three", [], "r4") == "end"
        await nothing_left(gate)


FIRST = """
from ray_runtime import Agent


class Head(Agent):
    async def on_message(self, turn, envelope):
        found = await turn.ask_all(["back", "late"], 1, first=True)
        return found.answers[0].data


class Back(Agent):
    async def on_message(self, turn, envelope):
        return (await turn.ask("head", 1)).data


class Late(Agent):
    async def on_message(self, turn, envelope):
        await turn.sleep(1)
        return "late"
"""


async def test_who_waits_for_the_first_closes_no_ring_while_another_can_answer(quick_url: str) -> None:
    """One of those asked waits for the asker: the other answers, and no question fails over that."""
    async with running(quick_url) as gate:
        code = await gate.code(FIRST)
        for name in ("head", "back", "late"):
            await gate.agent(name, code, name.capitalize())
        assert await gate.ask("head", 1, "m1") == "late"
        assert await gate.rows("SELECT 1 FROM awaiting WHERE target = 'default/head' AND kind = 'ask'") == [(1,)]
        assert await gate.rows("SELECT 1 FROM awaiting WHERE result LIKE '%ASK_CYCLE%'") == []
