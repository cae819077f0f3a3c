"""What the rules promise in the corners: late answers, circles, timers set anew, full inboxes, foreign namespaces."""

import asyncio
import time
from typing import Any

import orjson
import pytest
from sqlalchemy import insert

from controlplane.store.tables import ResourceRow
from controlplane.store.unit import Unit
from schemas.branches import FORMAT
from schemas.problem import Refusal
from tests.gate.running import RunningGate, running
from tests.gate.zoo import SOURCE

pytestmark = pytest.mark.anyio


async def _letters(gate: RunningGate) -> list[tuple[Any, ...]]:
    return await gate.rows("SELECT reason, agent, name FROM dead_letter ORDER BY id")


async def test_an_agent_reaches_its_own_namespace_only(quick_url: str) -> None:
    """A send, an ask, a publish beyond it find nobody: a dead letter, a Problem; nothing arrives there."""
    async with running(quick_url, hosts=2) as gate:
        code = await gate.code(SOURCE)
        await gate.agent("echo", code, "Echo", namespace="other")
        await gate.agent("sender", code, "Sender")
        await gate.agent("circle", code, "Circle")
        assert await gate.ask("sender", {"to": ["other/echo", "nobody"]}, "s1") == 2
        assert await _letters(gate) == [
            ("TARGET_NOT_FOUND", "agent_sender", "echo"),
            ("TARGET_NOT_FOUND", "agent_sender", "nobody"),
        ]
        assert (await gate.ask("circle", ["other/echo"], "c1"))["reason"] == "TARGET_NOT_FOUND"
        assert await gate.rows("SELECT 1 FROM inbox WHERE agent = 'agent_echo' AND trigger = 'message'") == []
        events = await gate.rows("SELECT DISTINCT namespace FROM event WHERE type = 'message.dead_lettered'")
        assert events == [("default",)]


async def test_a_circle_of_questions_breaks_at_one_edge(database_url: str) -> None:
    """Three agents that ask each other around: the newest question fails, the others get that as their failure."""
    async with running(database_url) as gate:
        code = await gate.code(SOURCE)
        for name in ("one", "two", "three"):
            await gate.agent(name, code, "Circle", suspend_after_ms=10)
        assert await gate.ask("one", ["two", "three"], "c0") == "end"
        failed = await gate.ask("one", ["two", "three", "one"], "c1")
        assert failed["reason"] == "ASK_CYCLE"
        assert len(await gate.rows("SELECT 1 FROM awaiting WHERE result LIKE '%ASK_CYCLE%' AND kind = 'ask'")) == 3
        assert await gate.ask("one", [], "c2") == "end"


async def test_two_that_ask_each_other_at_once_break_at_one_edge(sqlite_url: str) -> None:
    """However their questions meet, nobody hangs."""
    async with running(sqlite_url) as gate:
        code = await gate.code(SOURCE)
        for name in ("one", "two"):
            await gate.agent(name, code, "Circle", suspend_after_ms=60_000)
        for n in range(10):
            asked = (gate.ask("one", ["two"], f"a{n}"), gate.ask("two", ["one"], f"b{n}"))
            answers = await asyncio.gather(*asked)
            assert "end" in answers or any(isinstance(it, dict) and it["reason"] == "ASK_CYCLE" for it in answers)


async def test_an_answer_that_comes_too_late_is_told_and_changes_nothing(quick_url: str) -> None:
    """The deadline resolves the question first; the answer is an event."""
    async with running(quick_url) as gate:
        code = await gate.code(SOURCE)
        await gate.agent("slow", code, "Slow")
        await gate.until("SELECT 1 FROM turn", bool)
        await gate.send("slow", 1.0, "q1", time.time() + 0.4)
        rows = await gate.until(
            "SELECT outcome, result FROM awaiting WHERE await_id = 'q1'", lambda rows: rows[0][0] is not None
        )
        assert rows[0][0] == "timeout"
        await gate.until("SELECT 1 FROM event WHERE type = 'answer.late'", bool)
        assert await gate.rows("SELECT outcome FROM awaiting WHERE await_id = 'q1'") == [("timeout",)]


