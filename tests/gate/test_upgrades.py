"""A deploy in the middle of a parked turn, under each policy; and states of other versions, on a real gate."""

import asyncio
import time
from pathlib import Path
from typing import Any

import orjson
import pytest

from controlplane.operations import doctor
from controlplane.store.unit import Unit
from schemas.doctor import DoctorInput
from schemas.principal import Call, Principal
from schemas.processes import PYTHON
from tests.gate.running import RunningGate, running
from tests.gate.zoo import SOURCE as ZOO

pytestmark = pytest.mark.anyio

OLD = """
from ray_runtime import Agent


class Deal(Agent):
    async def on_message(self, turn, envelope):
        if envelope.data == "hello":
            return "old"
        turn.send("ledger", {"n": 1})
        said = await turn.ask_human("Shall I?", ["yes", "no"])
        turn.send("ledger", {"n": 2})
        return ["old", said]
"""
NEW = OLD.replace('"old"', '"new"').replace('{"n": 2}', '{"n": 3}')
WORKS = """
from ray_runtime import Agent


class Works(Agent):
    async def on_message(self, turn, envelope):
        about = {"path": envelope.data, "text": "x", "wait_s": 0.2}
        await turn.perform("notes.again", **about)
        await turn.ask_human("Shall I?", ["yes", "no"])
        for _ in range(3):
            await turn.perform("notes.again", **about)
        until = __import__("time").monotonic() + 0.5
        while __import__("time").monotonic() < until:
            pass
        return 3
"""
GRANTS: dict[str, Any] = {"mandate": {"grants": [{"effect": "notes.*", "connection": None}]}}
OTHER = NEW.replace('{"n": 1}', '{"n": 10}')
OPEN = "SELECT await_id, agent FROM awaiting WHERE kind = 'question' AND resolved_at IS NULL"
DEAL = "SELECT owner FROM agent WHERE name = 'deal'"


def _limits(effects_max: int, turn_s_max: float) -> dict[str, Any]:
    return {"effects_max": effects_max, "journal_bytes_max": 100_000, "turn_s_max": turn_s_max}


async def parked(gate: RunningGate) -> None:
    """A deal that waits for a person, on the old code."""
    await gate.agent("ledger", await gate.code(ZOO), "Ledger")
    await gate.agent("deal", await gate.code(OLD), "Deal", suspend_after_ms=60_000)
    await gate.send("deal", "go", "d1", 9e9)
    await gate.until(OPEN, bool)


async def answer(gate: RunningGate) -> None:
    ((question_id, uid),) = await gate.rows(OPEN)
    given = {"question_id": question_id, "answer": "yes", "principal": "ann", "dry_run": False}
    await gate.client.control("answer", uid, given)


async def came(gate: RunningGate, message_id: str = "d1") -> Any:
    query = f"SELECT result FROM awaiting WHERE await_id = '{message_id}' AND resolved_at IS NOT NULL"
    return orjson.loads((await gate.until(query, bool))[0][0])


async def decided(gate: RunningGate) -> tuple[Any, ...]:
    """What was decided about the parked turn: decision, code, and why."""
    query = "SELECT decided, digest, differs FROM turn WHERE message_id = 'd1'"
    return (await gate.until(query, lambda rows: rows[0][0] is not None))[0]


async def events(gate: RunningGate, kind: str) -> list[dict[str, Any]]:
    return [orjson.loads(row[0]) for row in await gate.rows("SELECT data FROM event WHERE type = :it", it=kind)]


async def ledger(gate: RunningGate) -> list[int]:
    return (await gate.ask("ledger", "count", f"l{time.time_ns()}"))["got"]


async def test_pinned_it_ends_on_its_own_code(database_url: str) -> None:
    """The default; the next message finds the newer code."""
    async with running(database_url, hosts=3) as gate:
        await parked(gate)
        old, new = await gate.code(OLD), await gate.code(NEW)
        await gate.deploy("deal", 2, new, "Deal")
        assert await decided(gate) == ("pinned", old, None)
        await answer(gate)
        assert await came(gate) == ["old", "yes"]
        assert await gate.ask("deal", "hello", "d2") == "new"
        assert await ledger(gate) == [1, 2]


