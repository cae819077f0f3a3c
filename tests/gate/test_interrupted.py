"""Lives that are interrupted: suspended again and again, amid an effect, past a deadline, killed, deleted."""

import asyncio
import itertools
import time
from pathlib import Path
from typing import Any

import orjson
import pytest

from ray_runtime.state import state_digest
from tests.gate.counting import counting
from tests.gate.far import IGNORED, connected, grants, request
from tests.gate.running import RunningGate, running, true
from tests.gate.zoo import SOURCE as ZOO

pytestmark = pytest.mark.anyio

SOURCE = """
from pydantic import BaseModel
from ray_runtime import Agent, Refusal


class Kept(BaseModel):
    seen: int = 0
    notes: dict = {}


class Keeper(Agent):
    state: Kept

    async def on_message(self, turn, envelope):
        self.state.seen += 1
        self.state.notes[f"n{self.state.seen}"] = {"ü": [1.5, None, envelope.data]}
        before = self.state.model_dump()
        await turn.sleep(0.02)  # suspended in here, too
        return [self.state.model_dump() == before, self.state.seen]


class Noter(Agent):
    async def on_message(self, turn, envelope):
        return await turn.perform("notes.once", **envelope.data)


class Late(Agent):
    async def on_message(self, turn, envelope):
        await turn.sleep(envelope.data)
        return "too late"


class Impatient(Agent):
    state: Kept

    async def on_message(self, turn, envelope):
        self.state.seen += 1
        if envelope.data is None:
            return self.state.seen
        try:
            return (await turn.ask("late", envelope.data, deadline_s=0.15)).data
        except Refusal as refusal:
            return refusal.problem.reason


class Parent(Agent):
    async def on_message(self, turn, envelope):
        turn.spawn(f"{self.name}-child", entrypoint="zoo:Keeper")
        turn.timer("soon", after_s=0.4)
        turn.timer("again", every_s=0.05)
        await turn.sleep(0.2)
        turn.spawn(f"{self.name}-second", entrypoint="zoo:Keeper")
        return "born"
"""
GRANTS: dict[str, Any] = {"mandate": {"grants": [{"effect": "notes.*", "connection": None}]}}


async def suspended(gate: RunningGate, uid: str) -> None:
    await gate.until(f"SELECT owner FROM agent WHERE uid = '{uid}'", lambda rows: rows == [(None,)])


async def test_many_suspensions_change_no_byte_of_the_state(shared: RunningGate) -> None:
    """Five cycles, each suspended within its turn and after it: the stored digest is that of the state, and is read."""
    uid = await shared.agent("keeper", await shared.code(SOURCE), "Keeper", suspend_after_ms=0)
    epochs, digests = [], []
    for cycle in range(1, 6):
        assert await shared.ask("keeper", cycle, f"k{cycle}") == [True, cycle]
        await suspended(shared, uid)
        query = "SELECT state, state_digest, epoch, version FROM agent WHERE uid = :uid"
        ((state, digest, epoch, version),) = await shared.rows(query, uid=uid)
        assert digest == state_digest(state.encode())
        assert (version, len(orjson.loads(state)["notes"])) == (cycle + 1, cycle)
        epochs.append(epoch)
        digests.append(digest)
    assert all(later - before >= 2 for before, later in itertools.pairwise(epochs)), epochs
    assert len(set(digests)) == 5


async def test_an_agent_is_suspended_when_its_open_effect_is_done(shared: RunningGate, tmp_path: Path) -> None:
    """Suspending amid an effect of its own waits for the receipt: it is done once, heard, and in no doubt."""
    uid = await shared.agent("noter", await shared.code(SOURCE), "Noter", suspend_after_ms=60_000, **GRANTS)
    notes = tmp_path / "notes"
    asked = asyncio.create_task(shared.ask("noter", {"path": str(notes), "text": "x", "wait_s": 0.4}, "n1"))
    await true(notes.exists)
    told = await shared.client.control("suspend", uid, {"principal": "ann"})
    assert await asked == {"noted": "x"}
    await suspended(shared, uid)
    assert told["suspended"] is True
    assert len(notes.read_text().splitlines()) == 1
    assert await shared.rows("SELECT 1 FROM event WHERE type = 'effect.in_doubt'") == []
    assert await shared.rows("SELECT outcome, attempts FROM turn WHERE message_id = 'n1'") == [("committed", 1)]


