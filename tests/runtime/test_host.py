"""A real host process, over a real unix socket, against our own protocol peer."""

import asyncio
import os
import signal
import sys
import tempfile
import textwrap
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import orjson
import psutil
import pytest

from ray_runtime.host import RETRY_FIRST_S, RETRY_MOST_S
from schemas.frames import Frame
from schemas.processes import is_it
from schemas.wire import (
    Ask,
    Bye,
    CodeWanted,
    Commit,
    Evict,
    Failed,
    Hello,
    Lease,
    LeaseHello,
    Park,
    Receipt,
    Released,
    Resolved,
    Specialise,
)
from tests.runtime.scripted import envelope, problem_of
from tests.runtime.socket_gate import Peer, SocketGate

pytestmark = pytest.mark.anyio
HELLOS = 10

ECHO = textwrap.dedent(
    """
    from pydantic import BaseModel
    from ray_runtime import Agent, Envelope, Turn
    from words import WORD


    class Count(BaseModel):
        n: int = 0


    class Echo(Agent):
        state: Count

        async def on_message(self, turn: Turn, envelope: Envelope):
            self.state.n += 1
            what = envelope.data
            if what == "perform":
                return await turn.perform("machine.read", what="cpu")
            if what == "sleep":
                await turn.sleep(60)
                return "slept"
            if what == "spin":
                while True:
                    pass
            if what == "raise":
                raise ValueError("no")
            if what == "set":
                return list({"a", "b", "c", "d", "e"})
            return [WORD, self.state.n]


    class NotAnAgent:
        pass
    """
)
FILES = {"echo.py": ECHO, "words.py": 'WORD = "echo"\n', "broken.py": "import words\nx = = 1\n",
         "raising.py": "import words\n\nraise RuntimeError('at import')\n"}  # fmt: skip


@pytest.fixture
def folder() -> Iterator[Path]:
    """A short private folder for the socket."""
    with tempfile.TemporaryDirectory(prefix="st-") as made:
        yield Path(made)


@asynccontextmanager
async def host(gate: SocketGate, *, gone_s: float = 30) -> AsyncIterator[asyncio.subprocess.Process]:
    """A host process, ended by its id."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "ray_runtime.host", "--socket", str(gate.path), "--host-id", "h1",
        "--gone-s", str(gone_s),
    )  # fmt: skip
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        await gate.stop()


async def specialised(gate: SocketGate) -> Peer:
    """Wait for the host's hello, and give it its namespace and code."""
    peer, _ = await gate.next_from(Hello)
    peer.send(Specialise("default", gate.digest))
    return peer


async def test_a_host_says_hello_fetches_its_code_and_runs_turns(folder: Path) -> None:
    """The state stays in the host between turns: the second Run carries none."""
    gate = SocketGate(folder / "gate.sock", FILES)
    await gate.start()
    async with host(gate) as process:
        peer, hello = await gate.next_from(Hello)
        assert (hello.host_id, hello.pid, hello.namespace) == ("h1", process.pid, "")
        assert is_it(process.pid, hello.pid_started)
        peer.send(Specialise("default", gate.digest))
        peer.send(gate.run_frame("x"))
        peer.send(gate.run_frame("x", agent="uid_2", turn_id="turn_9"))
        first = await gate.next(Commit)
        assert orjson.loads(first.reply) == ["echo", 1]
        await gate.next(Commit)
        peer.send(gate.run_frame("x", version=1, turn_id="turn_2"))
        second = await gate.next(Commit)
        assert orjson.loads(second.reply) == ["echo", 2]
        assert second.version == 1


async def test_a_host_that_is_let_go_at_once_pauses_before_it_comes_again(folder: Path) -> None:
    """As where nobody listens: a gate that does not want it yet is not asked without end."""
    came: list[float] = []
    enough = asyncio.Event()

    class Unwilling(SocketGate):
        def took(self, peer: Peer, frame: Frame) -> None:
            peer.close()
            if isinstance(frame, Hello):
                came.append(time.monotonic())
            if len(came) == HELLOS:
                enough.set()

    gate = Unwilling(folder / "gate.sock", FILES)
    await gate.start()
    async with host(gate):
        await asyncio.wait_for(enough.wait(), 30)
    pauses = [min(RETRY_FIRST_S * 2**n, RETRY_MOST_S) for n in range(HELLOS - 1)]
    assert came[HELLOS - 1] - came[0] >= 0.9 * sum(pauses)