@pytest.mark.parametrize("ms", [0, 60_000])
async def test_pinned_it_keeps_its_limits(quick_url: str, tmp_path: Path, ms: int) -> None:
    """The gate, too, holds it against the limits that it began on; the next turn has the newer ones."""
    async with running(quick_url, late_s_max=0.1) as gate:
        code = await gate.code(WORKS)
        await gate.agent("works", code, "Works", suspend_after_ms=ms, **GRANTS, limits=_limits(100, 20.0))
        asked = asyncio.create_task(gate.ask("works", str(tmp_path / "notes"), "w1", 40))
        await gate.until(OPEN, bool)
        await gate.deploy("works", 2, code, "Works", **GRANTS, limits=_limits(2, 0.1))
        ((question_id, uid),) = await gate.rows(OPEN)
        given = {"question_id": question_id, "answer": "yes", "principal": "ann", "dry_run": False}
        await gate.client.control("answer", uid, given)
        assert await asked == 3
        found = await gate.ask("works", str(tmp_path / "notes"), "w2")
        assert found["reason"] == "TURN_TIMEOUT"


async def test_proved_it_goes_on_under_the_newer_code(quick_url: str) -> None:
    """Its journal was replayed and nothing happened twice, though the host is killed with kill -9 afterwards."""
    async with running(quick_url, hosts=3) as gate:
        await parked(gate)
        old, new = await gate.code(OLD), await gate.code(NEW)
        await gate.deploy("deal", 2, new, "Deal", suspend_after_ms=60_000, upgrade={"parked": "prove"})
        assert await decided(gate) == ("proved", new, None)
        assert await events(gate, "turn.upgraded") == [{"from": old, "to": new, "entries": 2}]
        assert await gate.rows("SELECT 1 FROM journal WHERE state IS NOT NULL") == [], "the older code's hashes"
        ((owner,),) = await gate.until(DEAL, lambda rows: rows[0][0] is not None)
        ((pid,),) = await gate.rows("SELECT pid FROM host WHERE host_id = :it", it=owner)
        next(it for it in gate.hosts if it.pid == pid).kill()
        await gate.until(DEAL, lambda rows: rows[0][0] != owner)
        gate.host()
        await answer(gate)
        assert await came(gate) == ["new", "yes"]
        assert await ledger(gate) == [1, 3]
        assert await gate.rows("SELECT attempts FROM turn WHERE message_id = 'd1'") == [(1,)]


async def test_a_difference_keeps_it_on_its_code(quick_url: str) -> None:
    """The Problem names the first difference, both sides, and what can be done; nothing of the proof happened."""
    async with running(quick_url, hosts=3) as gate:
        await parked(gate)
        old, other = await gate.code(OLD), await gate.code(OTHER)
        await gate.deploy("deal", 2, other, "Deal", upgrade={"parked": "prove", "pinned_s_max": 600})
        decision, digest, why = await decided(gate)
        assert (decision, digest) == ("differs", old)
        found = orjson.loads(why)
        assert found["reason"] == "UPGRADE_DIFFERS"
        ((turn,),) = await gate.rows("SELECT turn_id FROM turn WHERE message_id = 'd1'")
        assert found["metadata"]["cause"]["metadata"] == {
            "turn_id": turn,
            "first": "effect",
            "branch": "0",
            "position": 0,
            "recorded": {"kind": "send", "body": {"data": {"n": 1}, "key": None, "to": "default/ledger"}},
            "asked": {"kind": "send", "body": {"data": {"n": 10}, "key": None, "to": "default/ledger"}},
        }
        assert [it["operation"] for it in found["next"]] == ["turns.get", "agents.propose"]
        assert [it["reason"] for it in await events(gate, "turn.differs")] == ["UPGRADE_DIFFERS"]
        await gate.until(DEAL, lambda rows: rows[0][0] is None)
        await answer(gate)
        assert await came(gate) == ["old", "yes"]
        assert await gate.ask("deal", "hello", "d2") == "new"
        assert await ledger(gate) == [1, 2]


async def test_a_proof_that_takes_its_host_along_is_given_up(quick_url: str) -> None:
    """After two hosts; the turn itself has lost no attempt, and ends on its own code."""
    async with running(quick_url, hosts=4) as gate:
        await parked(gate)
        deadly = "import os\n" + NEW.replace("turn.send(", "os.kill(os.getpid(), 9)\n        turn.send(", 1)
        await gate.deploy("deal", 2, await gate.code(deadly), "Deal", upgrade={"parked": "prove"})
        decision, digest, why = await decided(gate)
        assert (decision, digest) == ("differs", await gate.code(OLD))
        assert "2 hosts ended while they replayed it" in orjson.loads(why)["detail"]
        await answer(gate)
        assert await came(gate) == ["old", "yes"]
        assert await gate.rows("SELECT attempts FROM turn WHERE message_id = 'd1'") == [(1,)]
        assert await ledger(gate) == [1, 2]


