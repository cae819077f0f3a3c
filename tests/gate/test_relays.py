"""Hosts of other nodes: they reach the gate through their relay, and are hosts like any other."""

import asyncio
import contextlib
import signal
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ray_runtime.connection import packed
from schemas.frames import PlaneHello, RelayHello, Through
from schemas.wire import Hello
from tests.faults.points import Arming
from tests.gate.counting import counting
from tests.gate.far import IGNORED, connected, grants, request
from tests.gate.relaying import Cluster, id_of
from tests.gate.running import KEY, RunningGate, running, true
from tests.gate.test_holdups import HELD_S, LIMITS
from tests.gate.test_nodes import drain, why_awake
from tests.gate.zoo import SOURCE

pytestmark = pytest.mark.anyio
OWNERS = "SELECT h.node FROM agent a JOIN host h ON h.host_id = a.owner WHERE a.uid = 'agent_counter'"


@contextlib.asynccontextmanager
async def cluster(url: str, **bounds: float) -> AsyncIterator[tuple[RunningGate, Cluster]]:
    async with running(url, hosts=0, **bounds) as gate:
        nodes = Cluster(gate)
        await nodes.connect()
        try:
            yield gate, nodes
        finally:
            nodes.end()


async def _counter(gate: RunningGate) -> None:
    await gate.agent("counter", await gate.code(SOURCE), "Counter", suspend_after_ms=60_000)


async def test_turns_go_through_a_relay_and_on_elsewhere_when_it_is_lost(quick_url: str) -> None:
    """The agent is first on the other node, then on the gate's own; nothing that was answered is lost or doubled."""
    async with cluster(quick_url) as (gate, nodes):
        relay = await nodes.node("second")
        far = nodes.host("second")
        await _counter(gate)
        assert await gate.ask("counter", 1, "c1") == 1
        assert await gate.rows(OWNERS) == [("second",)]
        gate.host()
        relay.kill()
        assert await gate.ask("counter", 2, "c2") == 2
        assert await gate.rows(OWNERS) == [("local",)]
        assert (await gate.ask("counter", "count", "c3"))["got"] == [1, 2]
        lost = await gate.rows("SELECT COUNT(*) FROM host WHERE node = 'second' AND ended_at IS NOT NULL")
        assert lost == [(1,)]
        far.kill()