async def test_timers_set_anew_and_cancelled_discard_what_fired_before(quick_url: str) -> None:
    """A firing that waits behind the turn that cancels or sets its timer anew is not handled."""
    async with running(quick_url) as gate:
        code = await gate.code(SOURCE)
        uid = await gate.agent("alarm", code, "Alarm", suspend_after_ms=20)
        await gate.ask("alarm", {"after_s": 0.05, "data": "first"}, "t1")
        await gate.until(f"SELECT 1 FROM turn WHERE agent = '{uid}' AND trigger = 'timer'", bool)
        await gate.ask("alarm", {"after_s": 0.05, "data": "old"}, "t2")
        await gate.ask("alarm", {"after_s": 0.3, "data": "slow"}, "t3")
        state = f"SELECT state FROM agent WHERE uid = '{uid}'"
        await gate.until(state, lambda rows: '"slow"' in (rows[0][0] or ""))
        got = (await gate.ask("alarm", "count", "t4"))["got"]
        assert got[0] == "first"
        assert got[-1] == "slow"
        await gate.ask("alarm", {"every_s": 0.05, "data": "again"}, "t5")
        await gate.until(state, lambda rows: (rows[0][0] or "").count('"again"') >= 3)
        await gate.ask("alarm", "cancel", "t6")
        assert await gate.rows("SELECT 1 FROM timer") == []
        assert await gate.rows("SELECT 1 FROM inbox WHERE trigger = 'timer'") == []


async def test_a_timer_of_a_stopped_agent_fires_once_for_what_it_missed(quick_url: str) -> None:
    """Missed times are not made up for one by one, and a slow agent gets one firing at a time."""
    async with running(quick_url) as gate:
        code = await gate.code(SOURCE)
        uid = await gate.agent("alarm", code, "Alarm", suspend_after_ms=20)
        await gate.ask("alarm", {"every_s": 0.05, "data": "x"}, "t1")
        await gate.client.control("stop", uid, {"principal": "me"})
        before = len(await gate.rows(f"SELECT 1 FROM turn WHERE agent = '{uid}' AND trigger = 'timer'"))
        await asyncio.sleep(0.6)
        assert len(await gate.rows(f"SELECT 1 FROM inbox WHERE agent = '{uid}'")) <= 1
        await gate.client.control("wake", uid, {"principal": "me"})
        await gate.ask("alarm", "cancel", "t2")
        after = len(await gate.rows(f"SELECT 1 FROM turn WHERE agent = '{uid}' AND trigger = 'timer'"))
        assert after - before <= 4


async def test_messages_that_come_at_once_fill_an_inbox_and_no_more(database_url: str) -> None:
    """What is on its way takes room, too; the same message twice is one, and each caller has its own answer: one that
    is there already is taken again."""
    async with running(database_url, inbox_messages_max=3) as gate:
        uid = await gate.agent("slow", await gate.code(SOURCE), "Slow")
        await gate.until("SELECT 1 FROM turn WHERE finished_at IS NOT NULL", bool)
        await gate.client.control("stop", uid, {})
        ids = [f"m{n % 5}" for n in range(10)]
        answers = await asyncio.gather(*(gate.send("slow", 0, it) for it in ids), return_exceptions=True)
        refused = [it.problem.reason for it in answers if isinstance(it, Refusal)]
        assert set(refused) == {"BACKLOG_FULL"}
        rows = await gate.rows("SELECT message_id FROM inbox WHERE agent = 'agent_slow'")
        assert {it for (it,) in rows} == {it for it, answer in zip(ids, answers, strict=True) if answer is None}
        assert len(rows) == 3


