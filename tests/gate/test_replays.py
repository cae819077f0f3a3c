"""Turns that are run again in the background, at a real gate with real hosts: what is found, and what is not done."""

import asyncio
import os
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest

from controlplane.operations import doctor
from controlplane.operations.living import inspection
from controlplane.resources.problems import problem
from controlplane.store.unit import Unit
from schemas.base import canonical
from schemas.calls import Inspection, Named
from schemas.doctor import DoctorInput, DoctorReport
from schemas.processes import PYTHON, started
from schemas.wire import Diverged, Hello
from tests.faults.points import Arming, fault
from tests.gate.computer import Computer
from tests.gate.counting import Counting, counting
from tests.gate.far import HONOURED, connected
from tests.gate.model import Reply
from tests.gate.routed import apply, came, publish, routed
from tests.gate.running import RunningGate, running, true
from tests.gate.test_llm_agent import scene
from tests.gate.test_peers import Peer
from tests.gate.zoo import SOURCE
from tests.living import world
from tests.operations.plane import route
from tests.protocols.database import database

pytestmark = pytest.mark.anyio
MARKS = "SELECT kind, agent, digest, problem FROM divergence ORDER BY at"
EVENTS = "SELECT name, data FROM event WHERE type = 'code.diverged' ORDER BY cursor"
EVERYTHING = """
import asyncio
from ray_runtime import Agent, Refusal


class Helper(Agent):
    async def on_message(self, turn, envelope):
        if envelope.data == "slow":
            await turn.sleep(0.05)
        return envelope.data


class All(Agent):
    async def on_start(self, turn):
        self.state["started"] = [turn.now().isoformat(), turn.uuid()]
        self.noted("start")

    def noted(self, what):
        with open(self.config["path"], "a") as file:
            file.write(what + "\\n")

    async def on_message(self, turn, envelope):
        kind = envelope.data if isinstance(envelope.data, str) else "continued"
        came = await getattr(self, kind)(turn, envelope.data)
        self.state[kind] = [turn.now().isoformat(), turn.random(), turn.uuid(), came]
        self.noted(kind)
        return None if kind == "goes_on" else came

    async def on_reply(self, turn, reply):
        self.state["reply"] = [reply.id, reply.data]
        self.noted("reply")

    async def on_timer(self, turn, timer):
        self.state["timer"] = [timer.time.isoformat(), turn.random()]
        self.noted("timer")

    async def on_batch(self, turn, envelopes):
        self.state["batch"] = [it.data for it in envelopes]
        self.noted("batch")

    async def sends(self, turn, data):
        return [turn.send("helper", turn.random()), turn.publish("news", turn.uuid(), key="k"), turn.join("news")]

    async def requests(self, turn, data):
        return turn.request("helper", {"at": turn.now().isoformat()})

    async def asks(self, turn, data):
        return (await turn.ask("helper", {"b": 1, "a": 2})).data

    async def sleeps(self, turn, data):
        await turn.sleep(0.01 + turn.random() / 100)

    async def performs(self, turn, data):
        done = await turn.perform("http.request", connection="far", method="POST", path="x", json={"n": turn.random()})
        return [done["status"], done["json"]]

    async def is_refused(self, turn, data):
        try:
            await turn.perform("machine.reboot")
        except Refusal as refusal:
            return refusal.problem.reason

    async def computes(self, turn, data):
        return await turn.compute("jobs:think", turn.uuid())

    async def gathers(self, turn, data):
        slow, quick, _ = await turn.gather(turn.ask("helper", "slow"), turn.ask("helper", "quick"), turn.sleep(0.01))
        votes = await turn.ask_all(["helper", "all-of-it", "helper"], "slow", first=True, deadline_s=5)
        return [slow.data, quick.data, [it.data for it in votes.answers], votes.open]

    async def branches(self, turn, data):
        seen = []

        async def part(name, steps):
            for step in range(steps):
                await turn.perform("machine.read", what="memory")
                seen.append([name, step, turn.random()])
                await turn.ask("helper", "slow" if name == "a" else name)
            return name

        return [await turn.gather(part("a", 2), part("b", 3), turn.sleep(0.02)), seen]

    async def finds(self, turn, data):
        return [it.name for it in await turn.find(name="helper")]

    async def spawns(self, turn, data):
        return turn.spawn(f"child-{turn.uuid()[:8]}", entrypoint="zoo:Helper", scope="turn")

    async def sets_timers(self, turn, data):
        turn.timer("once", after_s=0.01, data=turn.random())
        turn.timer("never", cron="0 0 1 1 *", zone="Europe/Berlin")
        turn.cancel_timer("never")

    async def concludes(self, turn, data):
        answer, found = await turn.ask("helper", 1), await turn.perform("machine.read", what="memory")
        return turn.conclude("so", because=[answer, found], alternatives=["or not"], confidence=0.5)

    async def goes_on(self, turn, data):
        turn.continue_as({"rest": turn.uuid()})

    async def continued(self, turn, data):
        return data
"""
KINDS = (
    "sends", "requests", "asks", "sleeps", "performs", "is_refused", "computes", "gathers", "branches", "finds",
    "spawns", "sets_timers", "concludes", "goes_on",
)  # fmt: skip
HOOKS = ("start", "reply", "timer", "batch", "continued")
PATIENCE_S = 90


