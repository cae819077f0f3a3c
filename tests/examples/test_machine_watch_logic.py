"""What the agents of the machine watch decide, as plain functions of what they are given."""

import importlib
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

AGENTS = Path(__file__).resolve().parents[2] / "examples" / "machine_watch" / "agents"
MODULES = ("baseline", "reader", "sentinel", "diagnoser")


@pytest.fixture
def agents(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, ModuleType]]:
    """The agents' modules, imported as a host imports them."""
    monkeypatch.syspath_prepend(str(AGENTS))
    yield {name: importlib.import_module(name) for name in MODULES}
    for name in MODULES:
        sys.modules.pop(name, None)


def quiet(count: int, around: float = 10.0) -> list[float]:
    rng = random.Random(7)
    return [around + rng.uniform(-2, 2) for _ in range(count)]


def test_a_baseline_calls_nothing_high_while_it_learns(agents: dict[str, ModuleType]) -> None:
    """The first readings are never high, however wild."""
    baseline = agents["baseline"].Baseline()
    wild = [1.0, 99.0] * agents["baseline"].WARM_UP
    assert not any(baseline.observe(value, 20.0) for value in wild[: agents["baseline"].WARM_UP])


def test_a_baseline_counts_high_readings_in_a_row(agents: dict[str, ModuleType]) -> None:
    """A spike counts up while it lasts, and from nothing again after it."""
    baseline = agents["baseline"].Baseline()
    for value in quiet(20):
        assert baseline.observe(value, 20.0) == 0
    assert [baseline.observe(value, 20.0) for value in (80, 90, 10, 85)] == [1, 2, 0, 1]


def test_a_spike_does_not_move_what_is_usual(agents: dict[str, ModuleType]) -> None:
    """Median and deviation are robust: ten wild readings in sixty change neither by much."""
    baseline = agents["baseline"].Baseline()
    for value in [*quiet(50), *[100.0] * 10]:
        baseline.observe(value, 20.0)
    assert abs(baseline.usual - 10) < 2
    assert baseline.bound(20.0) < 40


def test_a_lasting_load_becomes_usual(agents: dict[str, ModuleType]) -> None:
    """The window is bounded, so what lasts longer than half of it is the new usual."""
    baseline = agents["baseline"].Baseline()
    for value in [*quiet(60), *quiet(60, around=70.0)]:
        baseline.observe(value, 20.0)
    assert baseline.high == 0
    assert len(baseline.values) == agents["baseline"].WINDOW


def test_a_restless_past_keeps_the_bound_within_reach(agents: dict[str, ModuleType]) -> None:
    """A percentage's bound stays below its ceiling, unless the usual itself is near it."""
    baseline = agents["baseline"].Baseline()
    for value in [10.0, 90.0] * 20:
        baseline.observe(value, 20.0, 90.0)
    assert baseline.bound(20.0) > 100
    assert baseline.bound(20.0, 90.0) == 90.0


def test_the_sentinel_finds_what_is_sustained(agents: dict[str, ModuleType]) -> None:
    """One high reading is no finding; the second in a row is, with value and usual."""
    sentinel = agents["sentinel"]
    state = sentinel.SentinelState()
    for value in quiet(12):
        assert sentinel.observe(state, {"cpu_percent": value, "memory_percent": 40.0}) == []
    assert sentinel.observe(state, {"cpu_percent": 99.0, "memory_percent": 40.0}) == []
    (finding,) = sentinel.observe(state, {"cpu_percent": 98.0, "memory_percent": 40.0})
    assert (finding.measure, finding.value) == ("cpu_percent", 98.0)
    assert finding.usual < 13


def test_the_most_striking_finding_comes_first(agents: dict[str, ModuleType]) -> None:
    """Findings are ordered by how far they lie above their usual, in the measure's own floor."""
    sentinel = agents["sentinel"]
    state = sentinel.SentinelState()
    for _ in range(12):
        sentinel.observe(state, {"cpu_percent": 5.0, "memory_percent": 40.0})
    for _ in range(2):
        findings = sentinel.observe(state, {"cpu_percent": 50.0, "memory_percent": 80.0})
    assert [finding.measure for finding in findings] == ["memory_percent", "cpu_percent"]


