"""Confined agents, with a real gate and real confined processes: what they reach, and whom the gate lets in."""

import ensurepip
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import orjson
import psutil
import pytest

from controlplane.effects.confining import Known, unfit, unlike
from controlplane.effects.keys import reserved_for
from ray_runtime.confinement import start as starting
from ray_runtime.confinement import view
from ray_runtime.connection import packed
from schemas.processes import door_of
from schemas.wire import Hello
from tests.gate.computer import Computer
from tests.gate.confining import UIDS, confining
from tests.gate.running import RunningGate, running, true

pytestmark = pytest.mark.anyio
UID = UIDS["confined_uid_first"] + UIDS["confined_uids"]
WHY_NOT = starting.why_not(UID)
needs_confinement = pytest.mark.skipif(WHY_NOT is not None, reason=f"nothing can be confined here: {WHY_NOT}")
HIDDEN = Path(ensurepip.__file__).parent  # stands for a data folder that lies in what is shown
SOURCE = """
import ctypes
import os
import socket

from pydantic import BaseModel

from ray_runtime import Agent, Refusal


def tried(do):
    try:
        return str(do())
    except Exception as error:
        return f"{type(error).__name__} {getattr(error, 'errno', '')}"


def written(path):
    def write():
        with open(path, "w") as file:
            file.write("x")
        os.unlink(path)
        return "written"
    return tried(write)


class Seen(BaseModel):
    count: int = 0


class Inmate(Agent):
    state: Seen

    async def on_message(self, turn, envelope):
        asked, self.state.count = envelope.data or {}, self.state.count + 1
        if "stay" in asked:
            libc = ctypes.CDLL(None)
            libc.prctl(1, 0, 0, 0, 0)  # do not end me with my parent
            libc.system(b"setsid sleep 1000 > /dev/null 2>&1 &")
        while "wedge" in asked:
            pass
        if "sleep" in asked:
            await turn.sleep(asked["sleep"])
        if "compute" in asked:
            try:
                return await turn.compute("zoo:tried", 1)
            except Refusal as refusal:
                return refusal.problem.model_dump(mode="json")
        if "read" in asked:
            return (await turn.perform("machine.read", what="cpu"))["cpu_percent"] >= 0
        for path, text in asked.get("write", {}).items():
            (turn.workspace / path).write_text(text)
        libc = ctypes.CDLL(None, use_errno=True)
        return {
            "count": self.state.count,
            "pid": os.getpid(),
            "uids": sorted({*os.getresuid(), *os.getresgid(), *os.getgroups()}),
            "status": open("/proc/self/status").read(),
            "processes": sorted(it for it in os.listdir("/proc") if it.isdigit()),
            "variable": os.environ.get("PLACE"),
            "reads": {it: tried(lambda: open(it).read()[:10]) for it in asked.get("reads", [])},
            "lists": {it: tried(lambda: os.listdir(it)) for it in asked.get("lists", [])},
            "writes": {it: written(it) for it in asked.get("writes", [])},
            "connects": {
                f"{it[0]} {it[1]}": tried(lambda: socket.socket(it[0], socket.SOCK_STREAM).connect(
                    it[1] if isinstance(it[1], str) else tuple(it[1])))
                for it in asked.get("connects", [])
            },
            "unshare": libc.unshare(0x10000000),
            "root": tried(lambda: os.setuid(0)),
            "child": open("/tmp/uid").read().strip() if libc.system(b"id -u > /tmp/uid") == 0 else None,
            "files": {it.name: it.read_text() for it in turn.workspace.iterdir()} if turn.workspace else None,
            "workspace": str(turn.workspace),
        }
"""


async def inmate(gate: RunningGate, name: str, **spec: Any) -> str:
    whole = {"isolation": "confined", "suspend_after_ms": 60_000, "workspace": {"bytes_max": 1000, "files_max": 5}}
    grants = {"grants": [{"effect": "machine.read", "connection": None}]}
    return await gate.agent(name, await gate.code(SOURCE), "Inmate", **{**whole, "mandate": grants, **spec})