async def test_failed_it_is_over_at_the_upgrade(quick_url: str) -> None:
    """Its awaits are cancelled, its message is a dead letter; a gate that died before it heard finds it later."""
    async with running(quick_url, hosts=3) as gate:
        await parked(gate)
        new = await gate.code(NEW)
        await gate.deploy("deal", 2, new, "Deal", told=False, upgrade={"parked": "fail"})
        gate.kill()
        gate.start()
        await gate.client.up()
        assert (await came(gate))["reason"] == "UPGRADED"
        assert await gate.rows("SELECT outcome FROM awaiting WHERE kind = 'question'") == [("cancelled",)]
        assert await gate.rows("SELECT message_id, reason FROM dead_letter") == [("d1", "UPGRADED")]
        assert await gate.ask("deal", "hello", "d2") == "new"
        assert await ledger(gate) == [1]


async def test_pinned_for_so_long(quick_url: str) -> None:
    """Then it fails; unless its agent goes back to the code that it is on."""
    async with running(quick_url, hosts=3) as gate:
        await parked(gate)
        old, new = await gate.code(OLD), await gate.code(NEW)
        await gate.deploy("deal", 2, new, "Deal", upgrade={"pinned_s_max": 3600})
        await decided(gate)
        await gate.deploy("deal", 3, old, "Deal")
        await gate.until("SELECT ends_by FROM turn WHERE message_id = 'd1'", lambda rows: rows[0][0] is None)
        await gate.deploy("deal", 4, new, "Deal", upgrade={"pinned_s_max": 0.01})
        assert (await came(gate))["reason"] == "UPGRADED"
        assert await gate.ask("deal", "hello", "d2") == "new"


async def test_a_held_effect_is_proved_and_not_asked_again(quick_url: str, tmp_path: Path) -> None:
    """The replay ends at the effect that waits for an operator; the operator's word resumes it on the newer code."""
    async with running(quick_url, hosts=2, hold_s=60) as gate:
        new = ZOO.replace("return found", "return ['new', found]")
        grants = {"mandate": {"grants": [{"effect": "notes.*", "connection": None}]}}
        await gate.agent("noter", await gate.code(ZOO), "Noter", **grants)
        notes = tmp_path / "notes"
        broken = {"effect": "notes.once", "path": str(notes), "text": "x", "fault": "break"}
        await gate.send("noter", broken, "d1", 9e9)
        ((turn_id,),) = await gate.until("SELECT turn_id FROM awaiting WHERE kind = 'effect'", bool)
        sent = notes.read_text()
        await gate.deploy("noter", 2, await gate.code(new), "Noter", upgrade={"parked": "prove"}, **grants)
        assert (await decided(gate))[0] == "proved"
        said = {"turn_id": turn_id, "branch": "0", "position": 0, "outcome": "succeeded", "result": 7}
        await gate.client.control("settle", "agent_noter", {**said, "reason": "seen", "principal": "ann"})
        assert await came(gate) == ["new", 7]
        assert notes.read_text() == sent


BRANCHED = """
from ray_runtime import Agent


class Deal(Agent):
    async def on_message(self, turn, envelope):
        async def notes(text, fault):
            return (await turn.perform("notes.once", path=envelope.data, text=text, fault=fault))["noted"]

        question = turn.ask_human("Shall I?", ["yes", "no"])
        return [await turn.gather(notes("one", ""), notes("two", "break"), question), "old"]
"""


async def test_branches_are_proved_where_they_rest(quick_url: str, tmp_path: Path) -> None:
    """One has ended, one waits for an operator, one for a person: nothing happens twice."""
    async with running(quick_url, hosts=2, hold_s=60) as gate:
        grants = {"mandate": {"grants": [{"effect": "notes.*", "connection": None}]}, "suspend_after_ms": 60_000}
        await gate.agent("deal", await gate.code(BRANCHED), "Deal", **grants)
        notes = tmp_path / "notes"
        await gate.send("deal", str(notes), "d1", 9e9)
        ((turn_id,),) = await gate.until("SELECT turn_id FROM awaiting WHERE kind = 'effect'", bool)
        await gate.until(DEAL, lambda rows: rows == [(None,)])
        sent = notes.read_text()
        new = await gate.code(BRANCHED.replace('"old"', '"new"'))
        await gate.deploy("deal", 2, new, "Deal", upgrade={"parked": "prove"}, **grants)
        assert (await decided(gate))[:2] == ("proved", new)
        await answer(gate)
        said = {"turn_id": turn_id, "branch": "0.2", "position": 0, "outcome": "succeeded", "result": {"noted": 7}}
        await gate.client.control("settle", "agent_deal", {**said, "reason": "seen", "principal": "ann"})
        assert await came(gate) == [["one", 7, "yes"], "new"]
        assert notes.read_text() == sent


