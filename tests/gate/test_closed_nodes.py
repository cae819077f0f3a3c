"""A node that is closed before it is emptied: its agents stay until each is moved, and nobody else comes."""

import asyncio

import pytest

from tests.gate.running import RunningGate, true
from tests.gate.test_moving import migrate
from tests.gate.test_nodes import drain
from tests.gate.test_relays import cluster
from tests.gate.zoo import SOURCE

pytestmark = pytest.mark.anyio
WHERE = "SELECT a.name, h.node FROM agent a JOIN host h ON h.host_id = a.owner ORDER BY a.name"
STAYS = 60_000


async def where(gate: RunningGate) -> dict[str, str]:
    return dict(await gate.rows(WHERE))


async def counts(gate: RunningGate, name: str, n: int) -> None:
    """It has had all that was sent, in order, each once."""
    assert await gate.ask(name, n, f"{name}-{n}") == n + 1


async def test_its_agents_stay_until_each_is_moved(quick_url: str) -> None:
    """They go on there; whoever wakes does so elsewhere, whom it was wished for too; then what is left leaves."""
    async with cluster(quick_url, hosts_max=4) as (gate, nodes):
        await nodes.node("second")
        far = nodes.host("second")
        code = await gate.code(SOURCE)
        for name in ("one", "two", "three"):
            await gate.agent(name, code, "Counter", suspend_after_ms=STAYS)
            await counts(gate, name, 0)
        await gate.agent("sleeper", code, "Counter", suspend_after_ms=0)
        await counts(gate, "sleeper", 0)
        await gate.until("SELECT 1 FROM agent WHERE name = 'sleeper' AND owner IS NULL", bool)
        assert set((await where(gate)).values()) == {"second"}
        gate.host()
        await gate.until("SELECT 1 FROM host WHERE node = 'local' AND ended_at IS NULL", bool)
        closed = await drain(gate, "second", empty=False, patient=False)
        assert (closed["draining"], closed["done"], closed["agents"]) == (True, False, 3)
        assert await drain(gate, "second", empty=False, patient=False) == closed, "saying it again changes nothing"
        await counts(gate, "one", 1)
        assert await where(gate) == dict.fromkeys(("one", "three", "two"), "second")
        await counts(gate, "sleeper", 1)
        await gate.agent("new", code, "Counter", suspend_after_ms=STAYS)
        await counts(gate, "new", 0)
        assert (await where(gate))["new"] == "local"
        moved = await migrate(gate, "one")
        assert moved["moved"], moved
        await counts(gate, "one", 2)
        assert await where(gate) == {"new": "local", "one": "local", "three": "second", "two": "second"}
        assert (await drain(gate, "second"))["done"]
        assert await asyncio.to_thread(far.wait, 10) == 0
        for name in ("two", "three"):
            await counts(gate, name, 1)
        assert set((await where(gate)).values()) == {"local"}
        told = await gate.rows("SELECT type FROM event WHERE type LIKE 'node.%'")
        assert told == [("node.draining",)]


async def test_it_stays_closed_over_a_restart_of_the_gate(quick_url: str) -> None:
    """Agents that it has to bring back anyway go elsewhere; its hosts are not told to end before it is emptied."""
    async with cluster(quick_url, hosts_max=4) as (gate, nodes):
        await nodes.node("second")
        far = nodes.host("second")
        spare = nodes.host("second")
        await gate.until("SELECT COUNT(*) FROM host WHERE ended_at IS NULL", lambda rows: rows[0][0] == 2)
        await gate.agent("one", await gate.code(SOURCE), "Counter", suspend_after_ms=STAYS)
        await counts(gate, "one", 0)
        await drain(gate, "second", empty=False, patient=False)
        await true(lambda: sum(it.poll() is not None for it in (far, spare)) == 1)
        gate.kill()
        gate.start()
        await nodes.connect()
        await nodes.move("second")
        gate.host()
        await counts(gate, "one", 1)
        assert (await gate.client.control("nodes", "", {}))["closed"] == ["second"]
        assert sum(it.poll() is not None for it in (far, spare)) == 1, "who served agents is there"
        await migrate(gate, "one")
        await counts(gate, "one", 2)
        assert (await where(gate))["one"] == "local"
        assert (await drain(gate, "second", undo=True))["draining"] is False
        assert sum(it.poll() is not None for it in (far, spare)) == 1


async def test_where_nobody_can_go_they_stay(quick_url: str) -> None:
    """The one open node: each agent says what it waits for, and goes on where it is; undoing it changes nothing."""
    async with cluster(quick_url, move_wait_s=0.3) as (gate, _):
        gate.host()
        await gate.agent("one", await gate.code(SOURCE), "Counter", suspend_after_ms=STAYS)
        await counts(gate, "one", 0)
        await drain(gate, "local", empty=False, patient=False)
        waits = await migrate(gate, "one")
        assert (waits["moved"], waits["waits_for"]) == (False, "another host of default for its code")
        await counts(gate, "one", 1)
        assert (await where(gate))["one"] == "local"
        await drain(gate, "local", undo=True)
        await counts(gate, "one", 2)
