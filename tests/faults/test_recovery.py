"""The database restarts in the middle of a recovery: what was running, parked and waiting goes on, once."""

import asyncio
import time
from typing import Any

import orjson
import pytest

from tests.faults.points import Arming, supervised
from tests.faults.traffic import heard
from tests.gate.running import RunningGate, running
from tests.gate.zoo import SOURCE
from tests.postgres import Postgres

pytestmark = pytest.mark.anyio
POINTS = (  # from the first step of a recovery to its last
    "gate.recover.before",
    "store.postgresql.commit",
    "gate.recover.committed",
    "gate.start.remembered",
    "gate.start.swept",
)


async def rows(gate: RunningGate, query: str, **given: Any) -> list[tuple[Any, ...]]:
    """Read, whatever is away meanwhile."""
    found: list[tuple[Any, ...]] = await heard(lambda: gate.rows(query, **given))
    return found


async def until(gate: RunningGate, query: str, timeout_s: float = 40) -> list[tuple[Any, ...]]:
    limit = time.monotonic() + timeout_s
    while not (found := await rows(gate, query)):
        assert time.monotonic() < limit, query
        await asyncio.sleep(0.02)
    return found


async def under_way(gate: RunningGate, n: int) -> None:
    """A turn that runs, one that is parked, one that is done, and messages that wait behind the first."""
    await gate.send("slow", 0.6, f"s{n}", time.time() + 600)
    await gate.send("asker", {"whom": "echo", "what": n, "sleep": 0.6}, f"q{n}", time.time() + 600)
    await gate.send("counter", n, f"m{n}")
    await until(gate, f"SELECT 1 FROM turn WHERE message_id = 'm{n}' AND finished_at > 0")
    await until(gate, "SELECT 1 FROM awaiting WHERE kind = 'sleep' AND resolved_at IS NULL")
    await gate.send("slow", 0, f"w{n}", time.time() + 600)


async def answer(gate: RunningGate, message_id: str) -> Any:
    found = await until(gate, f"SELECT result FROM awaiting WHERE await_id = '{message_id}' AND outcome IS NOT NULL")
    return orjson.loads(found[0][0])


async def test_the_database_crashes_in_the_middle_of_a_recovery(own_server: Postgres, arming: Arming) -> None:
    """At each step of it, one after the other; nothing is lost, done twice, or left to an owner of before."""
    async with running(own_server.create(), turn_attempts_max=50) as gate, supervised(gate):
        code = await gate.code(SOURCE)
        for name in ("slow", "asker", "counter", "ledger", "echo"):
            await gate.agent(name, code, name.capitalize(), suspend_after_ms=60_000)
        for n, point in enumerate(POINTS):
            await under_way(gate, n)
            arming.arm(point, act="stand", seconds=60)
            gate.kill()
            await arming.fired()
            await asyncio.to_thread(own_server.restart, "immediate")
            arming.go()
            assert await answer(gate, f"q{n}") == [n, n + 1], point
            assert [await answer(gate, f"{it}{n}") for it in "sw"] == ["done", "done"], point
        await until(gate, f"SELECT 1 FROM agent WHERE name = 'ledger' AND version > {len(POINTS)}")
        states = dict(await rows(gate, "SELECT name, state FROM agent"))
        wanted = list(range(len(POINTS)))
        assert [orjson.loads(states[it])["got"] for it in ("counter", "ledger")] == [wanted, wanted]
        twice = "SELECT agent FROM turn GROUP BY agent, message_id HAVING COUNT(*) > 1"
        late = "SELECT t.turn_id FROM turn t JOIN agent a ON a.uid = t.agent WHERE t.epoch > a.epoch"
        failed = "SELECT turn_id FROM turn WHERE outcome = 'failed'"
        assert [await rows(gate, it) for it in (twice, late, failed)] == [[], [], []]
        ghosts = (
            "SELECT a.name FROM agent a LEFT JOIN host h ON h.host_id = a.owner"
            " WHERE a.owner IS NOT NULL AND (h.host_id IS NULL OR h.ended_at IS NOT NULL)"
        )
        assert await rows(gate, ghosts) == []
