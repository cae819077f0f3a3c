"""A real Ray head, a real placer, real hosts; the gate is our own protocol peer on a real socket."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import msgspec
import orjson
import psutil
import pytest

from controlplane.supervision.processes import Known
from ray_runtime.cluster import RayHead, session_of
from schemas.base import canonical
from schemas.frames import (
    HostGone,
    HostsWanted,
    NodesSeen,
    PlacerHello,
    TaskBegin,
    TaskEnded,
    TaskStarted,
    TasksWanted,
)
from schemas.wire import Bye, Commit, Hello, Lease, Specialise
from tests.end_to_end.agents import agent
from tests.end_to_end.test_living import ask
from tests.runtime.socket_gate import Peer, SocketGate
from tests.stack import STEWARD, Stack

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(240)]
FILES = {
    "echo.py": "import os\nfrom ray_runtime import Agent\n\n\nclass Echo(Agent):\n"
    "    async def on_message(self, turn, envelope):\n        return [envelope.data, os.getpid()]\n",
    "jobs.py": "import asyncio, os, pathlib, time\n\n\nasync def add(a, b=1):\n    await asyncio.sleep(0)\n"
    "    return [a + b, os.getpid()]\n"
    "\n\ndef breaks():\n    raise KeyError('no')\n\n\ndef large():\n    return 'x' * 600_000\n"
    "\n\ndef lasts(path):\n    pathlib.Path(path).write_text(str(os.getpid()))\n    time.sleep(600)\n",
}
NAMESPACE = "steward-test"


@dataclass
class Cluster:
    """What the tests of this file share: one head, and folders that are short."""

    head: RayHead
    data: Path
    runtime: Path
    started_s: float

    def everybody(self) -> list[dict[str, Any]]:
        """What the dashboard says of all actors."""
        headers = {"Authorization": f"Bearer {self.head.token_path.read_text()}"}
        url = self.head.dashboard + "/api/v0/actors?detail=1&limit=1000"
        answer = httpx.get(url, headers=headers, timeout=10).json()
        rows: list[dict[str, Any]] = answer["data"]["result"]["result"]
        return rows

    def actors(self) -> list[dict[str, Any]]:
        """Those of the placers of this file."""
        return [row for row in self.everybody() if row["ray_namespace"] == NAMESPACE]

    def actor(self, host_id: str) -> dict[str, Any]:
        """One host as the dashboard shows it."""
        return next((row for row in self.actors() if row["name"] == f"host/{host_id}"), {"state": "absent"})


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A head for all tests of this file; nothing of it is left afterwards."""
    with tempfile.TemporaryDirectory(prefix="st-") as made:
        data, runtime = Path(made) / "data", Path(made) / "run"
        data.mkdir()
        runtime.mkdir()
        head = RayHead(folder=data, runtime=runtime, num_cpus=2)
        began = time.monotonic()
        head.start()
        try:
            yield Cluster(head, data, runtime, time.monotonic() - began)
        finally:
            process = head.process
            head.stop()
            assert process is not None
            assert not session_of(process)
            assert not (runtime / "ray").exists()


@pytest.fixture
async def gate(cluster: Cluster) -> AsyncIterator[SocketGate]:
    """A fresh gate peer at the socket."""
    served = SocketGate(cluster.runtime / "gate.sock", FILES)
    await served.start()
    yield served
    await served.stop()


@pytest.fixture
async def placer(cluster: Cluster, gate: SocketGate) -> AsyncIterator[subprocess.Popen[bytes]]:
    """A placer process, ended by SIGTERM."""
    process = start_placer(cluster)
    yield process
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        await asyncio.to_thread(process.wait, 20)


def start_placer(cluster: Cluster) -> subprocess.Popen[bytes]:
    """Run `run_placer` as wiring does."""
    call = (
        "from pathlib import Path; from ray_runtime.placement import run_placer; "
        f"run_placer(gate_socket=Path({str(cluster.runtime / 'gate.sock')!r}), ray_address={cluster.head.address!r}, "
        f"ray_namespace={NAMESPACE!r}, token_path=Path({str(cluster.head.token_path)!r}), node='local')"
    )
    return subprocess.Popen([sys.executable, "-c", call])


