"""Functions that Ray runs for a turn which waits, on a real gate: each once, over the death of whoever is there."""

import asyncio
from typing import Any

import orjson
import pytest

from controlplane.store.unit import Unit
from tests.gate.computer import Computer
from tests.gate.far import HELD
from tests.gate.running import RunningGate, running, true
from tests.gate.test_nodes import drain

pytestmark = pytest.mark.anyio

SOURCE = """
from ray_runtime import Agent, Refusal


class Thinker(Agent):
    async def on_message(self, turn, envelope):
        data = dict(envelope.data)
        try:
            return await turn.compute("jobs:think", *data.pop("args", ()), **data)
        except Refusal as refusal:
            return [refusal.problem.reason, refusal.problem.detail]


class First(Agent):
    async def on_message(self, turn, envelope):
        await turn.ask_all(["thinker", "quick"], {}, first=True)
        return await turn.ask("quick", {})


class Quick(Agent):
    async def on_message(self, turn, envelope):
        await turn.sleep(0.3)


class Both(Agent):
    async def on_message(self, turn, envelope):
        async def twice():
            return [await turn.compute("jobs:a"), await turn.compute("jobs:b", envelope.data)]

        return await turn.gather(twice(), turn.compute("jobs:c"), turn.perform("machine.read", what="memory"))
"""
TASK_S = "SELECT SUM(amount) FROM used WHERE meter = 'task_s'"
OPEN = "SELECT attempts FROM awaiting WHERE kind = 'compute' AND resolved_at IS NULL"
RECEIPT = "SELECT outcome, result FROM awaiting WHERE kind = 'compute'"
CONFINE = "UPDATE resource SET generation = generation + 1, spec = ? WHERE kind = 'Agent'"
LOOKED_S = 2.5  # in which the gate looks at what is open once more
OWNER = "SELECT owner FROM agent WHERE name = 'thinker'"


async def _thinker(gate: RunningGate, cls: str = "Thinker", name: str = "", **spec: Any) -> None:
    grants = [{"effect": it, "connection": None} for it in ("compute.run", "machine.read")]
    more = {"mandate": {"grants": grants}, "suspend_after_ms": 20, **spec}
    await gate.agent(name or cls.lower(), await gate.code(SOURCE), cls, **more)


async def test_a_suspended_turn_gets_what_was_computed_over_the_death_of_the_gate(database_url: str) -> None:
    """Nobody begins it twice; its receipt, what it used and the answer are there once."""
    async with running(database_url) as gate:
        computer = Computer(gate.socket)
        await _thinker(gate)
        given = {"args": [3], "resources": {"num_cpus": 2}, "many": True}
        asked = asyncio.create_task(gate.ask("thinker", given, "m1", 40))
        key = await computer.task()
        begun = orjson.loads(computer.begun[key].arguments)
        assert begun == {
            "function": "jobs:think", "args": [3], "kwargs": {"many": True}, "resources": {"num_cpus": 2.0}
        }  # fmt: skip
        await gate.until(OWNER, lambda rows: rows == [(None,)])
        gate.kill()
        computer.end(key, "succeeded", {"thought": 42}, 1.5)
        gate.start()
        assert await asked == {"thought": 42}
        await true(lambda: computer.wanted == [])
        assert list(computer.begun) == [key]
        journal = "SELECT kind, outcome, verdict IS NOT NULL FROM journal WHERE kind = 'effect'"
        assert [(it[0], it[1], bool(it[2])) for it in await gate.rows(journal)] == [("effect", "succeeded", True)]
        used = "SELECT amount FROM used WHERE effect = 'compute.run' AND meter = 'cpu_s'"
        assert await gate.rows(used) == [(1_500_000,)]
        await computer.close()


