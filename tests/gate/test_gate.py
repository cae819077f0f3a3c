"""The gate with real hosts: turns, questions, timers, effects, failures, channels, on both databases."""

import pytest

from tests.gate.running import running
from tests.gate.zoo import SOURCE

pytestmark = pytest.mark.anyio
GRANT = {"mandate": {"grants": [{"effect": "machine.read", "connection": None}]}}


async def test_a_message_wakes_an_agent_and_is_answered_and_it_sleeps_again(database_url: str) -> None:
    """Start, message, answer, suspension, and again, with the state kept."""
    async with running(database_url) as gate:
        code = await gate.code(SOURCE)
        await gate.agent("ledger", code, "Ledger")
        await gate.agent("counter", code, "Counter")
        for n in (1, 2, 3):
            assert await gate.ask("counter", n, f"m{n}") == n
            await gate.until("SELECT owner FROM agent WHERE name = 'counter'", lambda rows: rows[0][0] is None)
        state = await gate.ask("counter", "count", "c")
        assert state == {"seen": 3, "started": 1, "got": [1, 2, 3]}
        assert (await gate.ask("ledger", "count", "lc"))["got"] == [1, 2, 3]
        await gate.send("counter", 3, "m3")
        assert (await gate.ask("counter", "count", "c2"))["seen"] == 3


async def test_questions_park_and_go_on(database_url: str) -> None:
    """An ask is answered across a suspension; to nobody, and in a circle, it fails; a sleep wakes."""
    async with running(database_url) as gate:
        code = await gate.code(SOURCE)
        await gate.agent("echo", code, "Echo")
        await gate.agent("asker", code, "Asker", suspend_after_ms=20)
        assert await gate.ask("asker", {"whom": "echo", "what": "x", "sleep": 0.3}, "a1") == ["x", 1]
        failed = await gate.ask("asker", {"whom": "nobody"}, "a2")
        assert failed["reason"] == "TARGET_NOT_FOUND"
        circle = await gate.ask("asker", {"whom": "asker"}, "a3")
        assert circle["reason"] == "ASK_CYCLE"
        assert await gate.ask("asker", {"whom": "echo", "what": "y"}, "a4") == ["y", 2]


async def test_requests_timers_and_effects(database_url: str) -> None:
    """Answers come to on_reply, timers fire as often as they should, effects need a grant."""
    async with running(database_url) as gate:
        code = await gate.code(SOURCE)
        await gate.agent("echo", code, "Echo")
        await gate.agent("requester", code, "Requester")
        await gate.send("requester", "echo", "r1")
        await gate.send("requester", "nobody", "r2")
        await gate.until(
            "SELECT 1 FROM turn WHERE trigger = 'reply' AND finished_at IS NOT NULL", lambda it: len(it) == 2
        )
        got = (await gate.ask("requester", "count", "rc"))["got"]
        assert sorted(kind for kind, _ in got) == ["steward.problem", "steward.reply"]
        await gate.agent("ticker", code, "Ticker", suspend_after_ms=10)
        await gate.until("SELECT 1 FROM turn WHERE trigger = 'timer'", lambda rows: len(rows) == 5)
        await gate.until("SELECT 1 FROM timer", lambda rows: not rows)
        await gate.agent("reader", code, "Reader", **GRANT)
        assert await gate.ask("reader", None, "e1") is True
        await gate.agent("denied", code, "Reader")
        assert (await gate.ask("denied", None, "e2"))["reason"] == "NOT_GRANTED"
        assert await gate.rows("SELECT 1 FROM event WHERE type = 'effect.denied'")


async def test_failures_go_to_the_dead_letters_and_the_agent_goes_on(database_url: str) -> None:
    """A handler that raises is retried, then buried; its state is as before."""
    async with running(database_url, turn_attempts_max=3) as gate:
        code = await gate.code(SOURCE)
        await gate.agent("broken", code, "Broken")
        failed = await gate.ask("broken", 1, "b1")
        assert failed["reason"] == "HANDLER_ERROR"
        rows = await gate.rows("SELECT reason, turn_id FROM dead_letter")
        assert [row[0] for row in rows] == ["HANDLER_ERROR"]
        attempts = await gate.rows("SELECT attempts FROM turn WHERE message_id = 'b1'")
        assert attempts == [(3,)]
        assert len(await gate.rows("SELECT 1 FROM event WHERE type = 'message.dead_lettered'")) == 1


async def test_channels_deliver_to_their_members_in_order(database_url: str) -> None:
    """What a turn publishes reaches every member once, in order; the first use has made the channel."""
    async with running(database_url) as gate:
        code = await gate.code(SOURCE)
        await gate.agent("publisher", code, "Publisher")
        members = [await gate.agent(name, code, "Member") for name in ("one", "two")]
        for name in members:
            await gate.send(name.removeprefix("agent_"), "join", f"j{name}")
        await gate.until("SELECT 1 FROM subscription", lambda rows: len(rows) == 2)
        await gate.send("publisher", 50, "p1")
        for name in ("one", "two"):
            await gate.until(
                f"SELECT 1 FROM turn WHERE agent = 'agent_{name}' AND finished_at IS NOT NULL",
                lambda rows: len(rows) == 52,
            )
            assert (await gate.ask(name, "count", f"pc{name}"))["got"] == list(range(50))
        positions = await gate.rows("SELECT position FROM channel_message ORDER BY position")
        assert [row[0] for row in positions] == list(range(1, 51))


async def test_a_child_is_spawned_once(database_url: str) -> None:
    """A spawned agent has its rows and answers."""
    async with running(database_url) as gate:
        code = await gate.code(SOURCE)
        await gate.agent("parent", code, "Parent")
        assert await gate.ask("parent", "kid", "s1") == "default/kid"
        assert await gate.ask("kid", 5, "k1") == 5
        assert await gate.rows("SELECT 1 FROM event WHERE type = 'resource.created' AND name = 'kid'")


async def test_stop_wake_suspend_remove(database_url: str) -> None:
    """A stopped agent keeps its messages; wake ends it; remove leaves nothing and tells whoever asked."""
    async with running(database_url) as gate:
        code = await gate.code(SOURCE)
        await gate.agent("ledger", code, "Ledger")
        uid = await gate.agent("counter", code, "Counter")
        await gate.ask("counter", 1, "m1")
        await gate.client.control("stop", uid, {"principal": "me"})
        await gate.client.control("stop", uid, {"principal": "me"})
        await gate.send("counter", 2, "m2")
        assert len(await gate.rows("SELECT 1 FROM inbox WHERE agent = 'agent_counter'")) == 1
        await gate.client.control("wake", uid, {"principal": "me"})
        await gate.until("SELECT 1 FROM turn WHERE message_id = 'm2' AND outcome = 'committed'", bool)
        events = await gate.rows("SELECT type FROM event WHERE type LIKE 'agent.%' ORDER BY cursor")
        assert [row[0] for row in events] == ["agent.stopped", "agent.woken"]
        await gate.client.control("stop", uid, {"principal": "me"})
        await gate.send("counter", 3, "m3", ask_until=4e9)
        await gate.client.control("remove", uid, {})
        rows = await gate.rows("SELECT outcome FROM awaiting WHERE await_id = 'm3'")
        assert rows == [("failed",)]
        assert await gate.rows("SELECT uid FROM agent WHERE uid = 'agent_counter'") == []
        assert len(await gate.rows("SELECT 1 FROM dead_letter WHERE message_id = 'm3'")) == 1
