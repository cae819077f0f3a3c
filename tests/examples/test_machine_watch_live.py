"""The machine watch on the machine that the test runs on: real load makes it speak, and it names the load."""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from controlplane.cli.manifests import load
from tests.stack import Stack

MANIFESTS = Path(__file__).resolve().parents[2] / "examples" / "machine_watch" / "manifests.yaml"
INTERVAL_S = 0.5
LEARNED = 32  # readings: what starting took is then the lesser part of them
BURN_S_MAX = 20
BURNERS_A_CORE = 8
SPEAK_S_MAX = 60
LOAD = ("cpu_percent", "busiest_core_percent", "tasks_running")
BURNER = "import time\nend = time.monotonic() + {seconds}\nwhile time.monotonic() < end: pass  # steward-test-burner\n"


def manifests() -> list[dict[str, Any]]:
    """The example as it is, with shorter intervals."""
    found = load([MANIFESTS])
    for manifest in found:
        if manifest["metadata"]["name"] == "reader":
            manifest["spec"]["config"]["interval_s"] = INTERVAL_S
        if manifest["metadata"]["name"] == "sentinel":
            manifest["spec"]["config"]["cooldown_s"] = 5
    return found


@contextmanager
def burners() -> Iterator[set[int]]:
    """Busy loops, which end by themselves: enough to stand out on a machine that is busy already; the pids."""
    command = [sys.executable, "-c", BURNER.format(seconds=BURN_S_MAX)]
    started = [subprocess.Popen(command) for _ in range(BURNERS_A_CORE * (psutil.cpu_count() or 1))]
    try:
        yield {process.pid for process in started}
    finally:
        for process in started:
            process.kill()
            process.wait()


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    with Stack() as running:
        yield running


def sentinel(stack: Stack) -> dict[str, Any]:
    answer: dict[str, Any] = stack.call("agents.ask", name="sentinel", data="what is usual?", timeout_s=30)
    assert answer["answered"], answer
    reply: dict[str, Any] = answer["reply"]
    return reply


def wait_learned(stack: Stack) -> dict[str, Any]:
    limit = time.monotonic() + SPEAK_S_MAX
    while (seen := sentinel(stack))["readings"] < LEARNED:
        assert time.monotonic() < limit, f"{seen}\n{stack.output()}"
        time.sleep(0.2)
    return seen


def report_of(stack: Stack, pids: set[int]) -> dict[str, Any]:
    """The first report from now on that names one of the pids."""
    cursor = stack.call("channels.read", name="reports", limit=500)["cursor"]
    limit = time.monotonic() + SPEAK_S_MAX
    seen: list[Any] = []
    while time.monotonic() < limit:
        read = stack.call("channels.read", name="reports", after=cursor, wait_s=5)
        cursor = read["cursor"]
        seen += [envelope["data"] for envelope in read["envelopes"]]
        for report in seen:
            if any(pids & set(process["pids"]) for process in report["processes"]):
                return dict(report)
    raise AssertionError(f"no report names {pids}: {seen}\n{sentinel(stack)}\n{stack.output()}")


def test_real_load_makes_it_speak_and_the_report_names_the_load(stack: Stack) -> None:
    """Busy loops are found unusual; the report names a pid of theirs, its command, what it used."""
    change = stack.apply(*manifests())
    assert change["outcome"] == "verified", change
    wait_learned(stack)
    with burners() as pids:
        report = report_of(stack, pids)
    named = next(process for process in report["processes"] if process["pid"] in pids)
    assert str(named["pid"]) in report["text"]
    assert named["cpu_percent"] >= 5
    assert "end = time.monotonic()" in named["cmdline"]
    assert any(finding["measure"] in LOAD for finding in report["findings"])


def test_the_readings_are_this_machines(stack: Stack) -> None:
    """What is published is what the kernel of this machine says, within the noise of a moment."""
    read = stack.call("channels.read", name="readings", limit=500)
    measures = read["envelopes"][-1]["data"]["measures"]
    assert abs(measures["memory_percent"] - psutil.virtual_memory().percent) < 20
    assert 0 <= measures["cpu_percent"] <= 100


def test_every_reading_stands_in_the_journal(stack: Stack) -> None:
    """A turn of the reader shows its four effects, each allowed by its grant, with the receipt."""
    listed = stack.call("turns.list", name="reader", limit=20)["items"]
    done = next(turn for turn in listed if turn["outcome"] == "committed" and turn["trigger"] == "timer")
    journal = stack.call("turns.get", turn_id=done["turn_id"])["journal"]
    effects = [entry for entry in journal if entry["kind"] == "effect"]
    assert [entry["body"]["arguments"]["what"] for entry in effects] == ["cpu", "memory", "disks", "network"]
    assert {entry["verdict"]["outcome"] for entry in effects} == {"allow"}
    assert {entry["outcome"] for entry in effects} == {"succeeded"}
    assert [entry["kind"] for entry in journal][-1] == "publish"