async def test_an_answer_after_the_askers_deadline_reaches_no_later_turn(shared: RunningGate) -> None:
    """The asker, suspended meanwhile, hears DEADLINE once; what comes later is told, and is no message to it."""
    code = await shared.code(SOURCE)
    await shared.agent("late", code, "Late", suspend_after_ms=0)
    await shared.agent("impatient", code, "Impatient", suspend_after_ms=0)
    assert await shared.ask("impatient", 0.5, "i1") == "DEADLINE"
    await shared.until("SELECT 1 FROM event WHERE type = 'answer.late'", bool)
    assert await shared.ask("impatient", None, "i2") == 2
    assert await shared.rows("SELECT outcome FROM awaiting WHERE kind = 'ask'") == [("timeout",)]
    assert await shared.rows("SELECT outcome FROM journal WHERE kind = 'ask'") == [("timeout",)]
    assert await shared.rows("SELECT 1 FROM inbox WHERE agent = 'agent_impatient'") == []


async def parked(gate: RunningGate, uid: str) -> None:
    await gate.until(f"SELECT 1 FROM turn WHERE outcome = 'parked' AND agent = '{uid}'", bool)


async def test_children_and_timers_of_a_parent_that_is_killed_are_there_once(shared: RunningGate) -> None:
    """The host dies in the middle of the turn: its children are born once, and its timers are set once."""
    uid = await shared.agent("killed", await shared.code(SOURCE), "Parent", suspend_after_ms=60_000)
    await shared.send("killed", None, "p1", time.time() + 60)
    await parked(shared, uid)
    shared.hosts[-1].kill()
    shared.host()
    await shared.until("SELECT 1 FROM awaiting WHERE await_id = 'p1' AND outcome = 'answered'", bool)
    born = await shared.rows("SELECT name FROM event WHERE type = 'resource.created' ORDER BY cursor")
    assert born == [("killed-child",), ("killed-second",)]
    assert [await shared.ask(name, 1, f"p-{name}") for (name,) in born] == [[True, 1]] * 2
    soon = f"SELECT 1 FROM turn WHERE agent = '{uid}' AND message LIKE '%\"subject\":\"soon\"%'"
    assert len(await shared.until(soon, bool)) == 1
    assert await shared.rows(f"SELECT name FROM timer WHERE agent = '{uid}'") == [("again",)]
    await shared.client.control("remove", uid, {})


async def test_children_of_a_deleted_parent_live_on_and_its_timers_do_not(shared: RunningGate) -> None:
    """Deleted while it is parked: no timer, await or firing of it is left; a child is an agent of its own."""
    uid = await shared.agent("deleted", await shared.code(SOURCE), "Parent", suspend_after_ms=0)
    await shared.send("deleted", None, "d1", time.time() + 60)
    await parked(shared, uid)
    await shared.client.control("remove", uid, {})
    for table in ("timer", "awaiting", "inbox"):
        assert await shared.rows(f"SELECT 1 FROM {table} WHERE agent = '{uid}'") == []
    told = orjson.loads((await shared.rows("SELECT result FROM awaiting WHERE await_id = 'd1'"))[0][0])
    assert told["reason"] == "TARGET_NOT_FOUND"
    assert await shared.ask("deleted-child", 1, "d2") == [True, 1]
    assert await shared.rows("SELECT 1 FROM agent WHERE name = 'deleted-second'") == []


async def test_an_effect_that_waits_for_its_place_goes_on_for_the_next_owner(database_url: str) -> None:
    """Written ahead and not sent when its turn lost its host: the replay's question is what has it sent."""
    async with counting(honours=False) as far, running(database_url) as gate:
        await connected(gate, "far", far, IGNORED, limits={"calls_per_s_max": 1})
        await gate.agent("noter", await gate.code(ZOO), "Noter", suspend_after_ms=60_000, **grants("far"))
        assert (await gate.ask("noter", request("far"), "m0"))["status"] == 200
        asked = asyncio.create_task(gate.ask("noter", request("far"), "m1"))
        await gate.until("SELECT 1 FROM journal WHERE kind = 'effect' AND outcome IS NULL", bool)
        await gate.client.control("stop", "agent_noter", {})
        await gate.client.control("wake", "agent_noter", {})
        assert (await asked)["status"] == 200
        assert len(far.acts) == 2
        assert await gate.rows("SELECT 1 FROM event WHERE type = 'effect.in_doubt'") == []
