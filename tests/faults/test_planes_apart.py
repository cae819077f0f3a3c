"""One plane on a folder, one installation on a database; whoever comes second is told, and harms nothing."""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import psutil
import pytest

from controlplane.store.claims import PlaneClaim
from controlplane.store.committer import Committer
from controlplane.supervision.processes import Record, known
from schemas.problem import Refusal
from tests.conftest import SOAK
from tests.postgres import Postgres
from tests.stack import STEWARD, Stack

AT_ONCE = 4 if SOAK else 3


def second(stack: Stack, data: Path, *more: str) -> subprocess.Popen[str]:
    """Another `up`, which is to be refused."""
    return subprocess.Popen(
        [str(STEWARD), "up", "--data", str(data), "--port", "0", *more],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=stack.env(), cwd=stack.folder,
    )  # fmt: skip


def refused(process: subprocess.Popen[str], reason: str) -> str:
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 1, out
    assert reason in out
    return out


def until(condition: Any, limit_s: float = 60) -> None:
    limit = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < limit
        time.sleep(0.05)


def gate_pid(data: Path) -> int:
    found = Record(data).find("gate")
    assert found is not None
    return found.pid


@pytest.fixture(scope="module")
def on_postgresql(postgres: Postgres) -> Iterator[Stack]:
    url = postgres.lend()
    with Stack(url) as running:
        yield running
    postgres.give_back(url)


def test_a_folder_in_use_and_its_copy(on_postgresql: Stack) -> None:
    """Running, stopped by SIGSTOP, asked by some at once: DATA_LOCKED; `down` on a copy of the folder ends nothing."""
    stack = on_postgresql
    gate = gate_pid(stack.data)
    plane_json = (stack.data / "plane.json").read_bytes()
    for process in [second(stack, stack.data) for _ in range(AT_ONCE)]:
        refused(process, "DATA_LOCKED")
    os.kill(stack.pid, signal.SIGSTOP)
    try:
        assert str(stack.pid) in refused(second(stack, stack.data), "DATA_LOCKED")
    finally:
        os.kill(stack.pid, signal.SIGCONT)
    assert (stack.data / "plane.json").read_bytes() == plane_json
    assert gate_pid(stack.data) == gate
    copy = stack.folder / "copy"
    shutil.copytree(stack.data, copy, ignore=shutil.ignore_patterns("logs"))
    ended = subprocess.run(
        [str(STEWARD), "down", "--data", str(copy)], capture_output=True, text=True, timeout=60, check=True,
        env=stack.env(), cwd=stack.folder,
    )  # fmt: skip
    assert "nothing runs" in ended.stdout, ended.stdout
    assert psutil.Process(gate).is_running()
    assert stack.call("system.status")["ready"]


def test_of_many_that_start_at_once_one_runs() -> None:
    """Some `up` in the same moment, among files of a long gone plane: one is ready, the others are refused."""
    stack = Stack()
    try:
        stack.data.mkdir(mode=0o700)
        stranger = known("gate", os.getpid())
        stale = {"name": "gate", "pid": os.getpid(), "started": stranger.started - 100, "mark": "", "of": "elsewhere"}
        (stack.data / "processes.json").write_bytes(orjson.dumps([stale]))
        (stack.data / "plane.json").write_bytes(orjson.dumps({"url": "http://127.0.0.1:1", "pid": os.getpid()}))
        (stack.data / "plane.lock").write_text(str(os.getpid()))
        started = [second(stack, stack.data) for _ in range(AT_ONCE)]
        until(lambda: sum(it.poll() is not None for it in started) == AT_ONCE - 1)
        (winner,) = [it for it in started if it.poll() is None]
        for process in started:
            if process is not winner:
                refused(process, "DATA_LOCKED")
        until(lambda: orjson.loads((stack.data / "plane.json").read_bytes())["pid"] == winner.pid)
        winner.send_signal(signal.SIGTERM)
        out, _ = winner.communicate(timeout=60)
        assert winner.returncode == 0, out
        assert stack.leftovers() == []
    finally:
        stack.close()


def test_two_installations_on_one_database(on_postgresql: Stack) -> None:
    """The second is told whose database it is, also when only the gate of a killed plane is left of the first."""
    stack, url = on_postgresql, on_postgresql.database_url
    assert url is not None
    other = stack.folder / "other"
    installation = (stack.data / "installation").read_text()
    refused(second(stack, other, "--database-url", url), "DATABASE_LOCKED")
    stack.kill()
    out = refused(second(stack, other, "--database-url", url), "DATABASE_LOCKED")
    assert installation in out
    stack.up()
    assert stack.call("system.status")["ready"]
    stack.stop()
    assert stack.leftovers() == []
    freed = PlaneClaim(url, "another")
    freed.release()


def test_only_the_holder_of_the_claim_writes(database_url: str) -> None:
    """A second gate's writer does not even open; once the first has ended it does. A claim goes with its holder."""
    first = Committer(database_url, sole="one")
    first.start()
    with pytest.raises(Refusal) as second_gate:
        Committer(database_url, sole="two")
    assert second_gate.value.problem.reason == "DATABASE_LOCKED"
    assert second_gate.value.problem.metadata == {"role": "gate", "holder": "one"}
    with pytest.raises(Refusal) as plane:
        PlaneClaim(database_url, "two")
    assert plane.value.problem.metadata == {"role": "gate", "holder": "one"}
    PlaneClaim(database_url, "one").release()
    first.stop()
    again = Committer(database_url, sole="two")
    again.start()
    again.stop()