async def test_what_is_lost_begins_anew_as_often_as_it_may(quick_url: str) -> None:
    """Its worker dies, then its placer; then it has failed, and says so."""
    async with running(quick_url) as gate:
        first = Computer(gate.socket)
        await _thinker(gate)
        asked = asyncio.create_task(gate.ask("thinker", {"retries": 2}, "m1", 40))
        key = await first.task()
        first.started(key)
        first.end(key, "lost", "the worker died", 7)
        first.started(await first.task(attempt=2), 11)
        await first.close()
        second = Computer(gate.socket, "r2")
        key = await second.task(attempt=3)
        assert key not in first.begun
        second.end(key, "lost", "out of memory", 13)
        reason, detail = await asked
        assert (reason, "attempt 3 of 3: out of memory" in detail) == ("COMPUTE_LOST", True)
        events = await gate.rows("SELECT data FROM event WHERE type = 'compute.lost' ORDER BY cursor")
        assert [orjson.loads(it[0])["why"] for it in events] == [
            "the worker died", "the placer that had it has ended"
        ]  # fmt: skip
        ((taken,),) = await gate.rows(TASK_S)
        assert 31 <= taken / 1_000_000 < 51, "what Ray ran is counted, though nothing came of it"
        await second.close()


async def test_what_nobody_waits_for_is_ended(quick_url: str) -> None:
    """When its time is over, its question is cancelled, or its agent deleted. What comes of it then is nobody's."""
    async with running(quick_url, hosts=2) as gate:
        computer = Computer(gate.socket)
        await _thinker(gate)
        await _thinker(gate, "First")
        await _thinker(gate, "Quick")
        asked = asyncio.create_task(gate.ask("thinker", {"deadline_s": 1}, "m1"))
        late = await computer.task()
        computer.started(late, 100)
        assert (await asked)[0] == "DEADLINE"
        await true(lambda: computer.wanted == [])
        computer.end(late, "succeeded", 1)
        asked = asyncio.create_task(gate.ask("first", None, "m2"))
        await true(lambda: len(computer.wanted) == 1)
        computer.started(computer.wanted[0], 200)
        await asked
        await true(lambda: computer.wanted == [])
        await gate.send("thinker", {}, "m3")
        await true(lambda: len(computer.wanted) == 1)
        computer.started(computer.wanted[0], 400)
        await gate.client.control("look", "agent_thinker", {})
        await gate.client.control("remove", "agent_thinker", {})
        await true(lambda: computer.wanted == [])
        assert await gate.rows(OPEN) == []
        ((taken,),) = await gate.rows(TASK_S)
        assert 700 <= taken / 1_000_000 < 760, "what each ran until then is counted"
        await computer.close()


async def test_what_no_node_has_and_what_is_not_granted_is_said(quick_url: str) -> None:
    """In bounded time, with what there is; nothing was begun."""
    async with running(quick_url, compute_fit_s=0.1) as gate:
        computer = Computer(gate.socket)
        await _thinker(gate)
        reason, detail = await gate.ask("thinker", {"resources": {"num_gpus": 1, "custom": {"quantum": 2}}}, "m1")
        assert reason == "NO_RESOURCES"
        assert "no node has CPU 1, GPU 1, quantum 2 (nodes: local: CPU 4)" in detail
        await gate.agent("bare", await gate.code(SOURCE), "Thinker")
        assert (await gate.ask("bare", {}, "m2"))[0] == "NOT_GRANTED"
        assert computer.begun == {}
        await computer.close()


async def test_what_ray_refuses_is_no_compute(quick_url: str) -> None:
    """The turn hears what is wrong of it; nothing was begun."""
    async with running(quick_url) as gate:
        computer = Computer(gate.socket, gpus=4)
        await _thinker(gate)
        for n, (asked, said) in enumerate(
            [({"num_gpus": 1.5}, "num_gpus: 1.5 is no"), ({"custom": {"GPU": 1}}, "custom/GPU: GPU is a name of Ray's")]
        ):
            reason, detail = await gate.ask("thinker", {"resources": asked}, f"m{n}")
            assert (reason, said in detail, "/arguments/resources" in detail) == ("INVALID_VALUE", True, True), detail
        assert computer.begun == {}
        await computer.close()


@pytest.mark.parametrize("told", [True, False], ids=["told", "at-its-start"])
async def test_what_runs_of_an_agent_that_becomes_confined_is_ended(quick_url: str, told: bool) -> None:
    """At once where the gate hears of it, before it is begun again where it comes back; the receipt says why."""
    async with running(quick_url) as gate:
        first = computer = Computer(gate.socket)
        await _thinker(gate)
        await gate.send("thinker", {}, "m1")
        await first.task()
        if not told:
            await first.close()
        ((spec,),) = await gate.rows("SELECT spec FROM resource WHERE kind = 'Agent'")
        confined = orjson.dumps({**orjson.loads(spec), "isolation": "confined"}).decode()
        assert await gate.store.write(Unit().raw(CONFINE, [confined], 1))
        if told:
            await gate.client.control("reload", "agent_thinker", {})
        else:
            gate.kill()
            gate.start()
            computer = Computer(gate.socket, "r2")
        ((outcome, result),) = await gate.until(RECEIPT, lambda rows: rows[0][0] is not None)
        assert (outcome, orjson.loads(result)["reason"]) == ("failed", "NO_CONFINEMENT")
        await true(lambda: computer.wanted == [])
        assert told or computer.begun == {}
        await computer.close()


