"""Nodes that call themselves the same: each has one name for as long as it lives, and what is closed stays so."""

import asyncio
from typing import Any

import pytest

from controlplane.effects.naming import named
from tests.gate.relaying import id_of
from tests.gate.running import RunningGate, true
from tests.gate.test_nodes import drain
from tests.gate.test_relays import cluster

THIRD = id_of("third")[:8]


def row(node_id: str, node: str = "w", *, alive: bool = True, here: bool = False) -> dict[str, Any]:
    return {"ray_node_id": node_id, "node": node, "alive": alive, "here": here}


def test_the_first_keeps_its_name_and_each_later_one_its_own() -> None:
    """Whoever comes or goes; and who comes back under a name that nobody living has is who had it."""
    own = row("0" * 12, "plane", here=True)
    names = named([own, row("b" * 12)], "plane", {}, ())
    assert names == {"0" * 12: "plane", "b" * 12: "w"}
    names = named([own, row("a" * 12), row("b" * 12)], "plane", names, ())
    assert names == {"0" * 12: "plane", "a" * 12: "w-aaaaaaaa", "b" * 12: "w"}
    names = named([own, row("a" * 12), row("b" * 12, alive=False)], "plane", names, ())
    assert (names["a" * 12], names["b" * 12]) == ("w-aaaaaaaa", "w")
    names = named([own, row("a" * 12), row("b" * 12, alive=False), row("c" * 12)], "plane", names, ())
    assert (names["a" * 12], names["c" * 12]) == ("w-aaaaaaaa", "w")


def test_our_own_name_is_nobody_elses() -> None:
    """And of two that are new together one has it; one that is closed by its whole name keeps that."""
    rows = [row("0" * 12, "w", here=True), row("a" * 12)]
    assert named(rows, "w", {}, ())["a" * 12] == "w-aaaaaaaa"
    both = [row("a" * 12), row("b" * 12)]
    assert named(both, "plane", {}, ()) == {"a" * 12: "w", "b" * 12: "w-bbbbbbbb"}
    assert named(both, "plane", {}, {"w-aaaaaaaa"}) == {"a" * 12: "w-aaaaaaaa", "b" * 12: "w"}


async def listed(gate: RunningGate) -> dict[str, str]:
    told = await gate.client.control("nodes", "", {})
    return {it["ray_node_id"]: it["node"] for it in told["ray"] if it["alive"] and not it["here"]}


@pytest.mark.anyio
async def test_a_drained_node_stays_so_beside_another_of_its_name(quick_url: str) -> None:
    """Over a restart of the gate, too, before and after it hears of the nodes; no host is asked for there."""
    async with cluster(quick_url, hosts_warm=1, hosts_max=2) as (gate, nodes):
        nodes.called |= {"second": "w", "third": "w"}
        await nodes.node("second")
        await true(lambda: id_of("second") in nodes.wanted.nodes.values())
        await drain(gate, "w")
        await true(lambda: nodes.wanted.avoid == [id_of("second")])
        await nodes.node("third")
        await true(lambda: id_of("third") in nodes.wanted.nodes.values())
        names = {id_of("second"): "w", id_of("third"): f"w-{THIRD}"}
        assert await listed(gate) == names
        assert nodes.wanted.avoid == [id_of("second")]
        await gate.until("SELECT 1 FROM meta WHERE key LIKE 'node.name.%'", lambda rows: len(rows) == 2)
        gate.kill()
        nodes.nodes = {"third": True, "second": True}
        gate.start()
        await nodes.connect()
        for name in ("second", "third"):
            await nodes.move(name)
        await true(lambda: id_of("third") in nodes.wanted.nodes.values())
        await true(lambda: nodes.wanted.avoid == [id_of("second")])
        assert id_of("second") not in nodes.wanted.nodes.values()
        assert await listed(gate) == names


@pytest.mark.anyio
async def test_a_host_is_where_its_node_is_called_so_still(quick_url: str) -> None:
    """The other of its name is lost: the node is drained by the name that it has had since it came, and its host ends.

    What is recorded of the lost one goes; a node of which nobody had heard when its host came is drained like any.
    """
    async with cluster(quick_url) as (gate, nodes):
        nodes.called |= {"second": "w", "third": "w"}
        await nodes.node("second")
        await nodes.node("third")
        far = nodes.host("third")
        await gate.until(f"SELECT 1 FROM host WHERE node = 'w-{THIRD}'", bool)
        nodes.nodes["second"] = False
        nodes.see()
        await gate.until("SELECT value FROM meta WHERE key LIKE 'node.name.%'", lambda rows: len(rows) == 1)
        assert await listed(gate) == {id_of("third"): f"w-{THIRD}"}
        done = await drain(gate, f"w-{THIRD}")
        assert (done["draining"], done["done"]) == (True, True)
        assert await asyncio.to_thread(far.wait, 10) == 0
        await drain(gate, f"w-{THIRD}", undo=True)
        del nodes.nodes["third"]
        nodes.see()
        await gate.until("SELECT value FROM meta WHERE key LIKE 'node.name.%'", lambda rows: not rows)
        late = nodes.host("third")
        await gate.until(f"SELECT 1 FROM host WHERE node = '{id_of('third')[:12]}' AND ended_at IS NULL", bool)
        nodes.nodes["third"] = True
        nodes.see()
        await gate.until("SELECT 1 FROM host WHERE node = 'w' AND ended_at IS NULL", bool)
        assert (await drain(gate, "w"))["done"]
        assert await asyncio.to_thread(late.wait, 10) == 0