@needs_confinement
async def test_a_confined_agent_reaches_its_gate_and_nothing_else(quick_url: str, tmp_path: Path) -> None:
    """Own uid, no capability, no process and no file but its own, no way out; an effect is allowed, as enforced."""
    secret = tmp_path / "secret"
    secret.write_text("a secret that everybody may read")
    secret.chmod(0o644)
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.socket(socket.AF_UNIX) as other:
        other.bind(str(tmp_path / "other.sock"))
        other.listen()
        async with running(quick_url, hosts=0, **UIDS) as gate, confining(gate.socket, HIDDEN):
            assert gate.gate is not None
            asked = {
                "reads": [
                    str(secret),
                    f"/proc/{gate.gate.pid}/environ",
                    "/etc/shadow",
                    "/proc/1/environ",
                    sys.executable,
                ],
                "lists": [str(tmp_path), str(gate.folder), "/home", "/root", str(Path.cwd()), str(HIDDEN)],
                "writes": [
                    "/a",
                    "/usr/a",
                    "/etc/a",
                    f"{sys.prefix}/a",
                    "/run/steward/a",
                    "/dev/a",
                    "/tmp/a",
                    "/dev/shm/a",
                ],
                "connects": [
                    (socket.AF_INET, listener.getsockname()),
                    (socket.AF_INET, ("192.0.2.1", 80)),
                    (socket.AF_UNIX, str(tmp_path / "other.sock")),
                    (socket.AF_UNIX, str(gate.socket)),
                    (40, (2, 1)),  # a machine's hypervisor
                ],
            }
            await inmate(gate, "one", environment={"PLACE": "apart"})
            await inmate(gate, "two")
            first = await gate.ask("one", {**asked, "write": {"mine": "1"}}, "m1")
            (host,) = await gate.rows("SELECT pid FROM host WHERE kept_for = 'default/one' AND ended_at IS NULL")
            assert "workspace" in first, first
            mine = first["workspace"]
            second = await gate.ask("two", {"lists": [mine, str(Path(mine).parents[1])], "write": {"it": "2"}}, "m2")
            assert await gate.ask("one", {"read": True}, "m3") is True
            (verdict,) = await gate.rows("SELECT verdict FROM journal WHERE verdict IS NOT NULL")
    assert first["uids"][0] == first["uids"][-1] != second["uids"][0]
    assert {first["uids"][0], second["uids"][0]} <= set(range(UIDS["confined_uid_first"], UID))
    assert first["child"] == str(first["uids"][0])
    assert "CapEff:\t0000000000000000" in first["status"]
    assert "CapBnd:\t0000000000000000" in first["status"]
    assert (first["pid"], first["variable"], second["variable"]) == (2, "apart", None)
    assert host[0] > 1
    assert first["processes"] == ["1", "2"]
    assert first["reads"]["/proc/1/environ"].startswith("PermissionError")
    refused = {it: said for it, said in first["reads"].items() if it != sys.executable}
    assert all(said.startswith(("FileNotFoundError", "PermissionError")) for said in refused.values()), refused
    assert all(said.startswith("FileNotFoundError") for it, said in first["lists"].items() if "/tmp" in it)
    assert (first["lists"]["/home"], first["lists"][str(HIDDEN)]) == ("['agent']", "[]")
    assert "work" not in first["lists"][str(Path.cwd())]
    writes = first["writes"]
    assert {it for it, said in writes.items() if said == "written"} == {"/tmp/a", "/dev/shm/a"}, writes
    assert all(said.split()[0] in ("OSError", "FileNotFoundError") for said in first["connects"].values()), first
    assert (first["unshare"], first["root"].split()[0]) == (-1, "PermissionError")
    assert second["files"] == {"it": "2"}
    assert all(said.startswith("FileNotFoundError") or said == "['two']" for said in second["lists"].values()), second
    assert orjson.loads(verdict[0])["containment"] == "enforced"


