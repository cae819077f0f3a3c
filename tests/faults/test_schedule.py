"""The seeded schedule of faults: everything dies, stops, dawdles and is doubled, while traffic with known answers runs.

`STEWARD_SEED` runs one again, `STEWARD_SCHEDULE_S` says for how long. A failure names both, what was done, and
every law that the history breaks. How to read it: CONTRIBUTING.md.
"""

import asyncio
import os
import time

import pytest

from tests.conftest import SOAK
from tests.faults.acting import Acting
from tests.faults.checking import broken
from tests.faults.points import SEED, Arming, supervised
from tests.faults.timetable import STACK_WEIGHTS, WEIGHTS, stack_timetable, timetable
from tests.faults.traffic import Traffic, watch_owners
from tests.gate.counting import counting
from tests.gate.running import running
from tests.postgres import Postgres

pytestmark = pytest.mark.anyio
SCHEDULE_S = float(os.environ.get("STEWARD_SCHEDULE_S", "600" if SOAK else "30"))
BOUNDS = {"lease_s": 1.5, "loop_held_s_max": 1.0, "turn_attempts_max": 200, "hold_s": 0.2, "send_within_s": 8.0}


async def test_the_history_is_that_of_no_fault_on_sqlite(sqlite_url: str, arming: Arming) -> None:
    """Whatever falls together with whatever."""
    await _run(sqlite_url, arming, None)


async def test_the_history_is_that_of_no_fault_on_postgresql(own_server: Postgres, arming: Arming) -> None:
    """Whatever falls together with whatever, and the database restarts and crashes."""
    await _run(own_server.create(), arming, own_server)


async def _run(url: str, arming: Arming, server: Postgres | None) -> None:
    acts = timetable(SEED, SCHEDULE_S, restarts=server is not None)
    print(f"STEWARD_SEED={SEED} STEWARD_SCHEDULE_S={SCHEDULE_S:g}: {len(acts)} acts")
    watch_owners(url)
    async with (
        counting(honours=True) as keyed,
        counting(honours=False) as plain,
        running(url, hosts=2, **BOUNDS) as gate,
        supervised(gate, 2),
    ):
        traffic = await Traffic(gate, keyed, plain, SEED).begin()
        acting = Acting(traffic, arming, server, SEED)
        end = time.monotonic() + SCHEDULE_S
        async with asyncio.TaskGroup() as group:
            group.create_task(acting.run(acts))
            group.create_task(traffic.go_on(lambda: time.monotonic() > end))
        history = await traffic.history()
    found = broken(history)
    assert not found, "\n".join([f"STEWARD_SEED={SEED} STEWARD_SCHEDULE_S={SCHEDULE_S:g}", *found, *acting.done])
    assert len(history.acknowledged) > SCHEDULE_S
    print(f"{len(history.acknowledged)} messages, {len(history.turns)} turns, {len(history.effects)} effects")


def test_a_seed_decides_the_timetable() -> None:
    """The same seed, the same acts; a longer one begins as a shorter one, and each kind of act comes up."""
    short, long = timetable(7, 20, restarts=True), timetable(7, 600, restarts=True)
    assert long[: len(short)] == short
    assert timetable(8, 20, restarts=True) != short
    assert {it.what for it in long} == set(WEIGHTS)
    assert {it.what for it in timetable(7, 600, restarts=False)} == set(WEIGHTS) - {"restart database"}
    stack = stack_timetable(7, 600, restarts=False)
    assert stack_timetable(7, 40, restarts=False) == [it for it in stack if it.at < 40]
    assert sorted(it.what for it in stack[: len(STACK_WEIGHTS) - 1]) == sorted(
        STACK_WEIGHTS.keys() - {"restart database"}
    )
