"""Two owners that overlap: whoever was stopped and comes back neither commits nor sends. And a gate that was late."""

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.faults.points import Arming
from tests.gate.counting import Counting, counting
from tests.gate.far import IGNORED, connected, grants, request
from tests.gate.running import RunningGate, running
from tests.gate.zoo import SOURCE

pytestmark = pytest.mark.anyio
LONG_S = 60  # of a lease: the gate holds the stopped host for alive
# Where the first owner stands still: it has asked nothing yet; it has asked and waits; it is done and has not said so.
POINTS = ("host.handler.waits", "host.frames.sent", "host.handler.ended")


async def _cast(gate: RunningGate, far: Counting) -> None:
    """An agent with external effects, one with internal ones only, and whom that one sends to."""
    code = await gate.code(SOURCE)
    await connected(gate, "far", far, IGNORED, limits={"timeout_s": 5})
    await gate.agent("noter", code, "Noter", suspend_after_ms=60_000, **grants("far"))
    await gate.agent("counter", code, "Counter", suspend_after_ms=60_000)
    await gate.agent("ledger", code, "Ledger", suspend_after_ms=0)
    await gate.until("SELECT 1 FROM turn WHERE finished_at > 0", lambda rows: len(rows) == 3)


async def _taken_over(gate: RunningGate, name: str, stopped: int) -> None:
    """The agent goes to a host that lives, while the stopped one holds its lease."""
    own = await gate.rows("SELECT host_id FROM host WHERE pid <> :pid AND ended_at IS NULL", pid=stopped)
    asked: dict[str, Any] = {"principal": "test", "warm": True, "to_host": own[0][0]}
    await gate.client.control("stop", f"agent_{name}", {})
    await gate.client.control("migrate", f"agent_{name}", asked)
    await gate.client.control("wake", f"agent_{name}", {})


async def test_a_host_that_was_stopped_in_a_turn_neither_commits_nor_sends(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With its lease still running and its process alive: only the epoch keeps it out, and that is enough."""
    arming = Arming(tmp_path, monkeypatch)
    bounds = {"lease_s": LONG_S, "stopped_s_max": LONG_S}
    async with counting(honours=False) as far, running(database_url, hosts=2, **bounds) as gate:
        await gate.until("SELECT 1 FROM host", lambda rows: len(rows) == 2)
        await _cast(gate, far)
        counted = 0
        for n, point in enumerate(POINTS):
            far.late_s = 0.5 if point == "host.frames.sent" else 0.0
            far.acts.clear()
            far.asked.clear()
            name = "counter" if point == "host.handler.ended" else "noter"
            arming.arm(point, act="stop")
            asked = asyncio.create_task(gate.ask(name, n if name == "counter" else request("far"), f"m{n}", 40))
            stopped = await arming.fired()
            await _taken_over(gate, name, stopped)
            answer = await asked
            os.kill(stopped, signal.SIGCONT)
            assert await gate.ask(name, "count", f"c{n}") == await gate.ask(name, "count", f"d{n}")
            if name == "counter":
                counted += 1
                assert (answer, (await gate.ask(name, "count", "e"))["got"]) == (1, [n])
                await gate.until("SELECT version FROM agent WHERE name = 'ledger'", lambda rows: rows[0][0] == 2)
            else:
                assert isinstance(answer, dict), (point, answer)
                assert answer["json"] == {"done": 0}
                assert len(far.acts) == len(far.asked) == 1, point
            assert await gate.rows("SELECT outcome FROM turn WHERE message_id = :it", it=f"m{n}") == [("committed",)]
            os.kill(stopped, 0)
        assert counted == 1
        assert await gate.rows("SELECT agent FROM turn GROUP BY agent, message_id HAVING COUNT(*) > 1") == []
        assert await gate.rows("SELECT 1 FROM event WHERE type IN ('host.lost', 'effect.in_doubt')") == []


async def test_two_owners_that_overlap_at_a_shutdown(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The gate ends in good order while an owner stands still; under the next gate it comes back to nothing."""
    arming = Arming(tmp_path, monkeypatch)
    async with (
        counting(honours=False) as far,
        running(database_url, hosts=2, lease_s=LONG_S, stopped_s_max=LONG_S) as gate,
    ):
        await gate.until("SELECT 1 FROM host", lambda rows: len(rows) == 2)
        await _cast(gate, far)
        arming.arm("host.handler.ended", act="stop")
        asked = asyncio.create_task(gate.ask("counter", 1, "m1", 40))
        stopped = await arming.fired()
        assert gate.gate is not None
        gate.gate.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(gate.gate.wait, 15) == 0
        gate.start()
        assert await asked == 1, "another host has taken it over"
        os.kill(stopped, signal.SIGCONT)
        await gate.until("SELECT 1 FROM event WHERE type = 'host.started'", lambda rows: len(rows) == 4)
        assert (await gate.ask("counter", "count", "c1"))["got"] == [1]
        assert await gate.rows("SELECT attempts FROM turn WHERE message_id = 'm1'") == [(1,)]
        epochs = await gate.rows("SELECT epoch FROM turn t WHERE epoch > (SELECT epoch FROM agent WHERE uid = t.agent)")
        assert epochs == []


async def test_a_gate_that_was_late_declares_nobody_dead(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped for longer than a lease, right before it sends: the hosts live, and the effect is done once."""
    arming = Arming(tmp_path, monkeypatch)
    async with counting(honours=False) as far, running(database_url, hosts=2, lease_s=1.5) as gate:
        await _cast(gate, far)
        arming.arm("gate.intent.committed", act="stop")
        asked = asyncio.create_task(gate.ask("noter", request("far"), "m0", 20))
        stopped = await arming.fired()
        await asyncio.sleep(2.0)
        os.kill(stopped, signal.SIGCONT)
        assert (await asked)["json"] == {"done": 0}
        assert len(far.acts) == 1
        assert await gate.rows("SELECT 1 FROM event WHERE type IN ('host.lost', 'effect.in_doubt')") == []
        assert await gate.rows("SELECT attempts FROM turn WHERE attempts > 1") == []
        assert all(host.poll() is None for host in gate.hosts)