def test_what_is_no_reading_is_a_question(agents: dict[str, ModuleType]) -> None:
    """Data without measures asks the sentinel what it holds for usual."""
    sentinel = agents["sentinel"]
    assert sentinel.measures_of("hello") == {}
    assert sentinel.measures_of({"measures": {"cpu_percent": 1.0}}) == {"cpu_percent": 1.0}
    assert sentinel.usual(sentinel.SentinelState())["learning"] is True


def process(pid: int, cpu_s: float, rss: int = 10_000_000, started_at: float = 1.0) -> dict[str, Any]:
    return {
        "pid": pid,
        "name": f"p{pid}",
        "cmdline": ["python", f"p{pid}.py"],
        "cpu_s": cpu_s,
        "rss_bytes": rss,
        "started_at": started_at,
    }


def test_the_diagnoser_names_what_is_busy_now(agents: dict[str, ModuleType]) -> None:
    """What used CPU between the looks is named, busiest first; a long life of use before is not."""
    behind = agents["diagnoser"].behind
    first = [process(1, 5000.0), process(2, 1.0), process(3, 1.0)]
    second = [process(1, 5000.0), process(2, 1.4), process(3, 2.0)]
    named = behind([], first, second, 1.0)
    assert [(p["pid"], p["cpu_percent"]) for p in named] == [(3, 100.0), (2, 40.0)]


def test_many_small_processes_of_one_command_count_as_one(agents: dict[str, ModuleType]) -> None:
    """A herd is named as such, with its pids, ahead of a single process that used less than all of it."""
    diagnoser = agents["diagnoser"]
    herd = [{**process(pid, 0.1), "name": "herd", "cmdline": "herd.py"} for pid in range(10, 20)]
    named = diagnoser.behind([], [], [*herd, process(1, 0.5)], 1.0)
    assert [(p["name"], p["count"], p["cpu_percent"]) for p in named] == [("herd", 10, 100.0), ("p1", 1, 50.0)]
    assert set(named[0]["pids"]) == set(range(10, 20))
    assert "10 times herd (pids 10, 11, 12, …) with 100 % of a core" in diagnoser.in_words([], named)


def test_a_reused_pid_is_another_process(agents: dict[str, ModuleType]) -> None:
    """A process is known by pid and start; a new one under an old pid starts from nothing."""
    named = agents["diagnoser"].behind([], [process(1, 50.0)], [process(1, 0.5, started_at=2.0)], 1.0)
    assert [(p["pid"], p["cpu_percent"]) for p in named] == [(1, 50.0)]


def test_memory_is_traced_to_what_grew(agents: dict[str, ModuleType]) -> None:
    """When memory is unusual, what grew between the looks comes first, then what is largest."""
    findings = [{"measure": "memory_percent", "value": 90.0, "usual": 40.0}]
    first = [process(1, 0.0, rss=9_000_000), process(2, 0.0, rss=1_000_000)]
    second = [process(1, 0.0, rss=9_000_000), process(2, 0.0, rss=5_000_000)]
    assert [p["pid"] for p in agents["diagnoser"].behind(findings, first, second, 1.0)] == [2, 1]


def test_a_report_reads_as_words(agents: dict[str, ModuleType]) -> None:
    """The text says what is unusual, what is usual, and which processes, by pid and command."""
    diagnoser = agents["diagnoser"]
    findings = [{"measure": "cpu_percent", "value": 97.2, "usual": 12.1}]
    text = diagnoser.in_words(findings, diagnoser.behind(findings, [process(7, 0.0)], [process(7, 0.99)], 1.0))
    assert text == "CPU use is 97 %, usually 12 %. Behind it: p7 (pid 7) with 99 % of a core, 10 MB: python p7.py."


def test_each_measure_has_its_unit(agents: dict[str, ModuleType]) -> None:
    """Percentages, rates, and plain numbers read as such."""
    words = agents["diagnoser"].in_words
    findings = [
        {"measure": "disk_bytes_per_s", "value": 2e8, "usual": 1e6},
        {"measure": "tasks_running", "value": 18.0, "usual": 2.0},
    ]
    assert words(findings, []) == (
        "Disk traffic is 200.0 MB/s, usually 1.0 MB/s; "
        "the number of tasks that run or wait for a core is 18, usually 2."
        " No process stands out now."
    )


def test_long_command_lines_are_shortened(agents: dict[str, ModuleType]) -> None:
    """A command line is one short text."""
    assert len(agents["diagnoser"].shorten(["x" * 1000])) == agents["diagnoser"].COMMAND_CHARS
