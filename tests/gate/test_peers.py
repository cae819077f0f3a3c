"""Peers that are hostile, garbled, or not who they say they are; and a database that goes away."""

import asyncio
import os
import signal
import socket
import struct
import sys
import time
from typing import Any

import msgspec
import orjson
import psutil
import pytest

from controlplane.effects.client import GateClient
from schemas import frames, wire
from schemas.base import short_id, turn_of
from schemas.problem import Refusal
from schemas.processes import PYTHON, started
from schemas.workspace import Saved, saved
from tests.gate.running import RunningGate, running, true
from tests.gate.zoo import SOURCE
from tests.postgres import Postgres

pytestmark = pytest.mark.anyio


class Peer:
    """A connection that says what it likes."""

    def __init__(self, gate: RunningGate) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.connect(str(gate.socket))
        self.socket.settimeout(5)

    def say(self, *said: frames.Frame) -> "Peer":
        bodies = [msgspec.msgpack.encode(frame) for frame in said]
        self.socket.sendall(b"".join(struct.pack("<I", len(body)) + body for body in bodies))
        return self

    async def hear(self) -> bytes:
        """What comes next; nothing when the gate closed the connection."""
        try:
            return await asyncio.to_thread(self.socket.recv, 65536)
        except ConnectionResetError:
            return b""

    async def told(self, mark: str) -> None:
        """Wait for a frame that holds this."""
        heard = b""
        while mark.encode() not in heard:
            more = await self.hear()
            assert more, "the gate closed the connection"
            heard += more


def _hello(host_id: str) -> wire.Hello:
    return wire.Hello(host_id, os.getpid(), started(os.getpid()), "here")


HOSTILE: dict[str, bytes] = {
    "noise": b"GET / HTTP/1.1\r\n\r\n" * 50,
    "endless": struct.pack("<I", 0xFFFFFFFF) + b"x" * 100,
    "no frame": struct.pack("<I", 3) + b"abc",
    "a wrong type": (lambda body: struct.pack("<I", len(body)) + body)(msgspec.msgpack.encode(["Hello", 1, 2, 3])),
}


@pytest.mark.parametrize("said", HOSTILE.values(), ids=HOSTILE.keys())
async def test_what_is_garbled_ends_its_own_connection_only(sqlite_url: str, said: bytes) -> None:
    """The gate goes on for everybody else."""
    async with running(sqlite_url) as gate:
        peer = Peer(gate)
        peer.socket.sendall(said)
        assert await peer.hear() == b""
        code = await gate.code(SOURCE)
        await gate.agent("echo", code, "Echo")
        assert await gate.ask("echo", 1, "m1") == 1


OUT_OF_PLACE: dict[str, list[frames.Frame]] = {
    "a plane without the key": [frames.PlaneHello(1, "wrong"), frames.Write(1, [])],
    "a write from nobody": [frames.Write(1, [])],
    "a write from a host": [_hello("rogue"), frames.Write(1, [frames.Statement("DELETE FROM agent", [], -1)])],
    "a control from a host": [_hello("rogue"), frames.Control(1, "stop", "agent_echo", b"{}")],
    "a shutdown from a host": [_hello("rogue"), frames.Shutdown()],
    "a lease for another host": [wire.LeaseHello("h0")],
    "a lease without a hello": [wire.Lease("h0", 0.0, 0)],
    "a death told by nobody": [frames.HostGone("h0", "because")],
}


@pytest.mark.parametrize("said", OUT_OF_PLACE.values(), ids=OUT_OF_PLACE.keys())
async def test_a_peer_says_what_its_first_frame_allows(sqlite_url: str, said: list[frames.Frame]) -> None:
    """Anything else closes its connection and changes nothing."""
    async with running(sqlite_url) as gate:
        code = await gate.code(SOURCE)
        await gate.agent("echo", code, "Echo")
        assert await gate.ask("echo", 1, "m1") == 1
        peer = Peer(gate).say(*said)
        while await peer.hear():  # a host is welcomed first
            pass
        assert await gate.ask("echo", 2, "m2") == 2
        assert await gate.rows("SELECT stopped FROM agent") == [(0,)]