@needs_confinement
async def test_a_confined_agent_lives_as_any_other(quick_url: str) -> None:
    """Suspended and woken, on a new host after kill -9 of the first one's supervisor, which nothing of it survives,
    on the same host after kill -9 of the gate."""
    async with running(quick_url, hosts=0, **UIDS) as gate, confining(gate.socket) as placer:
        await inmate(gate, "one", suspend_after_ms=0)
        first = await gate.ask("one", {"write": {"a": "1"}}, "m1")
        await gate.until("SELECT 1 FROM host WHERE ended_at IS NULL", lambda rows: not rows)
        await gate.send("one", {"sleep": 0.3, "stay": True, "write": {"b": "2"}}, "m2")
        await gate.until("SELECT 1 FROM turn WHERE message_id = 'm2' AND outcome = 'parked'", bool)
        supervisor = await placer.supervisor()
        started = psutil.Process(supervisor.pid).children(recursive=True)
        assert "sleep" in [it.name() for it in started]
        supervisor.kill()
        await true(lambda: not any(it.is_running() for it in started))
        last = await gate.ask("one", {}, "m3")
        assert (first["count"], last["count"], last["files"]) == (1, 3, {"a": "1", "b": "2"})
        uid = await inmate(gate, "kept")
        await gate.ask("kept", {}, "k1")
        before = await gate.rows("SELECT pid FROM host WHERE kept_for = 'default/kept' AND ended_at IS NULL")
        gate.kill()
        gate.start()
        assert (await gate.ask("kept", {"write": {"c": "3"}}, "k2"))["files"] == {"c": "3"}
        after = await gate.rows("SELECT pid FROM host WHERE kept_for = 'default/kept' AND ended_at IS NULL")
        assert before == after
        assert uid == "agent_kept"


@needs_confinement
async def test_a_confined_agent_whose_loop_is_wedged_goes_on_in_another_host(quick_url: str) -> None:
    """Its turn has a limit, whose end is that of its host with all that ran in it; of the turn nothing is left."""
    limits = {"effects_max": 10, "journal_bytes_max": 10_000, "turn_s_max": 2}
    async with (
        running(quick_url, hosts=0, loop_held_s_max=1.0, turn_attempts_max=1, **UIDS) as gate,
        confining(gate.socket) as placer,
    ):
        await inmate(gate, "one", limits=limits)
        first = await gate.ask("one", {"write": {"a": "1"}}, "m1")
        supervisor = await placer.supervisor()
        inside = psutil.Process(supervisor.pid).children(recursive=True)
        assert (await gate.ask("one", {"wedge": True}, "w1", 40))["reason"] == "TURN_TIMEOUT"
        await true(lambda: supervisor.poll() is not None and not any(it.is_running() for it in inside))
        after = await gate.ask("one", {}, "m2", 30)
        assert (first["count"], after["count"], after["files"]) == (1, 2, {"a": "1"})
        assert await gate.rows("SELECT message_id, reason FROM dead_letter") == [("w1", "TURN_TIMEOUT")]


@needs_confinement
async def test_no_function_of_a_confined_agent_is_run_by_ray(quick_url: str) -> None:
    """Ray's workers are not confined; whatever its mandate grants, nothing is begun, and it hears why."""
    async with running(quick_url, hosts=0, **UIDS) as gate, confining(gate.socket):
        computer = Computer(gate.socket, answers="it ran")
        await inmate(gate, "one", mandate={"grants": [{"effect": "compute.*", "connection": None}]})
        found = await gate.ask("one", {"compute": True}, "m1")
        assert (found["reason"], found["field"], computer.begun) == ("NO_CONFINEMENT", "/effect", {})
        assert "default/one is confined" in found["detail"]
        assert [it["operation"] for it in found["next"]] == ["agents.get"]
        assert await gate.rows("SELECT 1 FROM awaiting WHERE kind = 'compute'") == []
        await computer.close()