async def test_a_node_that_hangs_is_left_and_does_nothing_when_it_comes_back(
    quick_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its relay and its host stand still in a turn, and nobody says that they died: their lease ends.

    Nobody is asked for there until the relay speaks again; the turn goes on here, and its effect is done once.
    """
    arming = Arming(tmp_path, monkeypatch)
    async with counting(honours=False) as outside, cluster(quick_url, lease_s=1.5, host_appear_s=5) as (gate, nodes):
        relay = await nodes.node("second")
        far = nodes.host("second")
        code = await gate.code(SOURCE)
        await connected(gate, "far", outside, IGNORED, limits={"timeout_s": 5})
        await gate.agent("noter", code, "Noter", suspend_after_ms=60_000, **grants("far"))
        await gate.until("SELECT 1 FROM turn WHERE finished_at > 0", bool)
        arming.arm("host.handler.waits", act="stop")
        asked = asyncio.create_task(gate.ask("noter", request("far"), "m1", 40))
        assert await arming.fired() == far.pid
        relay.send_signal(signal.SIGSTOP)
        await gate.until("SELECT 1 FROM host WHERE node = 'second' AND ended_at IS NOT NULL", bool)
        await true(lambda: len(nodes.wanted.host_ids) == 1 and not nodes.wanted.nodes)
        gate.host(nodes.wanted.host_ids[0])
        answer = await asked
        assert isinstance(answer, dict), answer
        assert (answer["json"], len(outside.asked)) == ({"done": 0}, 1)
        for process in (relay, far):
            process.send_signal(signal.SIGCONT)
        assert await asyncio.to_thread(far.wait, 20) == -signal.SIGKILL, "the relay was told to end it"
        assert (await gate.ask("noter", "count", "m2"))["got"] == [answer]
        assert len(outside.asked) == 1
        assert await gate.rows("SELECT outcome FROM turn WHERE message_id = 'm1'") == [("committed",)]
        await drain(gate, "local")
        await gate.agent("other", await gate.code(SOURCE + "# of another digest"), "Echo", suspend_after_ms=60_000)
        await true(lambda: list(nodes.wanted.nodes.values()) == [id_of("second")])
        nodes.nodes["second"] = False
        nodes.see()
        await true(lambda: not nodes.wanted.nodes)
        assert await asyncio.to_thread(relay.wait, 10) == 0, "who is of a node that was given up is told to end"
        assert "nodes.drain with undo" in await why_awake(gate, "agent_other")


async def test_a_gate_that_starts_again_is_found_by_relays_that_are_told_where(quick_url: str) -> None:
    """Host and relay stay the same processes; the agents go on there."""
    async with cluster(quick_url) as (gate, nodes):
        await nodes.node("second")
        far = nodes.host("second")
        await _counter(gate)
        assert await gate.ask("counter", 1, "c1") == 1
        gate.kill()
        gate.start()
        await nodes.connect()
        await nodes.move("second")
        assert await gate.ask("counter", 2, "c2") == 2
        assert far.poll() is None
        assert await gate.rows(OWNERS) == [("second",)]


async def test_each_node_has_its_share_and_a_drained_one_none(quick_url: str) -> None:
    """A spare host is wanted on every node; of a drained one they leave, and it is not asked again."""
    async with cluster(quick_url, hosts_warm=1, hosts_max=3) as (gate, nodes):
        await true(lambda: len(nodes.wanted.host_ids) == 1 and not nodes.wanted.nodes)
        await nodes.node("second")
        await true(lambda: len(nodes.wanted.host_ids) == 2)
        assert list(nodes.wanted.nodes.values()) == [id_of("second")]
        host_id = next(iter(nodes.wanted.nodes))
        far = nodes.host("second")
        await gate.until("SELECT 1 FROM host WHERE node = 'second' AND ended_at IS NULL", bool)
        done = await drain(gate, "second")
        assert (done["draining"], done["done"], done["hosts"]) == (True, True, 0)
        assert await asyncio.to_thread(far.wait, 10) == 0
        await true(lambda: nodes.wanted.avoid == [id_of("second")])
        told = await gate.client.control("nodes", "", {})
        assert (told["closed"], [it["node"] for it in told["ray"]]) == (["second"], ["local", "second"])
        await true(lambda: host_id not in nodes.wanted.host_ids)
        await drain(gate, "local")
        await _counter(gate)
        assert "nodes.drain with undo" in await why_awake(gate, "agent_counter")
        await drain(gate, "second", undo=True)
        await true(lambda: id_of("second") in nodes.wanted.nodes.values())
        nodes.host("second")
        assert await gate.ask("counter", 1, "c1") == 1


async def test_a_held_host_of_another_node_is_ended_by_its_relay(quick_url: str) -> None:
    """`while True` there: the relay kills the process, which nobody here could; a stranger's pid it leaves alone."""
    limits = LIMITS | {"turn_s_max": 2}
    async with cluster(quick_url, loop_held_s_max=HELD_S, turn_attempts_max=1) as (gate, nodes):
        await nodes.node("second")
        far = nodes.host("second")
        await gate.agent("wedged", await gate.code(SOURCE), "Wedged", limits=limits)
        problem = await gate.ask("wedged", None, "w1", 30)
        assert problem["reason"] == "TURN_TIMEOUT"
        assert await asyncio.to_thread(far.wait, 10) == -signal.SIGKILL


async def test_strangers_are_cut_off_and_others_go_on(quick_url: str) -> None:
    """Without the key, with it but as a plane, too long, half a frame, or silent: cut off, and nobody else notices."""
    async with cluster(quick_url) as (gate, nodes):
        await nodes.node("second")
        nodes.host("second")
        await _counter(gate)
        home = nodes.home
        assert home is not None
        trusts = ssl.create_default_context(cadata=home.certificate)
        through = Through(home.key, id_of("second"), 1, 1.0)
        said = [
            packed(RelayHello("x" * 64, id_of("second"), 1)),
            packed(Through("", id_of("second"), 1, 1.0)),
            packed(Hello("h1", 1, 1.0, "second")),
            packed(through) + packed(PlaneHello(1, KEY)),
            packed(through) + b"\xff" * 64,
            (5000).to_bytes(4, "little") + b"\0" * 5000,
            b"\xff" * 64,
        ]
        silent = [
            await asyncio.open_connection(home.host, home.port, ssl=trusts, server_hostname="steward-gate")
            for _ in range(20)
        ]
        for each in said:
            reader, writer = await asyncio.open_connection(
                home.host, home.port, ssl=trusts, server_hostname="steward-gate"
            )
            writer.write(each)
            with contextlib.suppress(ConnectionError):
                assert await asyncio.wait_for(reader.read(), 10) == b"", each
            writer.close()
        _, plain = await asyncio.open_connection(home.host, home.port)
        plain.write(packed(RelayHello(home.key, id_of("second"), 1)))
        assert await gate.ask("counter", 1, "c1") == 1
        for reader, _ in silent:
            with contextlib.suppress(ConnectionError):
                assert await asyncio.wait_for(reader.read(), 10) == b""
        assert await gate.ask("counter", 2, "c2") == 2
        assert await gate.rows(OWNERS) == [("second",)]
        plain.close()