async def test_a_process_can_not_be_a_host_that_lives(sqlite_url: str) -> None:
    """Who says the id of a living host is turned away; the host goes on, and is not the one who is ended."""
    async with running(sqlite_url) as gate:
        code = await gate.code(SOURCE)
        await gate.agent("echo", code, "Echo", suspend_after_ms=60_000)
        assert await gate.ask("echo", 1, "m1") == 1
        ((host_id,),) = await gate.rows("SELECT host_id FROM host WHERE ended_at IS NULL")
        assert await Peer(gate).say(_hello(host_id)).hear() == b""
        assert await gate.ask("echo", 2, "m2") == 2
        assert gate.hosts[0].poll() is None


async def test_a_host_speaks_only_for_agents_that_it_owns(sqlite_url: str) -> None:
    """A commit of somebody else's turn, or of one that never was, changes nothing."""
    async with running(sqlite_url, lease_s=120) as gate:  # the rogue is this very process
        code = await gate.code(SOURCE)
        await gate.agent("slow", code, "Slow", suspend_after_ms=60_000)
        asked = asyncio.create_task(gate.ask("slow", 0.8, "m1"))
        await gate.until("SELECT 1 FROM inbox WHERE message_id = 'm1'", bool)
        await gate.until("SELECT 1 FROM agent WHERE owner IS NOT NULL", bool)  # by the real host, not the rogue
        ((uid, epoch),) = await gate.rows("SELECT uid, epoch FROM agent")
        turn_id = turn_of(uid, "m1")
        rogue = Peer(gate).say(_hello("rogue"))
        await rogue.hear()
        rogue.say(
            wire.Commit(turn_id, epoch, 1, b'{"seen":99}', "d", [], b'"forged"', 0),
            wire.Failed(turn_id, epoch, b'{"reason":"X","detail":"x"}', retry=False, cpu_ns=0),
            wire.Commit("turn_of_nobody", 1, 0, b"{}", "d", [], b"null", 0),
        )
        assert await asked == "done"
        assert await gate.rows("SELECT 1 FROM dead_letter") == []


OUT_OF_BOUNDS = [
    ("timer", b'{"name":"t","after_s":0,"every_s":0,"data":1}'),
    ("timer", b'{"name":"t","after_s":0,"every_s":-1,"data":1}'),
    ("timer", b'{"name":"t","after_s":1e300,"every_s":null,"data":1}'),
    ("timer", b'{"name":"","after_s":0,"every_s":null,"data":1}'),
    ("timer", b'{"name":"t\\u0000","after_s":0,"every_s":null,"data":1}'),
    ("timer_cancel", b'{"name":"%s"}' % (b"t" * 201)),
    ("sleep", b'{"seconds":1e300}'),
    ("ask", b'{"to":"default/a","data":1,"deadline_s":1e300}'),
    ("question", b'{"question":"?","choices":null,"deadline_s":-1}'),
    ("gather", b'{"members":9999999999999999999,"needs":1}'),
    ("publish", b'{"channel":"default/c","data":1,"key":"\\u0000"}'),
    ("send", b'{"to":"default/","data":1,"key":null}'),
    ("spawn", b'{"name":"","entrypoint":null,"config":null,"purpose":null,"grants":null}'),
    ("spawn", b'{"name":"a","entrypoint":"os.system","config":null,"purpose":null,"grants":null}'),
    ("spawn", b'{"name":"a","entrypoint":null,"config":null,"purpose":"%s","grants":null}' % (b"x" * 2001)),
]


async def test_segments_that_can_not_be_are_refused(sqlite_url: str) -> None:
    """A host that sends entries of unknown kinds, at wrong positions, or with broken bodies fails its own turn only."""
    entries = [
        wire.Entry("0", 0, "steal", b"{}"),
        wire.Entry("0", 5, "send", b'{"to":"default/a","data":1,"key":null}'),
        wire.Entry("1", 0, "send", b'{"to":"default/a","data":1,"key":null}'),
        wire.Entry("0", 0, "send", b'{"to":7}'),
        wire.Entry("0", 0, "send", b"\xff\xfe"),
        wire.Entry("0", 2**63, "sleep", b'{"seconds":1}'),
        wire.Entry("0", 0, "question", b'{"question":"","choices":null,"deadline_s":1}'),
        wire.Entry("0", 0, "continue", b'{"data":1}'),  # of a start
        *(wire.Entry("0", 0, kind, body) for kind, body in OUT_OF_BOUNDS),
    ]
    async with running(sqlite_url, hosts=0, lease_s=120) as gate:  # the rogue is this very process
        code = await gate.code(SOURCE)
        rogue = Peer(gate).say(_hello("rogue"))
        for n, entry in enumerate(entries):
            uid = await gate.agent(f"a{n}", code, "Echo")
            await gate.until(f"SELECT 1 FROM agent WHERE uid = '{uid}' AND owner IS NOT NULL", bool)
            turn_id = turn_of(uid, short_id("msg", "start", uid, 1))
            await rogue.told(turn_id)
            ((epoch,),) = await gate.rows(f"SELECT epoch FROM agent WHERE uid = '{uid}'")
            rogue.say(wire.Commit(turn_id, epoch, 0, b"{}", "d", [entry], b"null", 0))
            rows = await gate.until(f"SELECT outcome, problem FROM turn WHERE agent = '{uid}'", bool)
            assert rows[0][0] == "failed", entry
            assert "INTERNAL" in rows[0][1]


