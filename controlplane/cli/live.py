"""The live view: what `make run` shows, and `steward top`. A client like any other, over HTTP.

It looks every second or so, and draws what it saw. Where there is no terminal it writes a line for
each thing that happened, once. It never fails its plane: while nothing answers, it says so and
looks again.
"""

import sys
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.live import Live

from controlplane.cli.client import Plane
from controlplane.cli.connection import Target
from controlplane.cli.liveview import draw
from controlplane.cli.printing import clean
from controlplane.cli.shapes import conditions, event_line, report_line
from schemas.problem import Refusal

REPORTS = {"namespace": "default", "name": "reports"}
ROUTINE = "turns.summary"  # many, and seen in the agents' turns
KEPT = 200
PAGE = 500


@dataclass
class Seen:
    """What the last look showed, and what was new in it."""

    trouble: str | None = "starting"
    status: dict[str, Any] | None = None
    agents: list[dict[str, Any]] = field(default_factory=list)
    changes: list[dict[str, Any]] = field(default_factory=list)
    events: deque[dict[str, Any]] = field(default_factory=lambda: deque(maxlen=KEPT))
    reports: deque[dict[str, Any]] = field(default_factory=lambda: deque(maxlen=KEPT))
    fresh: list[str] = field(default_factory=list)
    event_cursor: str | None = None
    report_cursor: str | None = None


class Watcher:
    """Looks at a plane again and again."""

    def __init__(self, plane: Plane) -> None:
        self.seen = Seen()
        self._plane = plane
        self._said: dict[str, str] = {}

    def look(self) -> Seen:
        """One look; what could not be seen is said in `trouble`."""
        seen = self.seen
        seen.fresh = []
        try:
            seen.status = self._plane.call("system.status", {})
            seen.agents = self._plane.call("agents.list", {"limit": KEPT})["items"]
            changes = self._plane.call("changes.list", {"limit": 50})["items"]
            seen.changes = [change for change in changes if not change["done"]]
            self._read_events()
            self._read_reports()
            seen.trouble = None
        except Refusal as refusal:
            seen.trouble = refusal.problem.detail
        self._changed_lines()
        return seen

    def _read_events(self) -> None:
        seen = self.seen
        while True:
            found = self._plane.call("feedback.read", _after(seen.event_cursor))
            seen.event_cursor = found["cursor"]
            told = [event for event in found["events"] if event["type"] != ROUTINE]
            seen.events.extend(told)
            seen.fresh += [f"feedback  {event_line(event)}" for event in told]
            if len(found["events"]) < PAGE:
                return

    def _read_reports(self) -> None:
        seen = self.seen
        try:
            found = self._plane.call("channels.read", {**REPORTS, **_after(seen.report_cursor)})
        except Refusal as refusal:
            if refusal.problem.reason != "NOT_FOUND":
                raise
            return
        seen.report_cursor = found["cursor"]
        seen.reports.extend(found["envelopes"])
        seen.fresh += [f"report    {report_line(envelope)}" for envelope in found["envelopes"]]

    def _changed_lines(self) -> None:
        """A line for whatever of the plane and its agents is not what was last said."""
        seen = self.seen
        now = {"plane": seen.trouble or state_line(seen.status or {})}
        for agent in seen.agents:
            name = f"{agent['metadata']['namespace']}/{agent['metadata']['name']}"
            ready: dict[str, Any] = next((it for it in agent["status"]["conditions"] if it["type"] == "Ready"), {})
            now[f"agent {name}"] = conditions({**agent, "status": {"conditions": [ready]}}).text
        seen.fresh[:0] = [f"{what}  {text}" for what, text in now.items() if self._said.get(what) != text]
        self._said = now


def state_line(status: dict[str, Any]) -> str:
    """Whether messages are accepted, and the state of the gate and Ray."""
    ready = "ready" if status["ready"] else "not ready"
    return f"{ready}, gate {status['gate']}, Ray {status['ray']}, {status['hosts']} hosts"


def run_live(url: str, token: str, stop: threading.Event, *, data: Path | None = None, every_s: float = 1.0) -> None:
    """Show a plane until `stop` is set; for a thread beside it."""
    target = Target(url.rstrip("/"), token, data or Path(".steward"))
    plane = Plane(target)
    try:
        _show(Watcher(plane), target, stop, every_s, "Ctrl-C stops everything; state is kept.")
    finally:
        plane.close()


def show_live(plane: Plane, every_s: float) -> None:
    """Show a plane until Ctrl-C; where there is no terminal, once."""
    watcher = Watcher(plane)
    if not sys.stdout.isatty():
        watcher.look()
        if watcher.seen.trouble:
            raise SystemExit(f"no answer: {watcher.seen.trouble}")
        print(*map(clean, watcher.seen.fresh), sep="\n")
        return
    stop = threading.Event()
    try:
        _show(watcher, plane.target, stop, every_s, "Ctrl-C ends this view.")
    except KeyboardInterrupt:
        stop.set()


def _show(watcher: Watcher, target: Target, stop: threading.Event, every_s: float, ending: str) -> None:
    if not sys.stdout.isatty():
        _show_lines(watcher, target, stop, every_s)
        return
    console = Console(highlight=False)
    began = time.monotonic()
    with Live(console=console, auto_refresh=False, vertical_overflow="crop") as live:
        while not stop.is_set():
            seen = watcher.look()
            live.update(draw(seen, target, console.size.height, time.monotonic() - began, ending), refresh=True)
            stop.wait(every_s)


def _show_lines(watcher: Watcher, target: Target, stop: threading.Event, every_s: float) -> None:
    print(f"Steward at {target.url}; MCP at {target.url}/mcp; token in {target.data / 'admin.token'}", flush=True)
    while not stop.is_set():
        for line in watcher.look().fresh:
            print(clean(line), flush=True)
        stop.wait(every_s)


def _after(cursor: str | None) -> dict[str, Any]:
    return {"limit": PAGE, **({"after": cursor} if cursor else {})}