async def marks(gate: RunningGate) -> list[tuple[Any, ...]]:
    return await gate.rows(MARKS)


def _hello(host_id: str, namespace: str, digest: str) -> Hello:
    return Hello(host_id, os.getpid(), started(os.getpid()), "here", namespace, digest, python=PYTHON)


async def everything(gate: RunningGate, far: Counting, path: Path) -> None:
    """An agent that does all that a turn can, and keeps its coroutines: a second run of a handler is a replay."""
    await connected(gate, "far", far, HONOURED)
    code = await gate.code(EVERYTHING)
    wanted = (("http.request", "far"), ("compute.run", None), ("machine.read", None))
    grants = {"mandate": {"grants": [{"effect": it, "connection": by} for it, by in wanted]}}
    await gate.agent("helper", code, "Helper", suspend_after_ms=60_000)
    await gate.agent("all", code, "All", suspend_after_ms=60_000, config={"path": str(path)}, **grants)


async def ran(gate: RunningGate) -> Counter[str]:
    """How often each was a turn that has committed."""
    rows = await gate.rows(
        "SELECT trigger, message FROM turn WHERE agent = 'agent_all' AND outcome = 'committed' AND finished_at > 0"
    )
    found: Counter[str] = Counter()
    for trigger, message in rows:
        data = orjson.loads(message).get("data")
        found[trigger if trigger != "message" else data if isinstance(data, str) else "continued"] += 1
    return found


async def test_what_takes_all_from_its_turn_is_never_marked(quick_url: str, tmp_path: Path) -> None:
    """Whatever a turn does, it does the same again; and nothing of it happens a second time."""
    notes = tmp_path / "notes"
    notes.touch()
    async with counting(honours=True) as far, running(quick_url, hosts=2, replay_one_in=1) as gate:
        computer = Computer(gate.socket, "r1", {"thought": 1})
        await everything(gate, far, notes)
        await gate.channel("letters")
        limit, rounds = time.monotonic() + PATIENCE_S, 0
        while True:
            for kind in KINDS:
                answer = await gate.ask("all", kind, f"{kind}{rounds}", 30)
                assert not (isinstance(answer, dict) and "reason" in answer), (kind, answer)
            body = {"specversion": "1.0", "id": "x", "source": "/t", "type": "t", "time": "2026-01-01T00:00:00Z"}
            letter = {**body, "data": [{**body, "id": f"b{rounds}", "data": rounds}]}
            await batch(gate, f"batch{rounds}", letter)
            rounds += 1
            await asyncio.sleep(0.2)  # quiet enough for some of them
            did, again = await ran(gate), Counter(notes.read_text().split())
            if all(again[it] > did[it] for it in (*KINDS, *HOOKS)):
                break
            missing = {it: (again[it], did[it]) for it in (*KINDS, *HOOKS) if again[it] <= did[it]}
            assert time.monotonic() < limit, f"never replayed: {missing}"
        assert await marks(gate) == []
        assert await gate.rows(EVENTS) == []
        assert len(far.asked) == did["performs"] == rounds
        assert len(computer.begun) == did["computes"] == rounds
        children = await gate.rows("SELECT COUNT(DISTINCT name) FROM resource WHERE name LIKE 'child-%'")
        assert children == [(rounds,)]
        await computer.close()