STATES = """
from ray_runtime import Agent, downgrade, migration


class Count(Agent):
    state_version = 1

    async def on_message(self, turn, envelope):
        self.state["seen"] = self.state.get("seen", 0) + 1
        return self.state
"""
UP = """
    @migration(1)
    @staticmethod
    def renamed(state):
        return {"count": state["seen"]}
"""
DOWN = """
    @downgrade(2)
    @staticmethod
    def back(state):
        return {"seen": state["count"]}
"""
SECOND = STATES.replace("= 1", "= 2").replace('"seen"', '"count"') + UP
BACK = STATES + DOWN
STATE = "SELECT state, state_version FROM agent WHERE name = 'count'"


async def test_a_state_goes_up_and_down(quick_url: str) -> None:
    """By the functions of the code that loads it; code that has none leaves it as it is, and says so."""
    async with running(quick_url, hosts=3) as gate:
        await gate.agent("count", await gate.code(STATES), "Count")
        assert await gate.ask("count", 0, "c1") == {"seen": 1}
        await gate.deploy("count", 2, await gate.code(SECOND), "Count")
        await gate.until(STATE, lambda rows: rows == [('{"count":1}', 2)])
        assert await gate.ask("count", 0, "c2") == {"count": 2}
        await gate.deploy("count", 3, await gate.code(STATES), "Count")
        refused = await gate.ask("count", 0, "c3")
        assert (refused["reason"], refused["metadata"]["missing"]) == ("STATE_VERSION", "downgrade(2)")
        assert await gate.rows(STATE) == [('{"count":2}', 2)]
        await gate.deploy("count", 4, await gate.code(BACK), "Count")
        assert await gate.ask("count", 0, "c4") == {"seen": 3}
        assert await gate.rows(STATE) == [('{"seen":3}', 1)]


async def test_a_new_generation_starts_on_its_own_spec_whatever_rings_first(quick_url: str) -> None:
    """While its agent is awake, without its bell: on the code and the config that it was declared with."""
    configured = "\n\nclass Told(Agent):\n    async def on_message(self, turn, envelope):\n        return self.config\n"
    async with running(quick_url, hosts=2) as gate:
        old, new = await gate.code(OLD + configured), await gate.code(NEW + configured)
        awake: dict[str, Any] = {"suspend_after_ms": 60_000}
        await gate.agent("told", old, "Told", **awake, config={"n": 1})
        assert await gate.ask("told", None, "m1") == {"n": 1}
        for generation, code in ((2, new), (3, new), (4, old)):
            await gate.deploy("told", generation, code, "Told", told=False, **awake, config={"n": generation})
            starts = "SELECT digest FROM turn WHERE trigger = 'start' ORDER BY started_at"
            rows = await gate.until(starts, lambda rows, many=generation: len(rows) == many)  # type: ignore[misc]
            assert rows[-1] == (code,)
            assert await gate.ask("told", None, f"m{generation}") == {"n": generation}


async def test_turns_of_another_python_are_found_until_they_end(quick_url: str) -> None:
    """The gate records which it runs; a turn that began under another goes on, and the doctor names it meanwhile."""
    async with running(quick_url, hosts=2) as gate:
        examine = doctor.handlers(gate.store)["system.doctor"]

        async def found() -> list[tuple[str, str]]:
            report = await examine(
                Call(Principal("eye", "viewer", ("*",)), "system.doctor", time.time()), DoctorInput()
            )
            return [(it.subject.name, it.metadata["more"]) for it in report.findings if it.check == "python.changed"]  # type: ignore[attr-defined]

        await parked(gate)
        assert await gate.rows("SELECT key, value FROM meta WHERE key LIKE 'python%'") == [("python", PYTHON)]
        await gate.store.write(Unit().raw("UPDATE meta SET value = '2.7' WHERE key = 'python'", []))
        for starts in (2, 3):
            gate.kill()
            gate.start()
            await gate.until("SELECT 1 FROM event WHERE type = 'gate.started'", lambda it, n=starts: len(it) == n)  # type: ignore[misc]
            assert await found() == [("deal", "2.7")], "the second start leaves it as it was"
        await gate.client.up()
        await answer(gate)
        assert await came(gate) == ["old", "yes"]
        await gate.until("SELECT 1 FROM turn WHERE finished_at IS NULL", lambda rows: not rows)
        assert await gate.ask("deal", "hello", "d2") == "old"
        assert await found() == []
