"""Somebody moves the machine's clock, forwards by a day and back by an hour: nothing stops, doubles or is lost."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest

from controlplane.operations.reconciliation import Reconciler
from controlplane.operations.verification import Verifier
from controlplane.store.clocks import SETTLED_S, SLOWER, ForwardClock, Jumps
from controlplane.store.store import Store
from schemas.problem import Refusal
from tests.gate.running import running
from tests.operations.plane import Plane, agent, channel

pytestmark = pytest.mark.anyio
HOUR, DAY = 3_600.0, 86_400.0
PULSE = """
from ray_runtime import Agent


class Pulse(Agent):
    async def on_start(self, turn):
        turn.timer("tick", every_s=0.1)

    async def on_timer(self, turn, timer):
        pass

    async def on_message(self, turn, envelope):
        pass
"""


class Machine:
    """A machine's two clocks: `wall` can be set, `steady` only goes on."""

    def __init__(self) -> None:
        self.wall_s, self.steady_s = 1_800_000_000.0, 50.0

    def wall(self) -> float:
        return self.wall_s

    def steady(self) -> float:
        return self.steady_s

    def passes(self, seconds: float) -> None:
        self.wall_s += seconds
        self.steady_s += seconds


def test_the_clock_of_records_never_goes_back_and_never_stands_still() -> None:
    """It follows forwards at once; ahead of the machine it goes on, a little slower, until both are one again."""
    machine = Machine()
    clock = ForwardClock(machine.wall, machine.steady)
    first = clock()
    assert first == machine.wall_s
    assert clock() > first
    machine.wall_s += DAY
    assert clock() == machine.wall_s
    machine.wall_s -= DAY
    ahead = clock()
    machine.passes(100)
    assert 100 * SLOWER - 0.1 < clock() - ahead < 100
    machine.passes(DAY / (1 - SLOWER))
    assert abs(clock() - machine.wall_s) < 0.1
    restarted = ForwardClock(machine.wall, machine.steady)
    restarted.not_before(machine.wall_s + HOUR)
    assert restarted() > machine.wall_s + HOUR


def test_a_moved_clock_is_noticed_and_distrusted_for_an_hour() -> None:
    """Both ways, once each; time that passes is no jump."""
    machine = Machine()
    jumps = Jumps(machine.wall, machine.steady)
    machine.passes(DAY)
    assert jumps.settled()
    assert jumps.untold() == 0
    machine.wall_s += DAY
    assert not jumps.settled()
    assert jumps.untold() == DAY
    assert jumps.untold() == 0
    machine.wall_s -= HOUR
    assert jumps.untold() == -HOUR
    machine.passes(SETTLED_S - 1)
    assert not jumps.settled()
    machine.passes(2)
    assert jumps.settled()


@contextmanager
def clocked(plane: Plane, machine: Machine) -> Iterator[None]:
    """The plane on the machine's clocks."""
    jumps = Jumps(machine.wall, machine.steady)

    def wall() -> float:
        plane.now = machine.wall_s
        return plane.now

    plane.clock = wall  # type: ignore[method-assign]
    object.__setattr__(plane.dispatcher, "clock", wall)
    plane.reconciler = Reconciler(plane.store, plane.gate, wall, machine.steady, jumps.settled)  # type: ignore[arg-type]
    plane.verifier = Verifier(
        plane.store, plane.dispatcher.call, plane.reverting.propose, plane.commitment.commit, wall, machine.steady
    )
    yield


async def turned(plane: Plane, machine: Machine, seconds: float) -> None:
    """Both loops look, second after second."""
    for _ in range(int(seconds)):
        machine.passes(1)
        await plane.reconciler.tick()
        await plane.verifier.tick()