async def test_a_full_inbox_makes_senders_wait(database_url: str) -> None:
    """A plane is refused with a time; an agent's turn is tried again, and its message arrives when there is room."""
    async with running(database_url, inbox_messages_max=3) as gate:
        code = await gate.code(SOURCE)
        uid = await gate.agent("slow", code, "Slow")
        await gate.agent("sender", code, "Sender")
        await gate.until("SELECT 1 FROM turn", lambda rows: len(rows) == 2)
        await gate.client.control("stop", uid, {})
        for n in range(3):
            await gate.send("slow", 0, f"m{n}")
        with pytest.raises(Refusal) as refused:
            await gate.send("slow", 0, "m3")
        assert refused.value.problem.reason == "BACKLOG_FULL"
        assert refused.value.problem.retry_after_s
        asked = asyncio.create_task(gate.ask("sender", {"to": ["slow"], "what": 0}, "s1"))
        await gate.until("SELECT 1 FROM inbox WHERE message_id = 's1' AND attempts > 0", bool)
        await gate.client.control("wake", uid, {})
        assert await asked == 1
        await gate.until("SELECT 1 FROM turn WHERE agent = 'agent_slow'", lambda rows: len(rows) == 5)


async def test_what_an_agent_publishes_meets_the_channels_schema(quick_url: str) -> None:
    """Else the turn fails for good, nothing of it is published, and its host goes on with the state of before."""
    async with running(quick_url) as gate:
        code = await gate.code(SOURCE)
        await gate.agent("publisher", code, "Publisher")
        uid = await gate.channel("news")
        spec = orjson.dumps({"dataschema": {"type": "integer", "maximum": 1}}).decode()
        row = insert(ResourceRow).values(
            kind="Channel", namespace="default", name="news", uid=uid, labels="{}", spec=spec,
            revision=1, generation=1, created_at=0.0, updated_at=0.0,
        )  # fmt: skip
        assert await gate.store.write(Unit().run(row))
        assert await gate.ask("publisher", 2, "p1") is None
        assert (await gate.ask("publisher", 3, "p2"))["reason"] == "SCHEMA_MISMATCH"
        assert await gate.ask("publisher", 1, "p3") is None
        assert len(await gate.rows("SELECT 1 FROM channel_message")) == 3


async def test_a_message_that_was_handled_is_not_handled_again(database_url: str) -> None:
    """Who joins a channel anew from its beginning gets nothing twice, and does not hang on it."""
    async with running(database_url) as gate:
        code = await gate.code(SOURCE)
        await gate.agent("publisher", code, "Publisher")
        member = await gate.agent("member", code, "Member")
        channel = await gate.channel("news", member)
        await gate.ask("publisher", 5, "p1")
        await gate.until("SELECT 1 FROM turn WHERE agent = 'agent_member'", lambda rows: len(rows) == 6)
        unit = Unit().raw("UPDATE subscription SET position = 0 WHERE agent = ?", [member], 1)
        assert await gate.store.write(unit)
        await gate.client.control("deliver", channel, {})
        await gate.until("SELECT position FROM subscription", lambda rows: rows[0][0] == 5)
        assert (await gate.ask("member", "count", "c1"))["got"] == [0, 1, 2, 3, 4]
        assert await gate.rows("SELECT 1 FROM inbox") == []


async def test_many_namespaces_share_few_hosts(sqlite_url: str) -> None:
    """With one host at a time, agents of several namespaces that never rest all come to their turns."""
    async with running(sqlite_url, hosts=0, hosts_max=1, host_idle_s=30.0) as gate:
        code = await gate.code(SOURCE)
        names = ("red", "green", "blue")
        for name in names:
            await gate.agent(name, code, "Alarm", namespace=name, suspend_after_ms=60_000)
            await gate.send(name, {"every_s": 0.1}, f"m-{name}", namespace=name)
        gate.host()
        limit = time.monotonic() + 40
        while time.monotonic() < limit:
            if gate.hosts[-1].poll() is not None:
                gate.host()
            rows = await gate.rows("SELECT agent, COUNT(*) FROM turn WHERE trigger = 'timer' GROUP BY agent")
            if len(rows) == 3 and all(row[1] >= 3 for row in rows):
                return
            await asyncio.sleep(0.05)
        raise AssertionError(rows)


