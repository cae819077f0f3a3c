"""The seeded schedule on a whole installation with two nodes: plane, gate, placer, hosts, nodes and the parts of Ray.

Traffic, laws and seeds are those of `test_schedule.py`; `STEWARD_SEED` and `STEWARD_STACK_S` repeat a run.
"""

import asyncio
import os
import time

import pytest

from tests.conftest import SOAK
from tests.faults.checking import broken
from tests.faults.installed import Other, Reached, StackActing, StackTraffic
from tests.faults.points import SEED, Arming
from tests.faults.timetable import Act, stack_timetable
from tests.faults.traffic import watch_owners
from tests.gate.counting import counting
from tests.postgres import Postgres
from tests.stack import Stack

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(3600 if SOAK else 400)]
SCHEDULE_S = float(os.environ.get("STEWARD_STACK_S", "600" if SOAK else "25"))
BOUNDS = {
    "lease_s": 3, "loop_held_s_max": 1.0, "turn_attempts_max": 200, "effect_hold_s": 0.2, "effect_send_within_s": 8.0,
    "hosts_max": 3, "host_appear_s": 25,
}  # fmt: skip


async def test_the_history_of_an_installation_is_that_of_no_fault(arming: Arming) -> None:
    """Whatever of it dies or stands still, together with whatever."""
    await _run(arming, None)


@pytest.mark.skipif(not SOAK, reason="ten minutes: in a soak only")
async def test_the_history_of_an_installation_on_postgresql_is_that_of_no_fault(
    arming: Arming, own_server: Postgres
) -> None:
    """The same, where the database restarts and crashes, too."""
    await _run(arming, own_server)


async def _run(arming: Arming, server: Postgres | None) -> None:
    acts = stack_timetable(SEED, SCHEDULE_S, restarts=server is not None)
    print(f"STEWARD_SEED={SEED} STEWARD_STACK_S={SCHEDULE_S:g}: {len(acts)} acts")
    stack = Stack(server.create() if server is not None else None, faults=arming.folder, **BOUNDS)
    other = Other(stack)
    try:
        await asyncio.to_thread(stack.up)
        await _under_faults(stack, other, arming, server, acts)
        await asyncio.to_thread(other.kill)
        await asyncio.to_thread(stack.stop)
        assert stack.leftovers() == []
    except AssertionError as error:
        raise AssertionError(f"{error}\n{stack.output()[-8000:]}") from error
    finally:
        await asyncio.to_thread(other.kill)
        await asyncio.to_thread(stack.close)


async def _under_faults(stack: Stack, other: Other, arming: Arming, server: Postgres | None, acts: list[Act]) -> None:
    gate = Reached(stack)
    watch_owners(gate.url)
    async with counting(honours=True) as keyed, counting(honours=False) as plain, gate.connected():
        traffic = StackTraffic(stack, other, gate=gate, keyed=keyed, plain=plain, seed=SEED)
        await traffic.begin()
        keeping = asyncio.create_task(other.keep())
        acting = StackActing(traffic, arming, server, SEED)
        end = time.monotonic() + SCHEDULE_S
        async with asyncio.TaskGroup() as group:
            group.create_task(acting.run(acts))
            group.create_task(traffic.go_on(lambda: time.monotonic() > end))
        history = await traffic.history()
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)
    found = broken(history)
    assert not found, "\n".join([f"STEWARD_SEED={SEED} STEWARD_STACK_S={SCHEDULE_S:g}", *found, *acting.done])
    assert len(history.acknowledged) > SCHEDULE_S
    print(f"{len(history.acknowledged)} messages, {len(history.turns)} turns, {len(history.effects)} effects")
