"""Random faults at random points, from a seed: several at once, in any order, under a workload with known answers.

`STEWARD_SEED` and `STEWARD_SOAK_S` repeat a run and lengthen it; a failure names its seed and its faults.
"""

import asyncio
import contextlib
import os
import random
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from schemas.faults import MOMENTS, POINTS, Fault
from tests.faults.history import World
from tests.faults.points import SEED, Arming, fault, supervised
from tests.faults.test_crash_apart import OF_HOST
from tests.faults.test_crash_gate import GROUPS, REST
from tests.gate.running import running

pytestmark = [pytest.mark.anyio, pytest.mark.soak]
SOAK_S = float(os.environ.get("STEWARD_SOAK_S", "5"))
AT_ONCE_MAX = 3
PASSING_MAX = 4
STOPPED_S = 2.0  # beyond the lease
OF_GATE = [f"gate.{unit}.{it}" for units in GROUPS.values() for unit in units for it in MOMENTS] + REST
ACTS = {"kill": 6, "delay": 2, "full": 1}


def schedule(chance: random.Random, *, full: bool = True) -> list[Fault]:
    """One to three faults, of gate and hosts, at the first to the fourth passing of a point.

    A disk that is `full` is one of SQLite's; how PostgreSQL says so is in `test_disk_apart.py`.
    """
    faults = []
    for _ in range(chance.randint(1, AT_ONCE_MAX)):
        point = chance.choice(OF_HOST if chance.random() < 0.3 else OF_GATE)
        act = chance.choices(list(ACTS), list(ACTS.values()))[0]
        if point in OF_HOST and act == "full":
            act = "stop"
        elif act == "full":
            point, act = "store.begin", "full" if full else "delay"
        faults.append(fault(point, act, chance.randint(1, PASSING_MAX), round(chance.uniform(0.01, 0.3), 3)))
    return faults


@contextlib.asynccontextmanager
async def _going_on(arming: Arming, faults: list[Fault]) -> AsyncIterator[None]:
    """Whoever was stopped goes on later, when its agents are others'."""

    async def wake(which: int) -> None:
        while (pid := arming.pid(which)) is None:  # noqa: ASYNC110 - a file of another process
            await asyncio.sleep(0.05)
        await asyncio.sleep(STOPPED_S)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)

    wakers = [asyncio.create_task(wake(n)) for n, it in enumerate(faults) if it.act == "stop"]
    try:
        yield
    finally:
        stopped = [task for n, task in zip((n for n, it in enumerate(faults) if it.act == "stop"), wakers, strict=True)
                   if arming.pid(n) is not None]  # fmt: skip
        await asyncio.gather(*stopped)
        for task in wakers:
            task.cancel()
        await asyncio.gather(*wakers, return_exceptions=True)


async def test_random_faults_at_random_points(database_url: str, tmp_path: Path, arming: Arming) -> None:
    """However they fall together, the history is that of no fault: nothing lost, nothing twice, nothing left open."""
    chance = random.Random(SEED)
    met = 0
    async with running(database_url, hosts=2, lease_s=1.5, turn_attempts_max=20) as gate, supervised(gate, 2):
        world = await World(gate, tmp_path).begin()
        limit = time.monotonic() + SOAK_S
        while time.monotonic() < limit:
            faults = schedule(chance, full=database_url.startswith("sqlite"))
            arming.put(*faults)
            try:
                async with _going_on(arming, faults):
                    await world.round()
                met += len(faults) - len(arming.left())
                arming.put()
                await world.check()
            except (AssertionError, ExceptionGroup) as error:
                raise AssertionError(f"seed {SEED}, round {world.rounds}, {faults}: {error!r}") from error
        await world.told()
    assert met > 0, "no fault was met"


def test_the_schedule_reaches_every_point_of_gate_and_host() -> None:
    """A long run passes all that the points are for."""
    chance = random.Random(SEED)
    points = {it.point for _ in range(5_000) for it in schedule(chance)}
    assert points == {*OF_GATE, *OF_HOST} <= set(POINTS)