async def until(what: Callable[[], Any], *, timeout_s: float = 15) -> Any:
    """Poll with a deadline."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        with contextlib.suppress(httpx.HTTPError, KeyError, TypeError):
            if found := what():
                return found
        await asyncio.sleep(0.05)
    raise AssertionError("not in time")


async def a_host(gate: SocketGate, placer_peer: Peer, host_id: str) -> tuple[Peer, Hello]:
    """Ask for one host and have it say hello."""
    placer_peer.send(HostsWanted([host_id]))
    return await gate.next_from(Hello, where=lambda hello: hello.host_id == host_id, timeout_s=30)


async def test_a_host_is_a_named_actor_that_says_what_it_serves(
    cluster: Cluster, gate: SocketGate, placer: subprocess.Popen[bytes]
) -> None:
    """Pending while it is warm, alive with namespace and digest once specialised; and it runs turns."""
    peer, hello = await gate.next_from(PlacerHello, timeout_s=30)
    assert hello.dashboard == cluster.head.dashboard
    began = time.monotonic()
    host, said = await a_host(gate, peer, "a1")
    print(f"head up in {cluster.started_s:.1f} s, host wanted to hello in {time.monotonic() - began:.2f} s")
    assert cluster.actor("a1")["state"] == "PENDING_CREATION"
    host.send(Specialise("default", gate.digest))
    host.send(gate.run_frame("x"))
    done = await gate.next(Commit)
    assert done.reply == b'["x",%d]' % said.pid
    await gate.next(Lease)
    shown = await until(lambda: (row := cluster.actor("a1"))["state"] == "ALIVE" and row)
    assert shown["repr_name"] == f"host/a1 default {gate.digest}"
    assert shown["pid"] == said.pid
    assert (cluster.runtime / "code" / "a1" / "echo.py").exists()
    peer.send(HostsWanted([]))
    gone = await gate.next(HostGone)
    assert gone.host_id == "a1"
    await until(lambda: not psutil.pid_exists(said.pid))
    assert not (cluster.runtime / "code" / "a1").exists()


@pytest.mark.parametrize("warm", [True, False])
async def test_a_killed_host_is_noticed_at_once_and_never_restarted(
    cluster: Cluster, gate: SocketGate, placer: subprocess.Popen[bytes], warm: bool
) -> None:
    """kill -9, and Ray's word reaches the gate; the id is not used again."""
    peer, _ = await gate.next_from(PlacerHello, timeout_s=30)
    host, said = await a_host(gate, peer, f"k{warm:d}")
    if not warm:
        host.send(Specialise("default", gate.digest))
        await until(lambda: cluster.actor(f"k{warm:d}")["state"] == "ALIVE")
    began = time.monotonic()
    os.kill(said.pid, signal.SIGKILL)
    gone = await gate.next(HostGone)
    print(f"kill -9 noticed after {(time.monotonic() - began) * 1000:.0f} ms: {gone.reason}")
    assert gone.host_id == f"k{warm:d}"
    assert time.monotonic() - began < 2
    peer.send(HostsWanted([f"k{warm:d}", f"n{warm:d}"]))
    await gate.next(Hello, where=lambda hello: hello.host_id == f"n{warm:d}", timeout_s=30)
    row = cluster.actor(f"k{warm:d}")
    assert (row["state"], int(row["num_restarts"])) == ("DEAD", 0)


async def test_a_host_that_is_told_to_end_takes_its_process_with_it(
    cluster: Cluster, gate: SocketGate, placer: subprocess.Popen[bytes]
) -> None:
    """Bye ends the actor, warm as it is."""
    peer, _ = await gate.next_from(PlacerHello, timeout_s=30)
    host, said = await a_host(gate, peer, "b1")
    host.send(Bye("not needed"))
    assert (await gate.next(HostGone)).host_id == "b1"
    await until(lambda: not psutil.pid_exists(said.pid))


