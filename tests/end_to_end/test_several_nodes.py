"""Several nodes of Ray: hosts on each, placed by what a node has, lost with it, nothing left after `down`."""

import asyncio
import contextlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.end_to_end.agents import agent
from tests.end_to_end.test_apart import hosts_of, where
from tests.end_to_end.test_living import agree, ask, condition, until
from tests.gate.counting import Counting, counting
from tests.raylet import Raylet
from tests.stack import Stack, runtime_folder

HOME = os.uname().nodename
OF_GPUS = """
import os
import pathlib
import time

from ray_runtime import Agent, Turn


def work(folder):
    here = pathlib.Path(folder)
    (here / "began").write_text("yes")
    while not (here / "go").exists():
        time.sleep(0.05)
    return os.environ.get("CUDA_VISIBLE_DEVICES")


class Trainer(Agent):
    async def on_message(self, turn: Turn, envelope):
        if envelope.data is None:
            return os.environ.get("CUDA_VISIBLE_DEVICES")
        return await turn.compute("trainer:work", envelope.data, resources={"num_gpus": 1})
"""


@pytest.fixture
def stack() -> Iterator[Stack]:
    with Stack(ray_dashboard=True, hosts_warm=0, hosts_max=8, host_idle_s=2) as running:
        yield running


@pytest.fixture
def far() -> Iterator[Counting]:
    """A far side that counts what it did, on a loop of its own."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    opened = counting(honours=False)
    yield asyncio.run_coroutine_threadsafe(opened.__aenter__(), loop).result(10)
    asyncio.run_coroutine_threadsafe(opened.__aexit__(None, None, None), loop).result(10)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(10)
    loop.close()


@pytest.fixture
def nodes(stack: Stack) -> Iterator[list[Raylet]]:
    """Those of the test, which are ended with it."""
    made: list[Raylet] = []
    yield made
    for it in made:
        it.kill()


def _node(stack: Stack, name: str) -> dict[str, Any]:
    found = [it for it in stack.call("nodes.list")["items"] if it["node"] == name]
    return found[0] if found else {"alive": None}


def _of_another_code(name: str, **spec: Any) -> dict[str, Any]:
    manifest = where(name, suspend_after_ms=60_000, **spec)
    manifest["spec"]["code"]["files"] |= {"other.py": f"NAME = {name!r}\n"}
    return manifest


def test_other_nodes_take_hosts_hang_are_lost_drained_and_left(
    stack: Stack, far: Counting, nodes: list[Raylet], tmp_path: Path
) -> None:
    """Agents apart go where resource or label is; one that hangs or dies costs a retry; of another nothing is left."""

    def node(name: str, n: float, gpus: int = 0, **labels: str) -> Raylet:
        nodes.append(Raylet(stack.data, name, resources={"far": n}, labels=labels, gpus=gpus))
        return nodes[-1]

    second = node("second", 2, zone="b")
    until(lambda: _node(stack, "second")["alive"], 60)
    connection = {"protocol": "http", "endpoint": far.endpoint, "options": {"allow_private": True}}
    here = {"isolation": "dedicated", "resources": {"custom": {"far": 1}}, "suspend_after_ms": 60_000}
    stack.apply(
        {"kind": "Connection", "metadata": {"name": "far"}, "spec": connection},
        agent("late", "Late", mandate={"grants": [{"effect": "http.request", "connection": "far"}]}, **here),
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
    assert ask(stack, "late", {}) == 1
    agree(stack)
    third = node("third", 2)
    _hung(stack, second, far, tmp_path / "mark")
    agree(stack)
    fourth = node("fourth", 1, gpus=1)
    until(lambda: _node(stack, "fourth")["alive"], 60)
    agree(stack)
    _gpus(stack, fourth, tmp_path)
    third.kill()
    assert [ask(stack, it, None)["seen"] for it in ("first", "other")] == [3, 3]
    until(lambda: _node(stack, "third")["alive"] is False, 30)
    assert ask(stack, "heavy", None)["seen"] == 3
    assert [it["node"] for it in hosts_of(stack, "heavy")] == ["fourth"]
    _left_in_batches(stack)
    _drained_and_left(stack, fourth)


def _hung(stack: Stack, node: Raylet, far: Counting, mark: Path) -> None:
    """All of it stands still in a turn; its agents go on elsewhere. When it goes on, it neither commits nor sends."""
    answers: list[Any] = []
    asked = threading.Thread(target=lambda: answers.append(ask(stack, "late", {"mark": str(mark), "s": 0.5})))
    asked.start()
    until(lambda: mark.exists() and mark.read_text().endswith("\n"))
    stopped = node.processes()
    for process in stopped:
        process.suspend()
    assert int(mark.read_text()) in [it.pid for it in stopped]
    assert [ask(stack, it, None)["seen"] for it in ("first", "other")] == [2, 2]
    until(lambda: _node(stack, "second")["alive"] is False, 30)
    asked.join(60)
    assert answers == [2]
    assert ask(stack, "heavy", None)["seen"] == 2
    assert [it["node"] for it in (*hosts_of(stack, "heavy"), *hosts_of(stack, "late"))] == ["third", "third"]
    hosts = [it for it in stopped if it.name().startswith(("ray::Host", "ray::Gateway"))]
    assert hosts
    for process in stopped:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.resume()
    _, left = psutil.wait_procs(hosts, timeout=60)
    assert left == [], "hosts of a node that Ray has given up end"
    assert ask(stack, "late", {}) == 3
    assert len(far.asked) == 3
    assert len(mark.read_text().split()) == 2


def _gpus(stack: Stack, node: Raylet, folder: Path) -> None:
    """The one GPU is an agent's while that is awake, and a function's while that runs, and else nobody's."""

    def free() -> bool:
        return node.free().get("GPU") == 1.0

    def trainer(name: str, **spec: Any) -> dict[str, Any]:
        code = {"files": {"trainer.py": OF_GPUS}}
        return agent(name, "Trainer", code=code, entrypoint="trainer:Trainer", grants=["compute.run"], **spec)

    own = {"isolation": "dedicated", "resources": {"num_gpus": 1}, "suspend_after_ms": 60_000}
    assert _node(stack, "fourth")["resources"]["GPU"] == 1.0
    assert free()
    stack.apply(trainer("painter", **own), trainer("trainer", suspend_after_ms=20))
    assert ask(stack, "painter", None) == "0"
    assert [it["node"] for it in hosts_of(stack, "painter")] == ["fourth"]
    until(lambda: not free())
    stack.call("agents.suspend", name="painter")
    until(free)
    answers: list[Any] = []
    asking = threading.Thread(target=lambda: answers.append(ask(stack, "trainer", str(folder))))
    asking.start()
    until(lambda: (folder / "began").exists(), 60)
    until(lambda: not free())
    until(lambda: condition(stack, "trainer", "Active")["status"] == "false")
    assert not free(), "the function has it, not the agent, which is suspended"
    (place,) = Path(runtime_folder(stack.data)).glob("n-*/tasks/*")
    assert (place / "trainer.py").exists()
    (folder / "go").touch()
    asking.join(60)
    assert answers == ["0"]
    until(lambda: not place.exists())
    until(free)
    assert ask(stack, "trainer", None) in (None, "")
    assert free(), "a turn that computes nothing takes none"
    for name in ("painter", "trainer"):
        assert stack.call("usage.report", agent=name)["meters"]["gpu_s"] > 0


