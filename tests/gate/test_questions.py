"""Questions to people on a real gate: over suspension, a stop, and the deaths of everything."""

from typing import Any

import orjson
import pytest

from tests.gate.running import RunningGate, running

pytestmark = pytest.mark.anyio

SOURCE = """
from ray_runtime import Agent


class Person(Agent):
    async def on_message(self, turn, envelope):
        said = await turn.ask_human("Shall I?", ["yes", "no"])
        turn.send("nobody", said)
        return said
"""
OPEN = "SELECT await_id, agent FROM awaiting WHERE kind = 'question' AND resolved_at IS NULL"
SUSPENDED = "SELECT 1 FROM agent WHERE name = 'person' AND owner IS NULL"


async def answer(gate: RunningGate, said: Any) -> None:
    ((question_id, uid),) = await gate.until(OPEN, lambda rows: len(rows) == 1)
    given = {"question_id": question_id, "answer": said, "principal": "ann", "dry_run": False}
    await gate.client.control("answer", uid, given)


async def came(gate: RunningGate, message_id: str) -> Any:
    query = f"SELECT result FROM awaiting WHERE await_id = '{message_id}' AND resolved_at IS NOT NULL"
    return orjson.loads((await gate.until(query, bool))[0][0])


async def test_a_question_outlives_stop_gate_and_host(quick_url: str) -> None:
    """It was asked once, is a row while it waits, is answered while its agent is stopped, and heard after `wake`."""
    async with running(quick_url) as gate:
        uid = await gate.agent("person", await gate.code(SOURCE), "Person", suspend_after_ms=0)
        await gate.send("person", None, "m1", 9e9)
        await gate.until(OPEN, bool)
        await gate.until(SUSPENDED, bool)
        gate.hosts[-1].kill()
        gate.kill()
        gate.start()
        gate.host()
        await gate.client.up()
        await gate.client.control("stop", uid, {})
        await answer(gate, "yes")
        assert await gate.rows("SELECT 1 FROM turn WHERE outcome = 'parked'") == [(1,)]
        await gate.client.control("wake", uid, {})
        assert await came(gate, "m1") == "yes"
        assert len(await gate.rows("SELECT 1 FROM event WHERE type = 'question.asked'")) == 1
        assert await gate.rows("SELECT 1 FROM journal WHERE kind = 'question' AND outcome IS NULL") == []