async def test_a_host_that_can_not_be_confined_is_not_made(gate: SocketGate, placer: subprocess.Popen[bytes]) -> None:
    """Its actor says why, in the words of whoever tried; no host comes instead."""
    peer, _ = await gate.next_from(PlacerHello, timeout_s=30)
    apart = canonical({"agent": "a1", "address": "default/one", "confined": True}).decode()
    peer.send(HostsWanted(["c1"], {"c1": apart}))
    gone = await gate.next(HostGone, timeout_s=30)
    why = "no uid was given" if os.geteuid() == 0 else "only root"
    assert gone.host_id == "c1"
    assert why in gone.reason, gone.reason
    assert not [frame for _, frame in gate.frames if isinstance(frame, Hello)]


async def test_what_ray_refuses_of_one_holds_up_no_other(
    cluster: Cluster, gate: SocketGate, placer: subprocess.Popen[bytes]
) -> None:
    """Of a host, and of a task: each ends with the reason, once, over one connection; those after it are made."""
    peer, _ = await gate.next_from(PlacerHello, timeout_s=30)
    wrong: dict[str, dict[str, Any]] = {
        "a1": {"custom": {"CPU": 1}}, "a2": {"num_gpus": 1.5}, "a3": {"num_cpus": 0.00001}, "a4": {"num_cpus": -1}
    }  # fmt: skip
    apart = {
        host_id: canonical({"agent": "u1", "address": "default/one", "resources": it}).decode()
        for host_id, it in wrong.items()
    }
    peer.send(HostsWanted([*wrong, "z1"], {**apart, "a0": "{"}))
    for key, needs in wrong.items():
        peer.send(a_task(gate, f"{key}:1", "add", 2, resources=needs))
    gone = {it.host_id: it.reason for it in [await gate.next(HostGone, timeout_s=30) for _ in wrong]}
    assert gone.keys() == wrong.keys()
    assert "CPU is a name of Ray's own" in gone["a1"]
    ended = [await gate.next(TaskEnded, timeout_s=30) for _ in wrong]
    assert {it.key for it in ended} == {f"{key}:1" for key in wrong}
    assert {(it.outcome, orjson.loads(it.result)["reason"]) for it in ended} == {("failed", "INVALID_VALUE")}
    await gate.next(Hello, where=lambda hello: hello.host_id == "z1", timeout_s=30)
    assert not [frame for _, frame in gate.frames if isinstance(frame, PlacerHello)]


async def test_a_gate_that_ends_each_connection_is_asked_less_and_less_often(
    gate: SocketGate, placer: subprocess.Popen[bytes]
) -> None:
    """A frame that none can take would otherwise be read again without a pause."""
    peer, _ = await gate.next_from(PlacerHello, timeout_s=30)
    began, tries = time.monotonic(), 1
    while time.monotonic() - began < 2:
        peer.close()
        peer, _ = await gate.next_from(PlacerHello, timeout_s=10)
        tries += 1
    assert 2 < tries < 10


async def test_hosts_outlive_a_killed_placer_and_the_next_one_finds_them(
    cluster: Cluster, gate: SocketGate, placer: subprocess.Popen[bytes]
) -> None:
    """Detached: the next placer keeps what is wanted, and ends what is not."""
    peer, _ = await gate.next_from(PlacerHello, timeout_s=30)
    host, said = await a_host(gate, peer, "p1")
    host.send(Specialise("default", gate.digest))
    host.send(gate.run_frame("x"))
    await gate.next(Commit)
    placer.kill()
    placer.wait()
    host.send(gate.run_frame("y", version=1, turn_id="turn_2"))
    await gate.next(Commit)
    second = start_placer(cluster)
    try:
        peer, _ = await gate.next_from(PlacerHello, timeout_s=30)
        peer.send(HostsWanted(["p1"]))
        host.send(gate.run_frame("z", version=2, turn_id="turn_3"))
        await gate.next(Commit)
        assert psutil.pid_exists(said.pid)
        os.kill(said.pid, signal.SIGKILL)
        assert (await gate.next(HostGone)).host_id == "p1"
    finally:
        second.send_signal(signal.SIGTERM)
        await asyncio.to_thread(second.wait, 20)


