"""`turn.continue_as` on a real gate: a chain of turns in one place of the inbox, over deaths and suspension."""

import time

import orjson
import pytest

from tests.gate.running import RunningGate, running

pytestmark = pytest.mark.anyio

SOURCE = """
from pydantic import BaseModel
from ray_runtime import Agent


class Seen(BaseModel):
    got: list = []


class Chain(Agent):
    state: Seen

    async def on_message(self, turn, envelope):
        if envelope.data == "what?":
            return self.state.got
        self.state.got.append([envelope.data["n"], envelope.continues is not None])
        turn.send("sink", envelope.data["n"])
        for _ in range(envelope.data.get("awaits", 0)):
            await turn.sleep(0.01)
        if envelope.data["n"] == envelope.data.get("fail"):
            turn.send("no address!")
        if envelope.data["n"]:
            return turn.continue_as({**envelope.data, "n": envelope.data["n"] - 1})
        return "end"

    async def on_timer(self, turn, timer):
        left = 2 if timer.data is None else timer.data
        self.state.got.append([timer.subject, left])
        if left:
            turn.timer(timer.subject, cancel=True)
            turn.continue_as(left - 1)


class Sink(Agent):
    state: Seen

    async def on_message(self, turn, envelope):
        if envelope.data == "what?":
            return self.state.got
        self.state.got.append(envelope.data)


class Clock(Chain):
    async def on_start(self, turn):
        turn.timer("tick", after_s=0.01)
"""


async def test_a_chain_keeps_its_place_and_answers_at_its_end(postgresql_url: str) -> None:
    """Who asked hears the last turn; later messages wait; each turn has an id, a journal and limits of its own."""
    limits = {"limits": {"effects_max": 4, "journal_bytes_max": 65_536, "turn_s_max": 60}}
    async with running(postgresql_url) as gate:
        code = await gate.code(SOURCE)
        await gate.agent("sink", code, "Sink")
        uid = await gate.agent("chain", code, "Chain", suspend_after_ms=0, **limits)
        await gate.client.control("stop", uid, {})
        await gate.send("chain", {"n": 3, "awaits": 2}, "m1", time.time() + 60)
        await gate.send("chain", {"n": 10}, "m2")
        await gate.send("chain", {"n": 3, "awaits": 2}, "m1")  # once more
        await gate.client.control("wake", uid, {})
        assert await gate.ask("chain", "what?", "m3") == [
            *([n, n < 3] for n in (3, 2, 1, 0)),
            *([n, n < 10] for n in range(10, -1, -1)),
        ]
        assert await gate.rows("SELECT result FROM awaiting WHERE await_id = 'm1' AND result LIKE '%end%'")
        turns = await gate.rows("SELECT turn_id FROM turn WHERE agent = 'agent_chain' AND entries = 4")
        assert len(turns) == 3
        assert await gate.ask("sink", "what?", "m4") == [3, 2, 1, 0, *range(10, -1, -1)]
        assert await gate.rows("SELECT 1 FROM inbox") == []


async def test_a_chain_outlives_gate_and_host(shared: RunningGate) -> None:
    """Both are killed in the middle of it: no turn of it is there twice, and none is left out."""
    code = await shared.code(SOURCE)
    await shared.agent("sink", code, "Sink")
    await shared.agent("chain", code, "Chain", suspend_after_ms=0)
    await shared.send("chain", {"n": 15, "awaits": 1}, "d1", time.time() + 60)
    query = "SELECT 1 FROM turn WHERE agent = 'agent_chain' AND outcome = 'committed'"
    await shared.until(query, lambda rows: len(rows) >= 5)
    shared.hosts[-1].kill()
    shared.kill()
    shared.start()
    shared.host()
    await shared.client.up()
    await shared.until("SELECT 1 FROM awaiting WHERE await_id = 'd1' AND outcome = 'answered'", bool, 30)
    assert await shared.ask("sink", "what?", "d2") == list(range(15, -1, -1))


async def test_a_chain_that_fails_is_one_dead_letter(shared: RunningGate) -> None:
    """With the data of the turn that failed; what was committed before stays, and who asked hears of it."""
    await shared.agent("failing", await shared.code(SOURCE), "Chain")
    found = await shared.ask("failing", {"n": 3, "fail": 1}, "f1")
    assert found["reason"] == "INVALID_VALUE"
    ((body,),) = await shared.rows("SELECT body FROM dead_letter WHERE agent = 'agent_failing'")
    assert orjson.loads(body)["data"]["n"] == 1
    assert await shared.ask("failing", "what?", "f2") == [[3, False], [2, True]]
    assert await shared.ask("failing", {"n": 0}, "f3") == "end"


async def test_a_timer_goes_on_though_it_is_cancelled(shared: RunningGate) -> None:
    """The firing that is handled, and what it goes on as, are not taken away with the timer."""
    await shared.agent("clock", await shared.code(SOURCE), "Clock")
    rows = await shared.until("SELECT state FROM agent WHERE name = 'clock' AND version = 4", bool)
    assert orjson.loads(rows[0][0])["got"] == [["tick", 2], ["tick", 1], ["tick", 0]]
