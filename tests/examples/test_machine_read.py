"""`machine.read` on the machine that the test runs on, and the diagnoser on what it really answers."""

import asyncio
import importlib
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from pydantic import ValidationError

from controlplane.protocols.machine import MachineEffector
from ray_runtime.testing import run_turn
from schemas.machine import MachineRead
from schemas.ports import Effector

AGENTS = Path(__file__).resolve().parents[2] / "examples" / "machine_watch" / "agents"
BURNER = "import time\nend = time.monotonic() + 15\nwhile time.monotonic() < end: pass"


@pytest.fixture
def burner() -> Iterator[int]:
    """A process that keeps one core busy, for 15 s at most; its pid."""
    process = subprocess.Popen([sys.executable, "-c", BURNER])
    yield process.pid
    process.kill()
    process.wait()


def read(effector: Effector, what: str, **rest: Any) -> Any:
    asked = MachineRead.model_validate({"what": what, **rest})
    return asyncio.run(effector.execute(asked, "turn_1:0:1"))


def test_levels_are_those_of_this_machine() -> None:
    """Memory, cores and the root disk are what the kernel says."""
    effector = MachineEffector()
    assert read(effector, "memory")["total_bytes"] == psutil.virtual_memory().total
    assert read(effector, "cpu")["cores"] == psutil.cpu_count()
    assert "/" in [mount["mount"] for mount in read(effector, "disks")["mounts"]]


def test_counters_grow(burner: int) -> None:
    """Between two readings a busy machine used CPU, and the percentage says so."""
    effector = MachineEffector()
    first = read(effector, "cpu")
    time.sleep(0.5)
    second = read(effector, "cpu")
    assert second["busy_s"] > first["busy_s"]
    assert 0 < second["cpu_percent"] <= 100
    assert second["running"] >= 1
    assert read(effector, "network")["received_bytes"] >= 0


def test_the_busiest_process_comes_first(burner: int) -> None:
    """Processes are ordered by what they used since the look before; `limit` cuts the quiet ones."""
    effector = MachineEffector()
    read(effector, "processes")
    time.sleep(1)
    answer = read(effector, "processes", limit=10)
    assert len(answer["processes"]) == min(10, answer["count"])
    assert burner in [process["pid"] for process in answer["processes"]]


@pytest.mark.parametrize("arguments", [{}, {"what": "secrets"}, {"what": "cpu", "x": 1}, {"what": "cpu", "limit": 0}])
def test_other_arguments_are_refused(arguments: dict[str, Any]) -> None:
    """Only what is declared can be read."""
    with pytest.raises(ValidationError):
        MachineRead.model_validate(arguments)


def test_the_diagnoser_names_a_real_load(burner: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """On real readings, a second apart, the report names the pid and the command."""
    monkeypatch.syspath_prepend(str(AGENTS))
    diagnoser = importlib.import_module("diagnoser")
    effector = MachineEffector()
    question = {"findings": [{"measure": "cpu_percent", "value": 95.0, "usual": 10.0}]}
    answers = {
        "machine.read": lambda asked: read(effector, asked["what"]),
        "sleep": lambda asked: time.sleep(1),
    }
    report = run_turn(diagnoser.Diagnoser, question, answers=answers).reply
    sys.modules.pop("diagnoser")
    named = next(process for process in report["processes"] if burner in process["pids"])
    assert "time.monotonic()" in named["cmdline"]
    assert str(burner) in report["text"]
