"""Points of the gate that no workload passes: full disks, races of a removal, hosts that never come; and hosts."""

import asyncio
import os
import signal
import time
from pathlib import Path

import pytest
from sqlalchemy import text

from controlplane.store.unit import Unit
from schemas.faults import POINTS, Fault
from tests.conftest import SOAK
from tests.faults.history import World, said
from tests.faults.points import Arming, around, fault, gone, moments, supervised
from tests.gate.running import running, true

pytestmark = pytest.mark.anyio
OF_HOST = [point for point in POINTS if point.startswith("host.")]
STOPPED = OF_HOST if SOAK else ["host.handler.waits", "host.handler.ended", "host.frames.sending", "host.frames.sent"]
FIRES = frozenset([*around("fenced", "asker", "never", "trouble"), *OF_HOST])
AT_ONCE = [
    ("host.handler.ended", "gate.effect.sent"),
    ("host.frames.sent", "gate.commit.committed"),
    ("host.run", "gate.start.remembered"),
]


@pytest.mark.parametrize("moment", moments("fenced"))
async def test_the_gate_dies_while_its_store_is_full(
    sqlite_url: str, tmp_path: Path, arming: Arming, moment: str
) -> None:
    """A unit of a turn is refused for want of room, and the gate dies around taking the agent from its host."""
    async with running(sqlite_url, lease_s=3.0, turn_attempts_max=8) as gate, supervised(gate):
        world = await World(gate, tmp_path).begin()
        limit = time.monotonic() + 60
        while True:
            arming.put(fault(f"gate.fenced.{moment}"), *_full())
            await world.round()
            if arming.pid() is not None:
                break
            assert time.monotonic() < limit, f"nobody passed gate.fenced.{moment}"
        await world.check()


def _full() -> list[Fault]:
    """For a while, no batch finds room: those of one unit fail, the others are done one by one."""
    return [fault("store.begin", "full", n) for n in range(2, 30)]


@pytest.mark.parametrize("moment", moments("asker"))
async def test_the_gate_dies_while_it_tells_who_asked_an_agent_that_is_removed(
    sqlite_url: str, tmp_path: Path, arming: Arming, moment: str
) -> None:
    """Who asked in the very moment of the removal hears of it, whenever the gate dies."""
    async with running(sqlite_url, lease_s=3.0) as gate, supervised(gate):
        world = await World(gate, tmp_path).begin()
        uid = await gate.agent("gone", world.code, "Echo")
        await world.quiet()
        arming.put(fault("store.begin", "delay", seconds=0.5), fault(f"gate.asker.{moment}"))
        now = time.time()
        put = (
            "INSERT INTO awaiting (await_id, kind, target, target_agent, since, until) VALUES"
            f" ('late', 'operator', 'default/gone', '{uid}', {now}, {now + 2})"
        )
        nothing = "UPDATE agent SET changed_at = changed_at WHERE name = 'ledger'"
        first = asyncio.create_task(gate.store.write(Unit().run(text(nothing))))
        await arming.fired()
        removing = asyncio.create_task(said(lambda: gate.client.control("remove", uid, {})))
        late = asyncio.create_task(gate.store.write(Unit().run(text(put))))
        await asyncio.gather(first, late, return_exceptions=True)
        await removing
        await arming.fired(1)
        await gate.until("SELECT outcome FROM awaiting WHERE await_id = 'late'", lambda rows: rows[0][0] is not None)
        await world.check()


@pytest.mark.parametrize("moment", moments("never"))
async def test_the_gate_dies_while_it_gives_up_a_host(
    sqlite_url: str, tmp_path: Path, arming: Arming, moment: str
) -> None:
    """A host that is wanted and never comes is given up, once or once more, and others serve."""
    arming.arm(f"gate.never.{moment}")
    async with running(sqlite_url, hosts=0, host_appear_s=0.5, hosts_warm=1, lease_s=3.0) as gate:
        await arming.fired()
        await true(lambda: not gate.client.connected)
        async with supervised(gate):
            await gate.client.up()
            world = await World(gate, tmp_path).begin()
            await world.round()
            await world.check()


@pytest.mark.parametrize("moment", moments("trouble"))
async def test_the_gate_dies_while_it_tells_that_its_store_is_well_again(
    sqlite_url: str, tmp_path: Path, arming: Arming, moment: str
) -> None:
    """The trouble of a store that was full is over for the next gate too."""
    async with running(sqlite_url, lease_s=3.0, turn_attempts_max=8) as gate, supervised(gate):
        world = await World(gate, tmp_path).begin()
        arming.put(fault(f"gate.trouble.{moment}"), *_full())
        await world.round()
        await arming.fired()
        await world.round()
        await world.check()


async def test_hosts_die_at_each_of_their_points(quick_url: str, tmp_path: Path, arming: Arming) -> None:
    """Another host goes on from what is committed, and `host.lost` says so; of a replay nobody misses anything."""
    async with running(quick_url, lease_s=3.0, turn_attempts_max=8, replay_one_in=1) as gate, supervised(gate):
        world = await World(gate, tmp_path).begin()
        for point in OF_HOST:
            arming.arm(point)
            if point == "host.code.written":
                gate.hosts[-1].kill()
            limit = time.monotonic() + 40
            while arming.left():
                assert time.monotonic() < limit, f"nobody passed {point}"
                await world.round()
            try:
                await world.check()
            except AssertionError as error:
                raise AssertionError(f"{point}: {error}") from error
        await world.told()
        lost = await gate.rows("SELECT 1 FROM event WHERE type = 'host.lost'")
        assert len(lost) >= len(OF_HOST)
        assert await gate.rows("SELECT * FROM divergence") == []


async def test_hosts_that_were_stopped_at_a_point_come_back_to_nothing(
    quick_url: str, tmp_path: Path, arming: Arming
) -> None:
    """SIGSTOP past the lease: another host takes over, and the old one neither commits nor sends."""
    async with running(quick_url, lease_s=1.5, turn_attempts_max=8, replay_one_in=1) as gate, supervised(gate):
        world = await World(gate, tmp_path).begin()
        for point in STOPPED:
            arming.arm(point, act="stop")
            if point == "host.code.written":
                gate.hosts[-1].kill()
            limit = time.monotonic() + 40
            while arming.left():
                assert time.monotonic() < limit, f"nobody passed {point}"
                await world.round()
            pid = await arming.fired()
            await true(lambda pid=pid: gone(pid) or _continued(pid))  # type: ignore[misc]
            try:
                await world.check()
            except AssertionError as error:
                raise AssertionError(f"{point}: {error}") from error


def _continued(pid: int) -> bool:
    os.kill(pid, signal.SIGCONT)
    return False


@pytest.mark.parametrize("points", AT_ONCE if SOAK else AT_ONCE[1:], ids=lambda it: "+".join(it))
async def test_gate_and_host_die_at_once(
    quick_url: str, tmp_path: Path, arming: Arming, points: tuple[str, str]
) -> None:
    """Two deaths, and a third in the start after it: the history is that of no death."""
    async with running(quick_url, lease_s=3.0, turn_attempts_max=8) as gate, supervised(gate):
        world = await World(gate, tmp_path).begin()
        arming.arm(*points, "gate.start.swept")
        limit = time.monotonic() + 40
        while arming.left():
            assert time.monotonic() < limit, arming.left()
            if arming.left() == ["gate.start.remembered", "gate.start.swept"]:
                gate.kill()
            await world.round()
        await world.check()
        await world.told()