async def test_a_turn_is_held_to_its_bounds_whatever_its_host_says(sqlite_url: str) -> None:
    """How many effects, and how many bytes of them: also over several segments, and of effects that are denied."""

    def send(n: int, size: int = 1) -> wire.Entry:
        return wire.Entry("0", n, "send", b'{"to":"default/a","data":"%s","key":null}' % (b"x" * size))

    sleep = b'{"seconds":1000}'
    many, large = {"effects_max": 3}, {"journal_bytes_max": 2000, "effects_max": 10}
    cases: list[tuple[dict[str, int], list[frames.Frame], str]] = [
        (many, [wire.Commit("", 0, 0, b"{}", "d", [send(n) for n in range(4)], b"null", 0)], "effects_max"),
        (many, [wire.Ask("", 0, "0", 3, "notes.once", "", b"{}", "", [send(n) for n in range(3)])], "effects_max"),
        (large, [wire.Commit("", 0, 0, b"{}", "d", [send(0, 3000)], b"null", 0)], "journal_bytes_max"),
        (
            large,
            [wire.Ask("", 0, "0", 1, "notes.once", "", b'"%s"' % (b"x" * 3000), "", [send(0)])],
            "journal_bytes_max",
        ),
        (
            large,
            [
                wire.Park("", 0, [send(0, 1500), wire.Entry("0.1", 0, "sleep", sleep)], 0, [("0.1", 0)], 9),
                wire.Commit("", 0, 0, b"{}", "d", [send(1, 1500)], b"null", 0),
            ],
            "journal_bytes_max",
        ),
    ]
    async with running(sqlite_url, hosts=0, lease_s=120) as gate:  # the rogue is this very process
        code = await gate.code(SOURCE)
        rogue = Peer(gate).say(_hello("rogue"))
        for n, (limits, said, limit) in enumerate(cases):
            uid = await gate.agent(f"a{n}", code, "Echo", limits=limits)
            turn_id = turn_of(uid, short_id("msg", "start", uid, 1))
            await rogue.told(turn_id)
            ((epoch,),) = await gate.rows(f"SELECT epoch FROM agent WHERE uid = '{uid}'")
            rogue.say(*(msgspec.structs.replace(it, turn_id=turn_id, epoch=epoch) for it in said))
            query = f"SELECT problem FROM turn WHERE agent = '{uid}' AND outcome = 'failed'"
            assert f'"limit":"{limit}"' in (await gate.until(query, bool))[0][0], n


@pytest.mark.parametrize("said", [b"{}", b"[]", b"no json", b'{"reason":7}', b"\xff"])
async def test_a_failure_without_a_reason_is_one(sqlite_url: str, said: bytes) -> None:
    """Whatever a host says of why a turn failed, the turn is over, and the host's connection stands."""
    async with running(sqlite_url, hosts=0, lease_s=120) as gate:  # the rogue is this very process
        uid = await gate.agent("a", await gate.code(SOURCE), "Echo")
        rogue = Peer(gate).say(_hello("rogue"))
        turn_id = turn_of(uid, short_id("msg", "start", uid, 1))
        await rogue.told(turn_id)
        ((epoch,),) = await gate.rows("SELECT epoch FROM agent")
        rogue.say(wire.Failed(turn_id, epoch, said, retry=False, cpu_ns=0))
        assert await gate.until("SELECT reason FROM dead_letter", bool) == [("INTERNAL",)]
        assert await gate.rows("SELECT 1 FROM host WHERE ended_at IS NOT NULL") == []


