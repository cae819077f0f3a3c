"""What people see at a terminal: tables, a question before a commit, the live view."""

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from controlplane.resources.problems import problem
from tests.cli import answers
from tests.cli.standin import StandIn

ROOT = Path(__file__).parents[2]


class Terminal:
    """A command at a terminal of 40 rows and 120 columns."""

    def __init__(self, folder: Path, *words: str) -> None:
        self._ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
        self.process = subprocess.Popen(
            [sys.executable, "-m", "controlplane.cli.main", *words],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm-256color"},
        )
        os.close(theirs)
        self.seen = ""

    def until(self, text: str) -> None:
        """Read until the text was shown."""
        self._read(lambda: text in self.seen)
        assert text in self.seen, self.seen

    def type(self, text: str) -> None:
        os.write(self._ours, text.encode())

    def end(self) -> int:
        """Read to the end, and answer the exit code."""
        self._read(lambda: False)
        return self.process.wait(10)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self._ours)

    def _read(self, enough: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 15
        while time.monotonic() < deadline and not enough():
            if select.select([self._ours], [], [], 0.05)[0]:
                try:
                    self.seen += os.read(self._ours, 65536).decode(errors="replace")
                except OSError:  # the far side closed
                    return
            elif self.process.poll() is not None:
                return


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "m.yaml").write_text("kind: Channel\nmetadata: {name: reports}\n")
    return tmp_path


@pytest.mark.parametrize(("answer", "commits", "code"), [("y\n", 1, 0), ("n\n", 0, 1), ("\n", 0, 1)])
def test_a_person_is_asked_before_a_commit(answer: str, commits: int, code: int, folder: Path, plane: StandIn) -> None:
    """The plan is shown, then the question; only a yes commits."""
    plane.answers.update(
        {"resources.propose": answers.plan(), "plans.commit": answers.committed(), "changes.wait": answers.change()}
    )
    terminal = Terminal(folder, "apply", "-f", "m.yaml", "--url", plane.url)
    try:
        terminal.until("Commit this plan?")
        assert "condition.Ready" in terminal.seen
        terminal.type(answer)
        assert terminal.end() == code
        assert len(plane.inputs("plans.commit")) == commits
    finally:
        terminal.close()


def test_a_problem_is_a_red_panel(folder: Path, plane: StandIn) -> None:
    """With its reason, and text that can not play tricks."""
    plane.answers["agents.get"] = problem("NOT_FOUND", "no agent \x1b[2J[bold]x[/bold]", field="/name")
    terminal = Terminal(folder, "agents", "get", "x", "--url", plane.url)
    try:
        assert terminal.end() == 1
        assert "\x1b[31m╭" in terminal.seen
        assert "NOT_FOUND" in terminal.seen
        assert "\\u001b[2J[bold]x[/bold]" in terminal.seen
    finally:
        terminal.close()


def test_the_live_view_draws_everything_until_ctrl_c(folder: Path, plane: StandIn) -> None:
    """Agents and their conditions, open changes, reports, feedback, and the way in for an LLM."""
    report = {"time": answers.AT, "source": "/default/agents/diagnoser", "data": {"text": "CPU is 98 %[red]"}}
    plane.answers.update(
        {
            "system.status": answers.status(),
            "agents.list": {"items": [answers.agent("reader"), answers.agent("bad", ready="false")], "next_page": None},
            "changes.list": {"items": [answers.change("open", done=False)], "next_page": None},
            "feedback.read": {"events": [answers.event("1")], "cursor": "1"},
            "channels.read": {"envelopes": [report], "cursor": "1"},
        }
    )
    terminal = Terminal(folder, "top", "--every-s", "0.2", "--url", plane.url)
    try:
        terminal.until("steward feedback --follow")
        for said in ("default/reader", "Ready, suspended", "not Ready: HANDLER_ERROR", "chg_1", "CPU is 98 %[red]"):
            terminal.until(said)
        for said in ("resource.created", f"{plane.url}/mcp", "admin.token", "steward mcp-config"):
            terminal.until(said)
        terminal.process.send_signal(signal.SIGINT)
        assert terminal.end() == 0
    finally:
        terminal.close()