@needs_confinement
async def test_it_waits_where_it_can_not_be_confined_and_says_so(
    quick_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No other host takes it, though one is there; when the system has what it lacked, it goes on by itself."""
    async with running(quick_url, hosts=1, **UIDS) as gate, confining(gate.socket):
        await gate.until("SELECT 1 FROM host WHERE ended_at IS NULL", bool)
        with monkeypatch.context() as lacking:
            lacking.setattr(starting, "_lacking", lambda: "it takes what is not here")
            uid = await inmate(gate, "one")
            said = ""
            while "it takes what is not here" not in said:
                said = (await gate.client.control("look", uid, {}))["why_awake"] or ""
            assert said.startswith("it waits for a host of its own")
            assert await gate.rows("SELECT 1 FROM turn") == []
        assert (await gate.ask("one", {}, "m1"))["uids"][0] >= UIDS["confined_uid_first"]


@needs_confinement
async def test_who_is_not_confined_is_not_taken_for_it(quick_url: str) -> None:
    """One of our own uid that says so, and another one at the door: their connections are closed, nothing runs."""
    spec = {"isolation": "confined"}
    reserved = reserved_for("agent_one", "default", "one", spec)
    async with running(quick_url, hosts=0, **UIDS) as gate:
        await inmate(gate, "one")
        for path in (gate.socket, door_of(gate.socket)):
            with socket.socket(socket.AF_UNIX) as opened:
                opened.connect(str(path))
                opened.settimeout(10)
                opened.sendall(packed(Hello("h-forged", os.getpid(), 0.0, "local", reserved=reserved)))
                assert opened.recv(1) == b""
        assert await gate.rows("SELECT host_id FROM host") == []


@pytest.mark.parametrize(
    ("said", "uid", "known", "why"),
    [
        ({"reserved": "one"}, UID, Known(UID, "", "", "default/one"), "nothing is known"),
        ({"reserved": "one"}, UID, None, "is not that of this host"),
        ({"reserved": "one"}, UID, Known(UID + 1, "", "", "default/one"), "is not that of this host"),
        ({"reserved": "one"}, UID, Known(UID, "", "", "default/two"), "for another agent"),
        ({"reserved": ""}, UID, Known(UID, "", "", "default/one"), "for another agent"),
        ({"reserved": "one", "digest": "d2"}, UID, Known(UID, "default", "d1", "default/one"), "other code"),
    ],
    ids=["unknown", "unrecorded", "other-uid", "other-agent", "shared", "other-code"],
)
def test_a_confined_host_is_what_was_recorded_of_it(said: dict[str, str], uid: int, known: Known, why: str) -> None:
    """Its uid, its agent and its code; whatever else it says, it is not let in."""
    kept = reserved_for("agent_one", "default", "one", {"isolation": "confined"}) if said["reserved"] else ""
    hello = Hello("h1", 1, 0.0, "local", digest=said.get("digest", ""), reserved=kept)
    assert why in unfit(uid, 2**22 + 1, hello, known, foreign=True)


@needs_confinement
def test_a_uid_of_its_own_is_not_enough() -> None:
    """What the kernel says of a process that may still become more, or sees this machine, is not confined."""
    with subprocess.Popen(["/bin/cat"], stdin=subprocess.PIPE, user=UID, group=UID) as process:
        assert unlike(process.pid, UID) != ""
        process.communicate()


def test_what_can_not_be_confined_is_not_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A uid that is ours, one that is in use, a view that can not be built, a user who may not: each says why."""

    def started(uid: int) -> str:
        with pytest.raises(starting.Unconfined) as refused:
            starting.start(view.plan(uid=uid, root=tmp_path / "none", argv=[sys.executable], env={}))
        return str(refused.value)

    if WHY_NOT is None:
        assert "no uid" in started(0)
        assert started(UID).startswith("mount")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert started(UID) == "hosts run as uid 1000, and only root can give a process a uid of its own"