@pytest.mark.parametrize("moved_s", [DAY, -HOUR])
async def test_a_claim_is_judged_by_time_that_passed(quick_store: Store, moved_s: float) -> None:
    """A clock that jumps makes nothing missed that still has its time, nor lets a miss wait for an hour."""
    plane, machine = Plane(quick_store), Machine()
    with clocked(plane, machine):
        plan = await plane.propose(agent("slow"))
        within = max(claim["verify_within_s"] for claim in plan["claims"])
        change_id = (await plane.commit(plan))["change_id"]
        await turned(plane, machine, 3)
        machine.wall_s += moved_s
        await turned(plane, machine, within / 2)
        assert (await plane.call("changes.get", change_id=change_id))["outcome"] == "open"
        await turned(plane, machine, within)
        assert (await plane.call("changes.get", change_id=change_id))["outcome"] == "missed"


async def test_plans_tokens_and_request_ids_come_back_with_the_clock(quick_store: Store) -> None:
    """Past their time they are refused, and good again when the clock was set right: a jump throws nothing away."""
    plane, machine = Plane(quick_store), Machine()
    with clocked(plane, machine):
        files = {"files": {"a.py": "x = 1\n"}, "request_id": "r1"}
        stored = await plane.call("code.put", **files)
        plan = await plane.propose(channel("c"))
        await turned(plane, machine, 2)
        machine.wall_s += 30 * DAY
        with pytest.raises(Refusal) as expired:
            await plane.commit(plan)
        assert expired.value.problem.reason == "PLAN_EXPIRED"
        await turned(plane, machine, 90)
        machine.wall_s -= 30 * DAY
        assert (await plane.commit(plan))["outcome"] == "committed"
        assert await plane.call("code.put", **files) == stored
        with pytest.raises(Refusal) as reused:
            await plane.call("code.put", files={"a.py": "x = 2\n"}, request_id="r1")
        assert reused.value.problem.reason == "REQUEST_ID_REUSED"


async def test_timers_and_hosts_under_a_moved_clock(quick_url: str, tmp_path: Path) -> None:
    """No host is given up, timers go on firing once each, and every turn is told, also after a restart of the gate."""
    moved_by = tmp_path / "moved"
    moved_by.write_text("0")

    def move(seconds: float) -> None:
        partial = tmp_path / "partial"
        partial.write_text(str(seconds))
        partial.replace(moved_by)

    async with running(quick_url, lease_s=2.0, clock_moved_by=str(moved_by)) as gate:
        code = await gate.code(PULSE)
        await gate.agent("ticker", code, "Pulse", suspend_after_ms=60_000)

        async def ticks(more: int) -> None:
            (before,) = (await gate.rows(TICKS))[0]
            await gate.until(TICKS, lambda rows: rows[0][0] >= before + more)

        await ticks(3)
        for seconds in (DAY, DAY - HOUR, 0.0):
            move(seconds)
            await ticks(3)
            # The test's own clock is the machine's at its end, so only then is an ask's deadline its.
            if seconds == 0.0:
                assert await gate.ask("ticker", "now", "asked") is None
        assert gate.hosts[0].poll() is None
        assert await gate.rows("SELECT 1 FROM event WHERE type = 'host.lost'") == []
        gate.kill()
        gate.start()
        await ticks(3)
        doubled = await gate.rows("SELECT agent, message_id FROM turn GROUP BY agent, message_id HAVING COUNT(*) > 1")
        assert doubled == []
        await gate.client.control("stop", "agent_ticker", {"principal": "test"})
        ended = len(await gate.rows(ENDED))
        told = await gate.until(TOLD, lambda rows: turns_of(rows) >= ended)
        assert turns_of(told) == ended


TICKS = "SELECT COUNT(*) FROM turn WHERE trigger = 'timer' AND outcome = 'committed'"
ENDED = "SELECT 1 FROM turn WHERE finished_at IS NOT NULL"
TOLD = "SELECT data FROM event WHERE type = 'turns.summary'"


def turns_of(rows: list[tuple[Any, ...]]) -> int:
    return sum(int(orjson.loads(row[0])["turns"]) for row in rows)