def _left_in_batches(stack: Stack) -> None:
    """Those that can be anywhere leave the node of one of them for the other, one at a time, while that is asked."""
    stack.call("agents.suspend", name="heavy")  # it fits one node only
    on = stack.call("agents.get", name="first")["status"]["host"]
    node = next(it["node"] for it in stack.call("hosts.list")["items"] if it["host_id"] == on)
    would = stack.call("nodes.drain", node=node, batch=1, dry_run=True)
    assert "default/first" in [f"{it['target']['namespace']}/{it['target']['name']}" for it in would["steps"]]
    seen: list[int] = []
    asking = threading.Thread(target=lambda: seen.extend(ask(stack, "first", None)["seen"] for _ in range(40)))
    asking.start()
    begun = stack.call("nodes.drain", node=node, batch=1)
    change = stack.call("changes.wait", change_id=begun["change_id"], timeout_s=60)
    asking.join(60)
    assert (change["outcome"], len(change["claims"])) == ("verified", len(would["claims"])), change
    assert seen == list(range(4, 44)), "each was answered once, in order"
    assert [ask(stack, it, None)["seen"] for it in ("first", "other")] == [44, 4]
    assert node not in {it["node"] for it in stack.call("hosts.list")["items"]}
    assert not stack.call("nodes.drain", node=node, undo=True)["draining"]
    assert ask(stack, "heavy", None)["seen"] == 4


def _drained_and_left(stack: Stack, node: Raylet) -> None:
    """Its hosts leave; after `down` the raylet is there, which is somebody else's, and nothing of ours on it."""
    done = stack.call("nodes.drain", node="fourth")
    while not done["done"]:
        done = stack.call("nodes.drain", node="fourth")
    assert hosts_of(stack, "heavy") == []
    assert _node(stack, "fourth")["draining"]
    stack.call("nodes.drain", node="fourth", undo=True)
    assert ask(stack, "heavy", None)["seen"] == 5
    stack.stop()
    assert not list(Path(runtime_folder(stack.data)).glob("n-*"))
    theirs = {it.pid: it.name() for it in node.processes()}
    assert theirs
    assert not [it for it in theirs.values() if it.startswith(("ray::Host", "ray::Gateway"))], theirs
    assert [it for it in stack.leftovers() if int(it.split()[0]) not in theirs] == []