async def test_a_placer_that_ends_takes_its_hosts_with_it(
    cluster: Cluster, gate: SocketGate, placer: subprocess.Popen[bytes]
) -> None:
    """SIGTERM: no actor stays behind."""
    peer, _ = await gate.next_from(PlacerHello, timeout_s=30)
    _, said = await a_host(gate, peer, "t1")
    began = time.monotonic()
    placer.send_signal(signal.SIGTERM)
    assert await asyncio.to_thread(placer.wait, 20) == 0
    print(f"placer ended after {time.monotonic() - began:.2f} s")
    await until(lambda: not psutil.pid_exists(said.pid))


def a_task(gate: SocketGate, key: str, function: str, *args: Any, **more: Any) -> TaskBegin:
    given = canonical({"function": f"jobs:{function}", "args": args, **more})
    return TaskBegin(key, "default/thinker", gate.digest, canonical(gate.files), given)


async def test_functions_are_run_by_workers_of_their_own(
    cluster: Cluster, gate: SocketGate, placer: subprocess.Popen[bytes]
) -> None:
    """What they answer, raise, or may not answer; told again to a gate that is new, and nothing is left of them."""
    peer, _ = await gate.next_from(PlacerHello, timeout_s=30)
    seen = await gate.next(NodesSeen, timeout_s=30)
    peer.send(
        msgspec.structs.replace(a_task(gate, "e:1", "add", 1), avoid=[orjson.loads(seen.nodes)[0]["ray_node_id"]])
    )
    for key, *what in (("a:1", "add", 2), ("b:1", "breaks"), ("c:1", "large"), ("d:1", "absent")):
        peer.send(a_task(gate, key, *what))
    peer.send(a_task(gate, "a:1", "add", 2))
    came = {it.key: it for it in [await gate.next(TaskEnded, timeout_s=60) for _ in range(4)]}
    total, pid = orjson.loads(came["a:1"].result)
    assert (came["a:1"].outcome, total, came["a:1"].cpu_s > 0) == ("succeeded", 3, True)
    found = {key: orjson.loads(it.result)["reason"] for key, it in came.items() if it.outcome == "failed"}
    assert found == {"b:1": "COMPUTE_FAILED", "c:1": "LIMIT_REACHED", "d:1": "INVALID_CODE"}
    assert "KeyError: 'no' (jobs.py:10 in breaks)" in orjson.loads(came["b:1"].result)["detail"]
    await gate.stop()
    await gate.start()
    again = {(await gate.next(TaskEnded, timeout_s=20)).key for _ in range(4)}
    assert again == came.keys()
    begun = {frame.key for _, frame in gate.frames if isinstance(frame, TaskStarted)}
    assert begun <= came.keys(), "there is no other node than the one to avoid"
    await until(lambda: not psutil.pid_exists(pid))
    assert list((cluster.runtime / "tasks").iterdir()) == []


