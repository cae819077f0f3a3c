"""One agent that holds its host's loop: how long the others wait for theirs, and what becomes of it."""

import asyncio
import time
from typing import Any

import orjson
import pytest

from tests.gate.running import RunningGate, running
from tests.gate.zoo import SOURCE

pytestmark = pytest.mark.anyio
HELD_S = 1.0
LIMITS: dict[str, Any] = {"effects_max": 10, "journal_bytes_max": 10_000, "turn_s_max": 6}


async def _started(gate: RunningGate, many: int) -> None:
    await gate.until("SELECT 1 FROM turn WHERE trigger = 'start' AND finished_at > 0", lambda it: len(it) == many)


async def test_two_that_never_come_back_delay_nobody_beyond_the_bound(quick_url: str) -> None:
    """`while True` and a blocking sleep: the others answer from another host; both end by their own limit."""
    async with running(quick_url, hosts=3, loop_held_s_max=HELD_S) as gate:
        code = await gate.code(SOURCE)
        await gate.agent("echo", code, "Echo", suspend_after_ms=60_000)
        await gate.agent("counter", code, "Counter", suspend_after_ms=60_000)
        await gate.agent("ledger", code, "Ledger", suspend_after_ms=60_000)
        await gate.agent("wedged", code, "Wedged", limits=LIMITS)
        await gate.agent("sleeper", code, "Slow", limits=LIMITS)
        await _started(gate, 5)
        held = [
            asyncio.create_task(gate.ask("wedged", None, "w1", 40)),
            asyncio.create_task(gate.ask("sleeper", 60, "s1", 40)),
        ]
        await asyncio.sleep(0.1)
        began = time.monotonic()
        assert await asyncio.gather(gate.ask("echo", 7, "e1"), gate.ask("counter", 1, "c1")) == [7, 1]
        took = time.monotonic() - began
        assert took < 2 * (HELD_S + 1.5), "once for each of the two, with a heartbeat and a look"
        assert not any(it.done() for it in held), "the others did not wait for their end"
        assert [(await it)["reason"] for it in held] == ["TURN_TIMEOUT", "TURN_TIMEOUT"]
        rows = await gate.rows("SELECT message_id, attempts FROM turn WHERE message_id IN ('e1', 'c1')")
        assert sorted(rows) == [("c1", 1), ("e1", 1)], "who was in the way of nobody counts no attempt"
        letters = await gate.rows("SELECT message_id, reason FROM dead_letter ORDER BY message_id")
        assert letters == [("s1", "TURN_TIMEOUT"), ("w1", "TURN_TIMEOUT")]
        assert (await gate.ask("counter", "count", "c2"))["got"] == [1]
        told = await gate.rows("SELECT data FROM event WHERE type = 'host.held' ORDER BY cursor")
        assert {orjson.loads(row[0])["agent"] for row in told} <= {"default/wedged", "default/sleeper"}
        assert told


async def test_a_slow_turn_is_left_alone_and_ends_well(quick_url: str) -> None:
    """What holds its host for a while, within its limits, is neither ended nor run twice; the host serves again."""
    async with running(quick_url, hosts=2, loop_held_s_max=HELD_S) as gate:
        code = await gate.code(SOURCE)
        await gate.agent("echo", code, "Echo", suspend_after_ms=60_000)
        await gate.agent("slow", code, "Slow", suspend_after_ms=60_000)
        await _started(gate, 2)
        asked = asyncio.create_task(gate.ask("slow", 3.0, "s1"))
        await asyncio.sleep(0.1)
        assert await gate.ask("echo", 1, "e1") == 1
        assert not asked.done()
        assert await asked == "done"
        assert await gate.rows("SELECT attempts, outcome FROM turn WHERE message_id = 's1'") == [(1, "committed")]
        assert await gate.rows("SELECT 1 FROM event WHERE type = 'host.lost'") == []
        assert all(it.poll() is None for it in gate.hosts)
        owners = await gate.rows("SELECT COUNT(DISTINCT owner) FROM agent WHERE owner IS NOT NULL")
        assert owners == [(2,)]


async def test_where_no_other_host_can_be_had_the_process_is_ended(quick_url: str) -> None:
    """The turn that is known to hold it is tried again alone, and the others are answered in between."""
    async with running(quick_url, hosts_max=1, host_appear_s=1.0, loop_held_s_max=HELD_S, turn_attempts_max=2) as gate:
        code = await gate.code(SOURCE)
        await gate.agent("echo", code, "Echo", suspend_after_ms=60_000)
        await gate.agent("wedged", code, "Wedged", limits=LIMITS | {"turn_s_max": 60})
        await _started(gate, 2)
        wedged = asyncio.create_task(gate.ask("wedged", None, "w1", 40))
        await asyncio.sleep(0.1)
        echoed = [asyncio.create_task(gate.ask("echo", 0, "e0", 40))]
        while not (wedged.done() and echoed[-1].done()):
            if gate.hosts[-1].poll() is not None:
                gate.host()
            if echoed[-1].done() and not wedged.done():  # nobody is ended for the sake of nobody
                echoed.append(asyncio.create_task(gate.ask("echo", len(echoed), f"e{len(echoed)}", 40)))
            await asyncio.sleep(0.02)
        assert [it.result() for it in echoed] == list(range(len(echoed)))
        assert wedged.result()["reason"] == "TURN_FAILED"
        counts = await gate.rows("SELECT DISTINCT attempts FROM turn WHERE message_id LIKE 'e%'")
        assert counts == [(1,)], "who was in the way of nobody counts no attempt"
