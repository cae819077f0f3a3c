"""A gate that dies is replaced by one that has imported what it needs; nobody who waits outlives whoever keeps it."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from controlplane.settings import Settings
from controlplane.supervision import spares
from controlplane.supervision.children import Child
from controlplane.supervision.processes import Record
from controlplane.wiring import child_env

COMMAND = [sys.executable, "-m", "controlplane.wiring", "gate"]


@pytest.fixture
def settings(tmp_path: Path) -> Iterator[Settings]:
    found = Settings(data=tmp_path / "data")
    (found.folder / "logs").mkdir(parents=True)
    yield found
    shutil.rmtree(found.runtime_folder, ignore_errors=True)


def _until(condition: Callable[[], object], timeout_s: float = 30) -> None:
    limit = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < limit, "it did not come true"
        time.sleep(0.02)


def _spares(parent: int) -> list[int]:
    """The pids of spares among a process's children."""
    children = psutil.Process(parent).children()
    return [it.pid for it in children if it.status() != psutil.STATUS_ZOMBIE and it.cmdline()[-1:] == ["--spare"]]


def test_the_spare_takes_the_place_of_a_gate_that_died(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spares, "AFTER_S", 0.1)
    logs = settings.folder / "logs"
    child = Child("gate", COMMAND, child_env(settings), Record(settings.folder), logs, "m", spare=True)
    try:
        assert child.ensure()
        _until(lambda: settings.gate_socket.exists())
        _until(lambda: child.ensure() or _spares(os.getpid()))
        (spare,) = _spares(os.getpid())
        assert child.process is not None
        os.kill(child.process.pid, signal.SIGKILL)
        child.watch(10)
        settings.gate_socket.unlink()
        assert child.ensure()
        assert child.process.pid == spare
        _until(lambda: settings.gate_socket.exists())
        assert child.alive()
        child.ensure()
        _until(lambda: child.ensure() or _spares(os.getpid()))
    finally:
        child.stop(5)
    assert _spares(os.getpid()) == []
    assert not child.alive()


def test_a_spare_ends_with_whoever_keeps_it(settings: Settings) -> None:
    """kill -9 of its keeper: its standard input ends, and it never begins."""
    keeper = "; ".join([
        "import os, sys, time", "from pathlib import Path", "from controlplane.supervision import spares",
        "spares.AFTER_S = 0", f"it = spares.Spare({COMMAND!r}, os.environ, Path(sys.argv[1]))", "it.keep(0)",
        "print('kept', flush=True)", "time.sleep(60)",
    ])  # fmt: skip
    process = subprocess.Popen(
        [sys.executable, "-c", keeper, str(settings.folder / "logs" / "gate.out")],
        env=dict(child_env(settings)), stdout=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == b"kept\n"
    (spare,) = [it.pid for it in psutil.Process(process.pid).children()]
    process.kill()
    process.wait(10)
    process.stdout.close()
    _until(lambda: not psutil.pid_exists(spare) or psutil.Process(spare).status() == psutil.STATUS_ZOMBIE)
    assert not settings.gate_socket.exists()
