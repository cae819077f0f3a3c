"""Slow workers, who come and go, and readers, under a seeded schedule: a gate, hosts and a database that die and stop.

Nothing that was acknowledged is lost, nothing is done twice, each key is in order and with one holder at a time.
`STEWARD_SEED` runs one again, `STEWARD_MESH_S` says for how long. How to read a failure: CONTRIBUTING.md.
"""

import asyncio
import os
import time

import pytest

from tests.conftest import SOAK
from tests.faults.acting import Acting
from tests.faults.checking import broken
from tests.faults.points import SEED, Arming, supervised
from tests.faults.timetable import MESH_WEIGHTS, mesh_timetable
from tests.faults.traffic import watch_owners
from tests.gate.counting import counting
from tests.gate.running import running
from tests.mesh.traffic import MeshTraffic
from tests.postgres import Postgres

pytestmark = pytest.mark.anyio
MESH_S = float(os.environ.get("STEWARD_MESH_S", "900" if SOAK else "30"))
BOUNDS = {"lease_s": 1.5, "loop_held_s_max": 1.0, "turn_attempts_max": 200}


async def test_the_mesh_keeps_its_word_on_sqlite(sqlite_url: str, arming: Arming) -> None:
    """Whatever falls together with whatever."""
    await _run(sqlite_url, arming, None)


async def test_the_mesh_keeps_its_word_on_postgresql(own_server: Postgres, arming: Arming) -> None:
    """Whatever falls together with whatever, and the database restarts and crashes."""
    await _run(own_server.create(), arming, own_server)


async def _run(url: str, arming: Arming, server: Postgres | None) -> None:
    acts = mesh_timetable(SEED, MESH_S, restarts=server is not None)
    print(f"STEWARD_SEED={SEED} STEWARD_MESH_S={MESH_S:g}: {len(acts)} acts")
    watch_owners(url)
    async with counting(honours=True) as far, running(url, hosts=2, **BOUNDS) as gate, supervised(gate, 2):
        traffic = await MeshTraffic(gate, far, far, SEED).begin()
        acting = Acting(traffic, arming, server, SEED)
        end = time.monotonic() + MESH_S
        async with asyncio.TaskGroup() as group:
            group.create_task(acting.run(acts))
            group.create_task(traffic.go_on(lambda: time.monotonic() > end))
        history = await traffic.history()
    found = broken(history)
    assert not found, "\n".join([f"STEWARD_SEED={SEED} STEWARD_MESH_S={MESH_S:g}", *found, *acting.done])
    assert len(history.holds) > MESH_S
    print(f"{len(history.holds)} jobs, {len(history.turns)} turns")


def test_a_seed_decides_the_timetable() -> None:
    """The same seed, the same acts; a longer one begins as a shorter one, and each kind of act comes up."""
    short, long = mesh_timetable(7, 20, restarts=True), mesh_timetable(7, 600, restarts=True)
    assert long[: len(short)] == short
    assert {it.what for it in long} == set(MESH_WEIGHTS)
