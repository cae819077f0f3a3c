"""A whole installation on a machine whose clock is set while it runs; the clock is the one thing that is not real."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.end_to_end.agents import agent
from tests.end_to_end.test_living import ask, until
from tests.stack import Stack

HOUR = 3600.0
CLOCK = """
import time

_machine = time.time


def _moved():
    try:
        with open({path!r}) as file:
            return _machine() + float(file.read())
    except (OSError, ValueError):  # it is being written
        return _machine()


time.time = _moved
"""


@pytest.fixture
def clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that says by how many seconds the clock of every Python process is wrong."""
    path = tmp_path / "moved"
    path.write_text("0")
    (tmp_path / "sitecustomize.py").write_text(CLOCK.format(path=str(path)))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return path


@pytest.fixture
def stack(clock: Path) -> Iterator[Stack]:
    with Stack() as running:
        yield running


def told(stack: Stack) -> list[float]:
    events = stack.call("feedback.read", limit=500, filter={"types": ["clock.moved"]})["events"]
    return [round(it["data"]["by_s"] / HOUR) for it in events]


def goes_on(stack: Stack, name: str, ticks: int) -> None:
    """Timers tick, questions are answered, changes come true."""
    until(lambda: stack.call("agents.inspect", name="ticker")["state"]["ticks"] >= ticks, 30)
    assert stack.apply(agent(name, "Echo"))["outcome"] == "verified"
    assert ask(stack, name, name) == name


def test_a_clock_that_is_set_changes_nothing_but_the_time(stack: Stack, clock: Path) -> None:
    """An hour ahead, then two back: no host is given up, no timer stands still or rushes, and both are told."""
    stack.apply(agent("ticker", "Ticker"))
    goes_on(stack, "before", 2)
    hosts = {it["host_id"] for it in stack.call("hosts.list")["items"]}
    for moved, name in ((HOUR, "ahead"), (-HOUR, "behind")):
        ticked = stack.call("agents.inspect", name="ticker")["state"]["ticks"]
        clock.write_text(str(moved))
        until(lambda name=name: len(told(stack)) == (1 if name == "ahead" else 2), 20)  # type: ignore[misc]
        goes_on(stack, name, ticked + 3)
        assert stack.call("agents.inspect", name="ticker")["state"]["ticks"] < ticked + 200
    assert told(stack) == [1, -2]
    assert hosts <= {it["host_id"] for it in stack.call("hosts.list")["items"]}
    status = stack.call("system.status")
    assert status["ready"]
    assert any("clock was moved by -72" in it for it in status["problems"]), status["problems"]
    moved = [it["text"] for it in status["recent"] if it["type"] == "clock.moved"]
    assert len(moved) == 2
    assert all("clock was moved by" in it for it in moved)