LIAR = """
import os, socket, struct, sys, time
import msgspec
from schemas import wire
from schemas.processes import started

peer = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
peer.connect(sys.argv[1])
body = msgspec.msgpack.encode(wire.Hello("liar", os.getpid(), started(os.getpid()), "here"))
peer.sendall(struct.pack("<I", len(body)) + body)
while peer.recv(65536):
    pass
time.sleep(600)
"""


async def test_a_host_that_says_nothing_of_its_lag_keeps_no_turn(sqlite_url: str) -> None:
    """Its lease runs and its loop answers, as it says: the turn is over at the end of its time, and so is the host."""
    async with running(sqlite_url, hosts=0, lease_s=120, late_s_max=0.2) as gate:
        code = await gate.code(SOURCE)
        liar = await asyncio.create_subprocess_exec(sys.executable, "-c", LIAR, str(gate.socket))
        try:
            await gate.agent("a", code, "Echo", limits={"turn_s_max": 0.2})
            letters = await gate.until("SELECT reason FROM dead_letter", bool)
            assert letters == [("TURN_TIMEOUT",)]
            assert await liar.wait() == -signal.SIGKILL
        finally:
            if liar.returncode is None:
                liar.kill()


async def test_no_more_agents_are_spawned_than_a_namespace_may_have(sqlite_url: str) -> None:
    """The turn fails with what the limit is, and spawns again when there is room."""
    async with running(sqlite_url, agents_max=3) as gate:
        code = await gate.code(SOURCE)
        await gate.agent("parent", code, "Parent")
        for n in range(2):
            await gate.ask("parent", f"c{n}", f"m{n}")
        refused = await gate.ask("parent", "c2", "m2")
        assert (refused["reason"], refused["metadata"]["agents_max"]) == ("QUOTA", 3)
        await gate.client.control("remove", (await gate.rows("SELECT uid FROM agent WHERE name = 'c0'"))[0][0], {})
        assert await gate.ask("parent", "c3", "m3") == "default/c3"


async def test_files_that_can_not_be_are_refused(sqlite_url: str) -> None:
    """A host that sends files of an agent without a workspace, that lead elsewhere, are another's or too many."""
    ok = saved("a", b"1", executable=False)
    room = {"bytes_max": 10, "files_max": 2}
    cases: list[tuple[dict[str, int] | None, list[Saved], list[str], str]] = [
        (None, [ok], [], "no workspace"),
        (room, [], ["a"], "was not there"),
        (room, [saved("../../a", b"1", executable=False)], [], "no path within"),
        (room, [msgspec.structs.replace(ok, body=b"2")], [], "under a digest"),
        (room, [saved("a", bytes(11), executable=False)], [], "at most 10"),
        (room, [saved(name, b"", executable=False) for name in "abc"], [], "at most 2"),
    ]
    async with running(sqlite_url, hosts=0, lease_s=120) as gate:  # the rogue is this very process
        code = await gate.code(SOURCE)
        rogue = Peer(gate).say(_hello("rogue"))
        for n, (workspace, files, gone, said) in enumerate(cases):
            uid = await gate.agent(f"a{n}", code, "Echo", workspace=workspace)
            await gate.until(f"SELECT 1 FROM agent WHERE uid = '{uid}' AND owner IS NOT NULL", bool)
            turn_id = turn_of(uid, short_id("msg", "start", uid, 1))
            await rogue.told(turn_id)
            rogue.say(wire.Commit(turn_id, 1, 0, b"{}", "d", [], b"null", 0, 1, files, gone))
            rows = await gate.until(f"SELECT outcome, problem FROM turn WHERE agent = '{uid}'", bool)
            assert rows[0][0] == "failed", said
            assert said in rows[0][1]
        assert await gate.rows("SELECT 1 FROM workspace_file") == []


async def test_the_socket_is_its_owners_alone(sqlite_url: str) -> None:
    """0600, in a folder that nobody else enters; a stale one is replaced."""
    async with running(sqlite_url) as gate:
        assert gate.socket.stat().st_mode & 0o777 == 0o600
        gate.kill()
        assert gate.socket.exists()
        await true(lambda: not gate.client.connected)
        gate.start()
        code = await gate.code(SOURCE)
        await gate.agent("echo", code, "Echo")
        assert await gate.ask("echo", 1, "m1") == 1