async def batch(gate: RunningGate, message_id: str, letter: dict[str, Any]) -> None:
    """A batch, put into the inbox as a watch does."""
    body = orjson.dumps({**letter, "id": message_id}).decode()
    unit = Unit().raw(
        'INSERT INTO inbox (agent, message_id, "trigger", body, accepted_at, attempts) VALUES (?, ?, ?, ?, ?, 0)',
        ["agent_all", message_id, "batch", body, time.time()],
        1,
    )
    assert await gate.store.write(unit)
    await gate.client.control("reload", "agent_all", {})
    await gate.until(f"SELECT 1 FROM turn WHERE message_id = '{message_id}' AND outcome = 'committed'", bool)


async def until_marked(gate: RunningGate, name: str, kind: str, mark: str) -> None:
    """Turns that differ in one way, until one of them was run again."""
    limit, n = time.monotonic() + PATIENCE_S, 0
    while kind not in [it[0] for it in await marks(gate)]:
        assert time.monotonic() < limit, f"{kind} was not found"
        await gate.ask(name, kind, f"{mark}{kind}{n}")
        await asyncio.sleep(0.1)
        n += 1


async def test_code_that_differs_is_marked_and_told_once(quick_url: str) -> None:
    """For each kind of first difference, whichever agent shows it, over the gate's death; turns stay as they were."""
    kinds = ("reply", "state", "effect", "raised")
    async with running(quick_url, replay_one_in=1) as gate:
        code = await gate.code(SOURCE)
        for name in ("fickle", "other"):
            await gate.agent(name, code, "Fickle", suspend_after_ms=60_000)
        for kind in kinds:
            await until_marked(gate, "fickle", kind, "f")
        for life in range(2):
            for kind in kinds:
                await gate.ask("other", kind, f"o{life}{kind}")
                await asyncio.sleep(0.1)
            if life == 0:
                gate.kill()
                gate.start()
                await gate.client.up()
        found = await marks(gate)
        assert [it[:3] for it in found] == [(kind, "fickle", code) for kind in kinds]
        for kind, _, _, text in found:
            said = orjson.loads(text)
            assert (said["reason"], said["metadata"]["first"]) == ("REPLAY_DIVERGED", kind)
        assert "/now of the state was " in found[1][3]
        assert "at position 0 the journal holds " in found[2][3]
        assert "ValueError: the second time (zoo.py:" in found[3][3]
        told = [(name, orjson.loads(data)) for name, data in await gate.rows(EVENTS)]
        assert [(name, it["digest"], it["first"]) for name, it in told] == [("fickle", code, kind) for kind in kinds]
        assert await gate.rows("SELECT 1 FROM turn WHERE outcome <> 'committed'") == []
        await shown(gate, code)


async def shown(gate: RunningGate, code: str) -> None:
    """Where an operator looks: inside an agent of that code, and what the doctor says."""
    seen = await inspection.handlers(gate.store, gate.client)["agents.inspect"](
        world.call("agents.inspect"), Named(name="other")
    )
    assert isinstance(seen, Inspection)
    first = seen.divergences[0]
    assert (first.first, first.agent, first.digest) == ("reply", "fickle", code)
    assert "turn.now" in first.problem.detail
    report = await doctor.handlers(gate.store)["system.doctor"](
        world.call("system.doctor", now=time.time()), DoctorInput(namespace="default")
    )
    assert isinstance(report, DoctorReport)
    assert [(it.check, it.subject.name) for it in report.findings] == [("code.diverged", "fickle")]


async def test_a_replay_neither_wakes_an_agent_nor_keeps_it(quick_url: str) -> None:
    """What is suspended at once is found all the same, and is nobody's meanwhile."""
    async with running(quick_url, replay_one_in=1) as gate:
        code = await gate.code(SOURCE)
        await gate.agent("fickle", code, "Fickle", suspend_after_ms=0)
        await until_marked(gate, "fickle", "state", "s")
        owned = "SELECT owner FROM agent WHERE name = 'fickle'"
        await gate.until(owned, lambda rows: rows == [(None,)])
        epochs = await gate.rows("SELECT epoch FROM agent WHERE name = 'fickle'")
        turns = await gate.rows("SELECT COUNT(*) FROM turn WHERE agent = 'agent_fickle'")
        assert epochs[0][0] <= turns[0][0], "woken by messages alone"


