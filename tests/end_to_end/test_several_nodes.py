"""Several nodes of Ray: hosts on each, placed by what a node has, lost with it, nothing left after `down`."""

import os
from collections.abc import Iterator
from typing import Any

import pytest

from tests.end_to_end.test_apart import hosts_of, where
from tests.end_to_end.test_living import actors, ask, until
from tests.raylet import Raylet
from tests.stack import Stack

HOME = os.uname().nodename


@pytest.fixture
def stack() -> Iterator[Stack]:
    with Stack(ray_dashboard=True, hosts_warm=0, hosts_max=8, host_idle_s=2) as running:
        yield running


def _node(stack: Stack, name: str) -> dict[str, Any]:
    found = [it for it in stack.call("nodes.list")["items"] if it["node"] == name]
    return found[0] if found else {"alive": None}


def _of_another_code(name: str, **spec: Any) -> dict[str, Any]:
    manifest = where(name, suspend_after_ms=60_000, **spec)
    manifest["spec"]["code"]["files"] |= {"other.py": f"NAME = {name!r}\n"}
    return manifest


def test_other_nodes_take_hosts_are_lost_drained_and_left(stack: Stack) -> None:
    """Agents apart go where resource or label is; a node that dies costs a retry; of another nothing is left."""
    second = Raylet(stack.data, "second", resources={"far": 2}, labels={"zone": "b"})
    third: Raylet | None = None
    try:
        until(lambda: _node(stack, "second")["alive"], 60)
        stack.apply(
            _of_another_code("first"),
            _of_another_code("other"),
            _of_another_code("heavy", isolation="dedicated", resources={"custom": {"far": 1}}),
            _of_another_code("zoned", isolation="dedicated", resources={"labels": {"zone": "b"}}),
        )
        assert [ask(stack, it, None)["seen"] for it in ("first", "other")] == [1, 1]
        until(lambda: {it["node"] for it in stack.call("hosts.list")["items"]} == {HOME, "second"})
        for name in ("heavy", "zoned"):
            assert ask(stack, name, None)["seen"] == 1
            assert [it["node"] for it in hosts_of(stack, name)] == ["second"]
        _as_ray_says(stack)
        third = Raylet(stack.data, "third", resources={"far": 1}, labels={})
        second.kill()
        assert [ask(stack, it, None)["seen"] for it in ("first", "other")] == [2, 2]
        until(lambda: _node(stack, "second")["alive"] is False, 30)
        until(lambda: _node(stack, "third")["alive"], 60)
        assert ask(stack, "heavy", None)["seen"] == 2
        assert [it["node"] for it in hosts_of(stack, "heavy")] == ["third"]
        _drained_and_left(stack, third)
    finally:
        second.kill()
        if third is not None:
            third.kill()


def _drained_and_left(stack: Stack, node: Raylet) -> None:
    """Its hosts leave; after `down` the raylet is there, which is somebody else's, and nothing of ours on it."""
    done = stack.call("nodes.drain", node="third")
    while not done["done"]:
        done = stack.call("nodes.drain", node="third")
    assert hosts_of(stack, "heavy") == []
    assert _node(stack, "third")["draining"]
    stack.call("nodes.drain", node="third", undo=True)
    assert ask(stack, "heavy", None)["seen"] == 3
    stack.stop()
    theirs = {it.pid: it.name() for it in node.processes()}
    assert theirs
    assert not [it for it in theirs.values() if it.startswith(("ray::Host", "ray::Gateway"))], theirs
    assert [it for it in stack.leftovers() if int(it.split()[0]) not in theirs] == []


def _as_ray_says(stack: Stack) -> None:
    """Each host is the actor of its name, alive, on the node that is listed for it."""
    found = actors(stack)
    ids = {it["node"]: it["ray_node_ids"] for it in stack.call("nodes.list")["items"]}
    hosts = [it for it in stack.call("hosts.list")["items"] if it["state"] == "serving"]
    assert len(hosts) >= 4
    for host in hosts:
        own = f"agent/{host['agent']}" if host["agent"] else "host"
        actor = found[f"{own}/{host['host_id']}"]
        assert (actor["state"], actor["pid"]) == ("ALIVE", host["pid"])
        assert actor["node_id"] in ids[host["node"]]