async def test_a_parked_turn_ends_on_what_it_began_on(quick_url: str) -> None:
    """A new generation does not reach into an open turn: code, entrypoint and config stay, for that turn."""
    async with running(quick_url, hosts=2) as gate:
        old = await gate.code(SOURCE + "# old\n")
        new = await gate.code(
            SOURCE.replace("class Asker", "class Renamed").replace("return [first", "return ['new', first")
        )
        await gate.agent("echo", old, "Echo")
        uid = await gate.agent("asker", old, "Asker", suspend_after_ms=20)
        await gate.send("asker", {"whom": "echo", "what": "x", "sleep": 1.0}, "a1", time.time() + 60)
        await gate.until("SELECT 1 FROM turn WHERE outcome = 'parked' AND entries = 2", bool)
        await gate.until(f"SELECT owner FROM agent WHERE uid = '{uid}'", lambda rows: rows[0][0] is None)
        spec = orjson.dumps({"code": {"digest": new}, "entrypoint": "zoo:Renamed", "suspend_after_ms": 20}).decode()
        unit = Unit().raw("UPDATE resource SET spec = ?, generation = 2 WHERE uid = ?", [spec, uid], 1)
        assert await gate.store.write(unit.raw("UPDATE agent SET generation = 2 WHERE uid = ?", [uid], 1))
        await gate.client.control("reload", uid, {})
        rows = await gate.until(
            "SELECT result FROM awaiting WHERE await_id = 'a1'", lambda rows: rows[0][0] is not None
        )
        assert orjson.loads(rows[0][0]) == ["x", 1]
        assert await gate.ask("asker", {"whom": "echo", "what": "y"}, "a2") == ["new", "y", 2]


CLOCKED = """
import time
from ray_runtime import Agent


class Clocked(Agent):
    async def on_message(self, turn, envelope):
        self.state["at"] = time.time()
        await turn.sleep(0.5)
        return "never"
"""


async def test_a_state_that_is_not_from_the_turn_is_found_by_its_hash(quick_url: str) -> None:
    """No effect differs; the replay after a suspension keeps something else, and says so instead of going on."""
    async with running(quick_url) as gate:
        await gate.agent("clocked", await gate.code(CLOCKED), "Clocked", suspend_after_ms=20)
        found = await gate.ask("clocked", None, "c1")
        ((recorded,),) = await gate.rows("SELECT state FROM journal WHERE kind = 'sleep'")
        assert (found["reason"], found["metadata"]["recorded"]) == ("REPLAY_DIVERGED", {"state": recorded})
        assert found["next"][0]["operation"] == "turns.get"


async def test_a_journal_of_a_format_that_nobody_reads_ends_its_turn(quick_url: str) -> None:
    """The format before is read as ever; one of another release is no riddle, but a Problem."""
    async with running(quick_url) as gate:
        code = await gate.code(SOURCE)
        await gate.agent("echo", code, "Echo")
        uid = await gate.agent("asker", code, "Asker", suspend_after_ms=20)
        parked = "SELECT 1 FROM turn t JOIN agent a ON a.uid = t.agent WHERE t.outcome = 'parked' AND t.entries = 2"
        for message, written, ended in (("a1", None, ["x", 1]), ("a2", 99, "UPGRADED")):
            await gate.send("asker", {"whom": "echo", "what": "x", "sleep": 2.0}, message, time.time() + 60)
            await gate.until(f"{parked} AND a.owner IS NULL", bool)
            change = Unit().raw("UPDATE turn SET format = ? WHERE agent = ? AND finished_at IS NULL", [written, uid], 1)
            assert await gate.store.write(change)
            await gate.client.control("reload", uid, {})
            of_it = f"SELECT result FROM awaiting WHERE await_id = '{message}'"
            rows = await gate.until(of_it, lambda rows: rows[0][0] is not None)
            found = orjson.loads(rows[0][0])
            assert (found if written is None else found["reason"]) == ended
        assert await gate.rows("SELECT DISTINCT format FROM turn WHERE agent = 'agent_echo'") == [(FORMAT,)]