async def test_a_replay_that_does_not_end_costs_its_host_alone(quick_url: str) -> None:
    """It is ended, neighbours go on elsewhere without an attempt less, the turn stays, and such code is left alone."""
    async with running(quick_url, hosts=2, replay_one_in=1, loop_held_s_max=1.0) as gate:
        code = await gate.code(SOURCE)
        await gate.agent("fickle", code, "Fickle", suspend_after_ms=60_000)
        await gate.agent("echo", code, "Echo", suspend_after_ms=60_000)
        assert await gate.ask("echo", 1, "e1") == 1
        limit, n = time.monotonic() + PATIENCE_S, 0
        while not await gate.rows("SELECT 1 FROM event WHERE type = 'host.lost'"):
            assert time.monotonic() < limit
            await gate.ask("fickle", "wedged", f"w{n}", 40)
            await asyncio.sleep(0.2)
            n += 1
        await gate.until("SELECT 1 FROM divergence WHERE kind = 'endless'", bool)
        gate.host()
        for it in range(5):
            assert await gate.ask("fickle", "wedged", f"again{it}", 40) is None
            await asyncio.sleep(0.1)
        assert await gate.ask("echo", 2, "e2", 40) == 2
        assert len(await gate.rows("SELECT 1 FROM event WHERE type = 'host.lost'")) <= 2, "each that was there before"
        assert await gate.rows("SELECT 1 FROM turn WHERE attempts > 1 OR outcome <> 'committed'") == []
        assert await gate.rows("SELECT 1 FROM dead_letter") == []


@pytest.fixture
def passing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Any]:
    """Wait until a replay has gone several steps, of which nothing else tells."""
    arming = Arming(tmp_path, monkeypatch)
    arming.put(fault("host.replay", "delay", 4, 0.0))
    return lambda: true(lambda: not arming.left(), PATIENCE_S)


async def test_turns_of_a_model_ask_it_once(quick_url: str, passing: Callable[[], Any]) -> None:
    """Its handler is run again from what the model answered before."""
    async with scene(quick_url, replay_one_in=1) as (gate, far):
        for n in range(3):
            far.script = [Reply(calls=[("cpu", {})]), Reply(f"done {n}")]
            assert await gate.ask("thinker", "how are you?", f"m{n}", 40) == f"done {n}"
            await asyncio.sleep(0.1)
        await passing()
        assert len(far.asked) == 6
        assert await marks(gate) == []


async def test_turns_of_a_route_do_nothing_twice(quick_url: str, tmp_path: Path, passing: Callable[[], Any]) -> None:
    """Filter, transform and sink are gone through again, and the channel has each message once."""
    (tmp_path / "far").mkdir()
    async with (
        database("sqlite", tmp_path / "far", None) as far,
        routed(quick_url, far, replay_one_in=1) as (gate, plane),
    ):
        spec = {"filter": "data.n % 2 == 0", "transform": '{"half": n / 2}'}
        await apply(plane, route("halves", source={"channel": "orders"}, sink={"channel": "done"}, **spec))
        for n in range(12):
            await publish(gate, "orders", n, {"n": n})
            await asyncio.sleep(0.05)
        assert await came(gate, "done", 6) == [{"half": n / 2} for n in range(0, 12, 2)]
        await passing()
        assert await marks(gate) == []


async def test_a_host_marks_its_own_code_alone(quick_url: str) -> None:
    """Not by a turn of another namespace, one that never was, no Problem, or a difference that nobody knows."""
    async with running(quick_url, replay_one_in=0) as gate:
        code = await gate.code(SOURCE)
        await gate.agent("echo", code, "Echo")
        assert await gate.ask("echo", 1, "m1") == 1
        ((turn,),) = await gate.rows("SELECT turn_id FROM turn WHERE message_id = 'm1'")
        found = canonical(problem("REPLAY_DIVERGED", "so it is", first="reply").model_dump(mode="json"))
        other = canonical(problem("INTERNAL", "so it is").model_dump(mode="json"))
        for name, namespace, digest in (("h-1", "elsewhere", code), ("h-2", "default", "sha256:" + "0" * 64)):
            await Peer(gate).say(_hello(name, namespace, digest), Diverged(turn, "reply", found)).hear()
        said = [("turn_none", "state", found), (turn, "reply", other), (turn, "reply", b"{"), (turn, "mood", found)]
        Peer(gate).say(_hello("h-3", "default", code), *(Diverged(*it) for it in said), Diverged(turn, "order", found))
        assert [it[:3] for it in await gate.until(MARKS, bool)] == [("order", "echo", code)]