async def test_a_task_ends_with_its_worker_its_wish_or_its_placer(
    cluster: Cluster, gate: SocketGate, placer: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    """kill -9 of the worker is a loss; who is wanted no more, and whose placer is killed, is ended by Ray."""
    peer, _ = await gate.next_from(PlacerHello, timeout_s=30)
    half = {"resources": {"num_cpus": 0.5}}
    for key in ("a:1", "b:1", "c:1"):
        peer.send(a_task(gate, key, "lasts", str(tmp_path / key), **half))
    pids = {key: await until(lambda key=key: pid_in(tmp_path / key), timeout_s=60) for key in ("a:1", "b:1", "c:1")}  # type: ignore[misc]
    os.kill(pids["a:1"], signal.SIGKILL)
    lost = await gate.next(TaskEnded, timeout_s=30)
    assert (lost.key, lost.outcome, len(lost.result) > 10) == ("a:1", "lost", True)
    assert lost.active_s > 0, "since Ray began it"
    peer.send(TasksWanted(["c:1"]))
    await until(lambda: not psutil.pid_exists(pids["b:1"]))
    assert psutil.pid_exists(pids["c:1"])
    placer.kill()
    await until(lambda: not psutil.pid_exists(pids["c:1"]), timeout_s=30)


def pid_in(path: Path) -> int:
    return int(path.read_text()) if path.exists() and path.read_text() else 0


async def test_everything_listens_on_the_loopback_and_asks_for_a_token(cluster: Cluster) -> None:
    """No port of Ray's is open to others, and its API is closed to those without the token."""
    assert cluster.head.process is not None
    for process in session_of(cluster.head.process):
        with contextlib.suppress(psutil.NoSuchProcess):
            for each in process.net_connections("inet"):
                if each.status == psutil.CONN_LISTEN:
                    assert each.laddr.ip.removeprefix("::ffff:") in ("127.0.0.1", "::1"), process.name()
    async with httpx.AsyncClient() as client:
        assert (await client.get(cluster.head.dashboard + "/api/v0/actors")).status_code == 401
    assert cluster.head.token_path.stat().st_mode & 0o077 == 0


async def test_an_installation_on_a_foreign_head_leaves_nothing_there(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After its end, and after `down` of one whose plane, gate and placer were killed: no actor, no process of ours."""
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(cluster.head.token_path))
    theirs = {it.pid for it in session_of(known(cluster.head))}
    await asyncio.to_thread(_on_a_foreign_head, cluster)
    assert cluster.head.alive()
    left = [it for it in session_of(known(cluster.head)) if it.pid not in theirs]
    assert not [it.name() for it in left if it.name().startswith("ray::")], left
    assert [row["name"] for row in cluster.everybody() if row["state"] != "DEAD"] == []


def _on_a_foreign_head(cluster: Cluster) -> None:
    """Agents on shared hosts and apart; one end in good order, and one of what nobody ends."""
    stack = Stack(ray_address=cluster.head.address, hosts_warm=1, ray_num_cpus=1)
    try:
        stack.up()
        own = {"isolation": "dedicated", "resources": {"num_cpus": 1}, "suspend_after_ms": 60_000}
        stack.apply(agent("shared", "Echo", suspend_after_ms=60_000), agent("apart", "Echo", **own))
        for killed in (False, True):
            assert [ask(stack, name, 1) for name in ("shared", "apart")] == [1, 1]
            listed = {it["host_id"] for it in stack.call("hosts.list")["items"]}
            alive = {row["name"].rpartition("/")[2] for row in cluster.everybody() if row["state"] != "DEAD"}
            assert listed <= alive
            assert stack.call("system.status")["ray"] == "up"
            if killed:
                processes = {it["name"]: it["pid"] for it in stack.call("system.status")["processes"]}
                assert processes.keys() >= {"plane", "gate", "placer"}
                for name in ("plane", "placer", "gate"):
                    os.kill(processes[name], signal.SIGKILL)
                down = [str(STEWARD), "down", "--data", str(stack.data)]
                subprocess.run(down, env=stack.env(), timeout=60, check=True)
            else:
                stack.stop()
            limit = time.monotonic() + 20
            while any(row["state"] != "DEAD" for row in cluster.everybody()) and time.monotonic() < limit:
                time.sleep(0.2)
            assert [row["name"] for row in cluster.everybody() if row["state"] != "DEAD"] == []
            assert stack.leftovers() == []
            if not killed:
                stack.up()
    finally:
        stack.close()


def known(head: RayHead) -> Known:
    assert head.process is not None
    return head.process


async def test_a_head_is_adopted_and_a_killed_one_leaves_nothing() -> None:
    """A second object takes over the first's head; after kill -9, stop ends what outlived it."""
    with tempfile.TemporaryDirectory(prefix="st-") as made:
        data, runtime = Path(made) / "data", Path(made) / "run"
        data.mkdir()
        runtime.mkdir()
        first = RayHead(folder=data, runtime=runtime, dashboard=False)
        try:
            await asyncio.to_thread(first.start)
            second = RayHead(folder=data, runtime=runtime, dashboard=False)
            assert not RayHead(folder=data, runtime=runtime, num_cpus=3).adopt()
            assert second.adopt()
            assert second.address == first.address
            head = second.process
            assert head is not None
            os.kill(head.pid, signal.SIGKILL)
            await until(lambda: not first.alive())
            assert not second.alive()
            began = time.monotonic()
            second.stop()
            print(f"stopped after {time.monotonic() - began:.2f} s")
            assert not session_of(head)
            assert not (runtime / "ray").exists()
            assert not second.adopt()
        finally:
            first.stop()