async def test_a_drained_node_is_begun_nothing_on(quick_url: str) -> None:
    """What others can run goes to them; what it alone can waits for it, and does not fail."""
    async with running(quick_url, compute_fit_s=0.1) as gate:
        computer = Computer(gate.socket, beside=[{"node": "far", "ray_node_id": "2", "resources": {"GPU": 1.0}}])
        await _thinker(gate)
        needy = asyncio.create_task(gate.ask("thinker", {"resources": {"num_cpus": 0, "num_gpus": 1}}, "m1", 40))
        first = await computer.task()
        assert computer.begun[first].avoid == []
        await drain(gate, "far")
        computer.end(first, "lost", "its worker died")
        await _thinker(gate, name="other")
        modest = asyncio.create_task(gate.ask("other", {}, "m2", 40))
        await true(lambda: len(computer.begun) == 2)
        (second,) = computer.begun.keys() - {first}
        assert computer.begun[second].avoid == ["2"]
        computer.end(second, "succeeded", 2)
        assert await modest == 2
        await gate.until(OPEN, lambda rows: rows == [(1,)])
        await asyncio.sleep(LOOKED_S)
        assert len(computer.begun) == 2
        await drain(gate, "far", undo=True)
        third = await computer.task(2)
        assert computer.begun[third].avoid == []
        computer.end(third, "succeeded", 1)
        assert await needy == 1


async def test_computes_are_branches(quick_url: str) -> None:
    """Side by side with other effects; a branch goes on with its second while the other one still runs."""
    async with running(quick_url) as gate:
        computer = Computer(gate.socket)
        await _thinker(gate, "Both")
        asked = asyncio.create_task(gate.ask("both", 7, "m1", 40))
        await true(lambda: len(computer.begun) == 2)
        by_name = {orjson.loads(it.arguments)["function"]: key for key, it in computer.begun.items()}
        await gate.until("SELECT owner FROM agent WHERE name = 'both'", lambda rows: rows == [(None,)])
        computer.end(by_name["jobs:a"], "succeeded", "a")
        await true(lambda: len(computer.begun) == 3)
        third = next(it for it in computer.begun if it not in by_name.values())
        computer.end(third, "succeeded", "b")
        computer.end(by_name["jobs:c"], "succeeded", "c")
        found = await asked
        assert (found[:2], "memory_percent" in found[2]) == ([["a", "b"], "c"], True)
        await computer.close()


async def test_what_a_budget_holds_back_begins_when_an_operator_says_so(quick_url: str) -> None:
    """It was not begun before, and is waited for as any other then."""
    async with running(quick_url, hold_s=60) as gate:
        spec = orjson.dumps({"limits": {"effects": 0.5}, "action": "hold", "window": "total", "scope": {}}).decode()
        put = (
            "INSERT INTO resource (kind, namespace, name, uid, labels, spec, revision, generation, created_at,"
            " updated_at) VALUES ('Budget', 'default', 'b', 'budget_b', '{}', ?, 1, 1, 1.0, 1.0)"
        )
        assert await gate.store.write(Unit().raw(put, [spec], 1))
        computer = Computer(gate.socket)
        await _thinker(gate)
        asked = asyncio.create_task(gate.ask("thinker", {}, "m1", 40))
        await gate.until(HELD, lambda rows: len(rows) == 1)
        assert computer.begun == {}
        ((turn_id, *_),) = await gate.rows(HELD)
        said = {"turn_id": turn_id, "branch": "0", "position": 0, "outcome": "retry", "principal": "ann"}
        await gate.client.control("settle", "agent_thinker", {**said, "reason": "worth it"})
        computer.end(await computer.task(), "succeeded", "thought")
        assert await asked == "thought"
        await computer.close()