async def test_calls_wait_for_a_gate_that_comes_back_and_are_refused_when_it_does_not(sqlite_url: str) -> None:
    """A send during a restart is done once; without a gate it is NOT_READY after a few seconds."""
    async with running(sqlite_url) as gate:
        code = await gate.code(SOURCE)
        await gate.agent("counter", code, "Counter")
        await gate.agent("ledger", code, "Ledger")
        gate.kill()
        sent = [asyncio.create_task(gate.send("counter", n, f"m{n}")) for n in range(20)]
        gate.start()
        await asyncio.gather(*sent)
        await gate.until(
            "SELECT 1 FROM turn WHERE message_id LIKE 'm%' AND agent = 'agent_counter'", lambda r: len(r) >= 20
        )
        assert sorted((await gate.ask("counter", "count", "c"))["got"]) == list(range(20))
    begun = time.monotonic()
    alone = GateClient(gate.socket, "key", lambda: None)
    alone.connect()
    with pytest.raises(Refusal) as refused:
        await alone.control("look", "x", {})
    await alone.close()
    assert refused.value.problem.reason == "NOT_READY"
    assert time.monotonic() - begun < 8


async def test_a_database_that_restarts_costs_time_and_nothing_else(postgres: Any, tmp_path: Any) -> None:
    """A crash of PostgreSQL under messages: each is handled once, and timers go on."""
    server = Postgres()
    try:
        async with running(server.create()) as gate:
            code = await gate.code(SOURCE)
            await gate.agent("counter", code, "Counter", suspend_after_ms=20)
            await gate.agent("ledger", code, "Ledger", suspend_after_ms=20)
            await gate.agent("alarm", code, "Alarm")
            await gate.ask("alarm", {"every_s": 0.2, "data": 1}, "t")
            sent = [asyncio.create_task(gate.send("counter", n, f"m{n}")) for n in range(40)]
            await asyncio.sleep(0.05)
            await asyncio.to_thread(server.restart, "immediate")
            for n, outcome in enumerate(await asyncio.gather(*sent, return_exceptions=True)):
                if isinstance(outcome, Refusal):
                    await gate.send("counter", n, f"m{n}")
            limit = time.monotonic() + 30
            while len((await gate.ask("ledger", "count", f"c{time.monotonic()}", 30))["got"]) < 40:
                assert time.monotonic() < limit
            assert sorted((await gate.ask("ledger", "count", "cl"))["got"]) == list(range(40))
            before = len((await gate.ask("alarm", "count", "ca"))["got"])
            await gate.until("SELECT 1 FROM turn WHERE trigger = 'timer'", lambda rows: len(rows) > before + 2)
    finally:
        server.close()


async def test_a_suspended_agent_is_a_row_and_nothing_else(sqlite_url: str) -> None:
    """After thousands of agents were awake, the gate holds no more memory than before."""
    async with running(sqlite_url) as gate:
        assert gate.gate is not None
        code = await gate.code(SOURCE)
        process = psutil.Process(gate.gate.pid)

        async def batch(tag: str, count: int) -> None:
            for n in range(count):
                await gate.agent(f"{tag}-{n}", code, "Echo", suspend_after_ms=0)
            await gate.until(
                "SELECT COUNT(*) FROM agent WHERE owner IS NOT NULL OR version = 0", lambda r: r[0][0] == 0, 60
            )

        await batch("warm", 300)
        before = process.memory_info().rss
        await batch("more", 900)
        assert process.memory_info().rss - before < 6_000_000
        await true(lambda: True)


async def test_a_host_of_another_python_is_refused_and_told_why(sqlite_url: str) -> None:
    """A turn could be replayed on it, and come to something else: it ends, and the feedback log has the Problem."""
    async with running(sqlite_url) as gate:
        peer = Peer(gate)
        peer.say(wire.Hello("h9", os.getpid(), started(os.getpid()), "there", python="2.7"))
        await peer.told("runs Python 2.7")
        told = await gate.until("SELECT data FROM event WHERE type = 'host.refused'", bool)
        found = orjson.loads(told[0][0])
        assert (found["reason"], found["metadata"]["python"], found["metadata"]["wanted"]) == (
            "OTHER_PYTHON", "2.7", PYTHON,
        )  # fmt: skip
        assert await gate.rows("SELECT 1 FROM host WHERE host_id = 'h9'") == []