async def test_effects_and_awaits_go_over_the_socket(folder: Path) -> None:
    """Ask and receipt, park and resume in place, evict and release."""
    gate = SocketGate(folder / "gate.sock", FILES)
    await gate.start()
    async with host(gate):
        peer = await specialised(gate)
        peer.send(gate.run_frame("perform"))
        asked = await gate.next(Ask)
        assert (asked.effect, orjson.loads(asked.arguments)) == ("machine.read", {"what": "cpu"})
        peer.send(Receipt("turn_1", "0", asked.position, "succeeded", b'{"cpu":1}', time.time()))
        assert (await gate.next(Commit)).reply == b'{"cpu":1}'
        peer.send(gate.run_frame("sleep", version=1, turn_id="turn_2"))
        await gate.next(Park)
        peer.send(Resolved("turn_2", "0", 0, "slept", b"null", time.time()))
        assert (await gate.next(Commit)).reply == b'"slept"'
        peer.send(gate.run_frame("sleep", version=2, turn_id="turn_3"))
        await gate.next(Park)
        peer.send(Evict("uid_1", 1, abort=False))
        assert await gate.next(Released) == Released("uid_1", 1)
        peer.send(Resolved("turn_3", "0", 0, "slept", b"null", time.time()))
        peer.send(gate.run_frame("x", version=3, turn_id="turn_4", state=b'{"n":7}', epoch=2))
        assert orjson.loads((await gate.next(Commit)).reply) == ["echo", 8], "the parked turn was forgotten"


async def test_an_agent_in_an_effect_leaves_when_the_turn_is_over_or_at_once_when_aborted(folder: Path) -> None:
    """Evict waits for a running turn unless it aborts it."""
    gate = SocketGate(folder / "gate.sock", FILES)
    await gate.start()
    async with host(gate):
        peer = await specialised(gate)
        peer.send(gate.run_frame("perform"))
        await gate.next(Ask)
        peer.send(Evict("uid_1", 1, abort=False))
        peer.send(Receipt("turn_1", "0", 0, "succeeded", b"1", time.time()))
        await gate.next(Commit)
        await gate.next(Released)
        peer.send(gate.run_frame("perform", turn_id="turn_2", epoch=2, version=1, state=b'{"n":1}'))
        await gate.next(Ask)
        peer.send(Evict("uid_1", 2, abort=True))
        assert await gate.next(Released) == Released("uid_1", 2)
        peer.send(Receipt("turn_2", "0", 0, "succeeded", b"1", time.time()))
        peer.send(gate.run_frame("x", agent="uid_2", turn_id="turn_8"))
        assert (await gate.next(Commit)).turn_id == "turn_8", "the aborted turn sends nothing"


@pytest.mark.parametrize(
    ("entrypoint", "says"),
    [
        ("broken:Echo", "broken.py:2"),
        ("raising:Echo", "raising.py:3"),
        ("missing:Echo", "No module named"),
        ("echo:Nobody", "is not in echo"),
        ("echo:NotAnAgent", "no subclass of Agent"),
        ("json:JSONDecoder", "is installed here"),
    ],
)
async def test_code_that_can_not_be_used_says_why(folder: Path, entrypoint: str, says: str) -> None:
    """INVALID_CODE with file and line, without retry, and the host lives on."""
    gate = SocketGate(folder / "gate.sock", FILES)
    await gate.start()
    async with host(gate):
        peer = await specialised(gate)
        peer.send(gate.run_frame(entrypoint=entrypoint))
        end = await gate.next(Failed)
        assert problem_of(end)["reason"] == "INVALID_CODE"
        assert says in problem_of(end)["detail"]
        assert str(folder) not in end.problem.decode()
        assert end.retry is False
        peer.send(gate.run_frame("x", turn_id="turn_2"))
        await gate.next(Commit)


@pytest.mark.parametrize("files", [{"schemas/__init__.py": ""}, {"json.py": ""}, {"ray_runtime.py": ""}])
async def test_a_package_that_hides_a_module_is_refused(folder: Path, files: dict[str, str]) -> None:
    """Steward's own names and the standard library's are taken."""
    gate = SocketGate(folder / "gate.sock", {**FILES, **files})
    await gate.start()
    async with host(gate):
        peer = await specialised(gate)
        peer.send(gate.run_frame())
        assert "would hide" in problem_of(await gate.next(Failed))["detail"]


async def test_code_that_is_not_what_its_digest_says_is_refused(folder: Path) -> None:
    """The host checks what it fetched, and says when there is nothing."""
    gate = SocketGate(folder / "gate.sock", FILES)
    await gate.start()
    true_digest, gate.files = gate.digest, {**FILES, "words.py": 'WORD = "changed"\n'}
    async with host(gate):
        peer, _ = await gate.next_from(Hello)
        peer.send(Specialise("default", true_digest))
        peer.send(gate.run_frame())
        assert "has the digest" in problem_of(await gate.next(Failed))["detail"]


async def test_code_that_does_not_exist_is_said_to_be_missing(folder: Path) -> None:
    """CODE_NOT_FOUND, not an import error."""
    gate = SocketGate(folder / "gate.sock", FILES)
    await gate.start()
    async with host(gate):
        peer, _ = await gate.next_from(Hello)
        peer.send(Specialise("default", "sha256:" + "0" * 64))
        await gate.next(CodeWanted)
        peer.send(gate.run_frame())
        assert problem_of(await gate.next(Failed))["reason"] == "CODE_NOT_FOUND"


