"""`turn.find`: an agent finds who is in its namespace, by a journaled read, without a grant. On both databases."""

import orjson
import pytest

from controlplane.mesh.traits import put_traits, traits_of
from controlplane.store.unit import Unit
from ray_runtime import Agent, Refusal, Turn
from ray_runtime.testing import run_turn
from tests.gate.running import RunningGate, running

pytestmark = pytest.mark.anyio
SOURCE = """
from ray_runtime import Agent, Refusal


class Finder(Agent):
    async def on_message(self, turn, envelope):
        found = await turn.find(**envelope.data)
        await turn.sleep(0.3)  # suspended meanwhile, and replayed
        return [[it.name, it.state, it.found_by, it.address] for it in found]


class Echo(Agent):
    async def on_message(self, turn, envelope):
        return envelope.data
"""
JUDGE = {"purpose": "Diagnoses alarms of disks", "grants": []}


async def judge(gate: RunningGate, code: str, name: str, namespace: str = "default") -> None:
    await gate.agent(name, code, "Echo", namespace=namespace, mandate=JUDGE)
    unit = Unit()
    put_traits(unit, namespace, name, frozenset(), traits_of({"mandate": JUDGE}))
    assert await gate.store.write(unit)


async def test_an_agent_finds_its_own_namespace(quick_url: str) -> None:
    """By meaning and by name, once for the turn: who comes later is not in its replay; others' are never found."""
    async with running(quick_url) as gate:
        code = await gate.code(SOURCE)
        await judge(gate, code, "judge")
        await judge(gate, code, "theirs", "elsewhere")
        await gate.agent("finder", code, "Finder", suspend_after_ms=20)
        found = await gate.ask("finder", {"meaning": "who can judge a disk alarm?"}, "m1")
        assert [(it[0], it[3]) for it in found] == [("judge", "default/judge")]
        assert [it[0] for it in await gate.ask("finder", {"name": "the"}, "m2")] == []
        assert [it[:3:2] for it in await gate.ask("finder", {"query": "judge"}, "m3")] == [["judge", "name"]]
        rows = await gate.rows("SELECT verdict, outcome FROM journal WHERE kind = 'effect'")
        assert [(orjson.loads(it[0])["outcome"], it[1]) for it in rows] == [("allow", "succeeded")] * 3


def test_what_is_asked_is_checked_at_the_call() -> None:
    """And what was found comes as models."""

    class Finder(Agent):
        async def on_message(self, turn: Turn, envelope: object) -> object:
            try:
                await turn.find(limit=0)
            except Refusal as refusal:
                reason = refusal.problem.reason
            return [reason, *[it.name for it in await turn.find(meaning="disks")]]

    agent = {
        "namespace": "default", "name": "judge", "labels": {}, "purpose": "", "capabilities": [],
        "state": "suspended", "found_by": "meaning", "score": 0.7,
    }  # fmt: skip
    found = {"items": [agent], "more": False, "complete": True}
    assert run_turn(Finder, answers={"discovery.find": found}).reply == ["INVALID_VALUE", "judge"]
