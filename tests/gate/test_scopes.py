"""Children of a scope end with its turn or its agent, and nothing of them is left. On both databases."""

import time
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import text

from controlplane.effects.scopes import Scopes
from controlplane.operations import doctor
from controlplane.store import statements
from controlplane.store.store import Store
from controlplane.store.unit import Unit
from schemas.doctor import DoctorInput, DoctorReport
from tests.gate.running import RunningGate, running
from tests.living import world

pytestmark = pytest.mark.anyio
SOURCE = """
from ray_runtime import Agent, Refusal


class Parent(Agent):
    async def on_message(self, turn, envelope):
        if envelope.data == "task":
            child = turn.spawn("helper", entrypoint="zoo:Helper", purpose="helps", scope="turn")
            turn.spawn("stays", entrypoint="zoo:Echo", config={"x": 1})
            first = await turn.ask(child, "go", deadline_s=20)
            if first.data == "fail":
                raise ValueError("it failed")
            return first.data
        if envelope.data == "fail":
            child = turn.spawn("failing", entrypoint="zoo:Helper", config={"say": "fail"}, scope="turn")
            await turn.ask(child, "go", deadline_s=20)
            raise ValueError("it failed")
        turn.spawn("own", entrypoint="zoo:Helper", scope="agent")


class Helper(Agent):
    async def on_start(self, turn):
        turn.spawn(f"{turn_name(self)}-grandchild", entrypoint="zoo:Echo")
        turn.timer("tick", every_s=3600)
        turn.request("listener", {"by": self.name})

    async def on_message(self, turn, envelope):
        return {"scope": envelope.scope}


def turn_name(agent):
    return agent.name


class Echo(Agent):
    async def on_message(self, turn, envelope):
        return {"scope": envelope.scope, "data": envelope.data}


class Listener(Agent):
    async def on_message(self, turn, envelope):
        await turn.sleep(3600)
"""
LIVING = "SELECT name FROM agent ORDER BY name"
LEFT = (
    "SELECT (SELECT COUNT(*) FROM inbox i WHERE NOT EXISTS (SELECT 1 FROM agent a WHERE a.uid = i.agent)),"
    " (SELECT COUNT(*) FROM timer t WHERE NOT EXISTS (SELECT 1 FROM agent a WHERE a.uid = t.agent)),"
    " (SELECT COUNT(*) FROM awaiting w WHERE w.resolved_at IS NULL AND w.agent IS NOT NULL"
    " AND NOT EXISTS (SELECT 1 FROM agent a WHERE a.uid = w.agent)),"
    " (SELECT COUNT(*) FROM trait t WHERE NOT EXISTS (SELECT 1 FROM agent a WHERE a.name = t.name)),"
    " (SELECT COUNT(*) FROM scope WHERE cleared_at IS NULL AND ended_at IS NOT NULL)"
)


async def names(gate: RunningGate, *wanted: str) -> None:
    """Until these agents, and no others, are there, and nothing of any other is; the doctor says so, too."""
    await gate.until(LIVING, lambda rows: [it[0] for it in rows] == sorted(wanted))
    await gate.until(LEFT, lambda rows: set(rows[0]) == {0})
    report = await doctor.handlers(gate.store)["system.doctor"](
        world.call("system.doctor", now=time.time()), DoctorInput()
    )
    assert isinstance(report, DoctorReport)
    assert report.findings == []


async def ready(gate: RunningGate) -> None:
    code = await gate.code(SOURCE)
    await gate.agent("parent", code, "Parent", watches=[], mandate={"purpose": "leads", "grants": []})
    await gate.agent("listener", code, "Listener")


async def test_children_end_with_their_turn(quick_url: str) -> None:
    """And what they spawned; envelopes name the scope; whoever was not spawned in it stays."""
    async with running(quick_url) as gate:
        await ready(gate)
        answer = await gate.ask("parent", "task", "m1")
        scopes = await gate.rows("SELECT scope_id, kind, name FROM scope WHERE kind = 'turn'")
        assert [it[1:] for it in scopes] == [("turn", "parent")]
        assert answer == {"scope": None}  # a message from outside of it
        await names(gate, "listener", "parent", "stays")
        told = await gate.rows("SELECT name FROM event WHERE type = 'resource.deleted' ORDER BY name")
        assert [it[0] for it in told] == ["helper", "helper-grandchild"]
        live = await gate.rows("SELECT name FROM resource WHERE kind = 'Agent' AND deleted_at IS NULL ORDER BY name")
        assert [it[0] for it in live] == ["listener", "parent", "stays"]


async def test_children_end_with_a_turn_that_fails(quick_url: str) -> None:
    """The failed turn ends its scope like any other, and so does one whose gate dies before the children are gone."""
    async with running(quick_url, turn_attempts_max=1) as gate:
        await ready(gate)
        problem = await gate.ask("parent", "fail", "m1")
        assert problem["reason"] == "HANDLER_ERROR"
        gate.kill()
        gate.start()
        await gate.client.up()
        await names(gate, "listener", "parent")


async def test_children_end_with_their_agent(quick_url: str) -> None:
    """A child of the agent's own outlives its turns, and goes with it: with all that it had spawned."""
    async with running(quick_url) as gate:
        await ready(gate)
        await gate.ask("parent", "own", "m1")
        grandchild = "SELECT scope FROM agent WHERE name = 'own-grandchild'"
        assert await gate.until(grandchild, bool) != [(None,)]
        await gate.ask("parent", "else", "m2")
        uid = "agent_parent"
        await gate.client.control("remove", uid, {})
        await names(gate, "listener")


async def test_a_name_is_taken_until_its_running_side_is_gone(store: Store) -> None:
    """One that is spawned while its namesake is taken away is refused: it is not half there, and of no scope."""

    async def spawned(uid: str, generation: int) -> str:
        made = ("d", "child", uid, "parent", "{}", 1, generation, 1.0, 1.0, "parent")
        assert await store.write(Unit().raw(statements.SPAWN, made).raw(statements.SPAWN_AGENT, (1.0, uid)))
        query = text(
            "SELECT r.uid, a.uid FROM resource r LEFT JOIN agent a ON a.uid = r.uid WHERE r.deleted_at IS NULL"
        )
        rows = await store.read(lambda session: session.connection().execute(query).all())
        return " ".join(str(it) for row in rows for it in row)

    assert await spawned("one", 1) == "one one"
    await store.write(Unit().raw("UPDATE resource SET deleted_at = 2.0", ()))
    assert await spawned("two", 2) == ""
    await store.write(Unit().raw("DELETE FROM agent", ()))
    assert await spawned("two", 2) == "two two"


def test_a_child_that_can_not_be_taken_away_keeps_no_other() -> None:
    """What is wrong with its record is told; it is looked at again, and is not taken for under way meanwhile."""
    rows = [("sc", f"u{n}", "default", f"child-{n}", "{}", spec, 1) for n, spec in enumerate(("no JSON", "{}", "{}"))]
    taken: list[str] = []
    reader = SimpleNamespace(one=lambda _: (1,), rows=lambda *_: rows)

    def commit(_unit: str, unit: Any, *_: Any) -> None:
        if unit[0][1][-1] == "u1":
            raise OSError("the writer is gone")
        taken.append(unit[0][1][-1])

    room = Scopes(SimpleNamespace(reader=reader, clock=lambda: 1.0, commit=commit))  # type: ignore[arg-type]
    room.sweep()
    assert taken == ["u2"]
    rows[0] = (*rows[0][:5], "{}", 1)
    room.sweep()
    assert taken == ["u2", "u0"]