async def test_a_handler_error_names_the_users_file_and_line(folder: Path) -> None:
    """With paths as they are in the package."""
    gate = SocketGate(folder / "gate.sock", FILES)
    await gate.start()
    async with host(gate):
        peer = await specialised(gate)
        peer.send(gate.run_frame("raise"))
        end = await gate.next(Failed)
        assert end.retry
        assert "echo.py:" in problem_of(end)["detail"]
        assert str(folder) not in end.problem.decode()


async def test_a_lost_gate_leaves_a_clean_slate(folder: Path) -> None:
    """The host says hello again with its code and nothing else; an old receipt moves nothing."""
    gate = SocketGate(folder / "gate.sock", FILES)
    await gate.start()
    async with host(gate):
        peer = await specialised(gate)
        peer.send(gate.run_frame("perform"))
        await gate.next(Ask)
        await gate.stop()
        await gate.start()
        peer, hello = await gate.next_from(Hello)
        assert (hello.namespace, hello.digest) == ("default", gate.digest)
        peer.send(Receipt("turn_1", "0", 0, "succeeded", b"1", time.time()))
        peer.send(gate.run_frame("x", version=1, turn_id="turn_2"))
        assert "does not hold version" in problem_of(await gate.next(Failed))["detail"]
        peer.send(gate.run_frame("x", version=1, turn_id="turn_2", state=b'{"n":4}'))
        assert orjson.loads((await gate.next(Commit)).reply) == ["echo", 5]


async def test_the_lease_is_renewed_and_tells_of_a_wedged_loop(folder: Path) -> None:
    """A handler that never comes back shows as lag, and the lease goes on."""
    gate = SocketGate(folder / "gate.sock", FILES)
    await gate.start()
    async with host(gate):
        peer = await specialised(gate)
        await gate.next(LeaseHello)
        calm = await gate.next(Lease)
        assert calm.loop_lag_ms < 500
        peer.send(gate.run_frame("spin"))
        wedged = await gate.next(Lease, where=lambda lease: lease.loop_lag_ms > 700)
        assert wedged.running == 1


async def test_a_host_ends_when_it_is_told_to(folder: Path) -> None:
    """Bye and SIGTERM end it in good order, its folder of code with it."""
    for end in ("bye", "term"):
        gate = SocketGate(folder / "gate.sock", FILES)
        await gate.start()
        async with host(gate) as process:
            peer = await specialised(gate)
            peer.send(gate.run_frame("x"))
            await gate.next(Commit)
            assert (folder / "code" / "h1" / "echo.py").is_file()
            if end == "bye":
                peer.send(Bye("not needed"))
            else:
                process.send_signal(signal.SIGTERM)
            assert await asyncio.wait_for(process.wait(), 5) == 0
            assert not (folder / "code" / "h1").exists()


@pytest.mark.parametrize("wedged", [False, True])
async def test_a_host_without_a_gate_ends_itself(folder: Path, wedged: bool) -> None:
    """Even one whose loop never answers again."""
    gate = SocketGate(folder / "gate.sock", FILES)
    await gate.start()
    async with host(gate, gone_s=1.5) as process:
        peer = await specialised(gate)
        peer.send(gate.run_frame("spin" if wedged else "x"))
        await gate.next(Lease)
        await gate.stop()
        await asyncio.wait_for(process.wait(), 10)


async def test_a_host_whose_folder_is_gone_ends_itself(folder: Path) -> None:
    """The installation was removed: nothing of it stays."""
    inner = folder / "run"
    inner.mkdir()
    gate = SocketGate(inner / "gate.sock", FILES)
    await gate.start()
    async with host(gate) as process:
        await gate.next(Hello)
        gate.path.unlink()
        inner.rmdir()
        await asyncio.wait_for(process.wait(), 10)


async def test_sets_iterate_alike_in_every_host(folder: Path) -> None:
    """A replay in another process must not differ by a hash seed."""
    replies = []
    for _ in range(2):
        gate = SocketGate(folder / "gate.sock", FILES)
        await gate.start()
        async with host(gate):
            peer = await specialised(gate)
            peer.send(gate.run_frame("set"))
            replies.append((await gate.next(Commit)).reply)
    assert replies[0] == replies[1]


async def test_a_host_is_small_and_imports_none_of_the_plane(folder: Path) -> None:
    """No Ray, no store, no HTTP in a plain host; under 64 MB."""
    probe = "import sys, ray_runtime.host; print(sorted({m.split('.')[0] for m in sys.modules}))"
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", probe, stdout=asyncio.subprocess.PIPE)
    out, _ = await process.communicate()
    for name in ("'ray'", "'controlplane'", "'sqlalchemy'", "'fastapi'", "'httpx'"):
        assert name not in out.decode()
    gate = SocketGate(folder / "gate.sock", FILES)
    await gate.start()
    async with host(gate) as running:
        peer = await specialised(gate)
        peer.send(gate.run_frame("x", message=envelope("x")))
        await gate.next(Commit)
        assert psutil.Process(running.pid).memory_info().rss < 64 * 1024 * 1024
        assert os.getpid() != running.pid
