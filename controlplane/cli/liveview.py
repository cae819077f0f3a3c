"""How the live view is drawn: agents and their conditions, open changes, feedback, reports, the way in.

Pure: what was seen goes in, something that rich can print comes out, never higher than the terminal.
"""

from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from controlplane.cli.connection import Target
from controlplane.cli.printing import STYLES, clean, table
from controlplane.cli.shapes import Grid, Line, conditions, event_line, report_line

if TYPE_CHECKING:
    from controlplane.cli.live import Seen

ROWS_FIXED = 19
AGENTS_MAX = 12


def draw(seen: "Seen", target: Target, height: int, age_s: float, ending: str) -> RenderableType:
    """Everything, in the rows that the terminal has; `ending` says what Ctrl-C does."""
    room = max(6, height - ROWS_FIXED - min(len(seen.agents), AGENTS_MAX) - len(seen.changes[:3]))
    parts: list[RenderableType] = [_head(seen, target, age_s)]
    if seen.status is not None:
        parts.append(_agents(seen))
        parts += [_text(f"open change {one['change_id']}: {_waits(one)}", "warn") for one in seen.changes[:3]]
        parts.append(_lines("Reports", [_at(report_line(one)) for one in seen.reports], max(3, room // 2)))
        parts.append(
            _lines(
                "Feedback, without routine turns",
                [_at(event_line(one)) for one in seen.events],
                max(3, room - room // 2),
            )
        )
    parts.append(_way_in(target, ending))
    return Group(*parts)


def _head(seen: "Seen", target: Target, age_s: float) -> RenderableType:
    status = seen.status
    if status is None:
        what = f"The plane starts ({age_s:.0f} s): {seen.trouble}"
        return Spinner("dots", Text(clean(what), style="yellow"))
    if seen.trouble is not None:
        return Spinner("dots", Text(clean(f"The plane does not answer: {seen.trouble}"), style="red"))
    waiting = _starting(seen)
    if waiting:
        return Spinner("dots", Text(clean(f"Starting ({age_s:.0f} s): {waiting}"), style="yellow"))
    counts = ", ".join(f"{count} {name}" for name, count in status["agents"].items())
    turns = sum(agent["status"]["turns"] for agent in seen.agents)
    text = f"Steward is ready at {target.url}. Agents: {counts}. {turns} turns, {status['dead_letters']} dead letters."
    return _text(text, "good")


def _starting(seen: "Seen") -> str:
    """What is still awaited, or nothing."""
    status = seen.status or {}
    unready = [agent["metadata"]["name"] for agent in seen.agents if _condition(agent, "Ready") == "unknown"]
    if status["ready"] and not unready and (seen.agents or status["hosts"]):
        return ""
    agents = f"; agents {', '.join(unready[:6])}" if unready else ""
    return f"gate {status['gate']}, Ray {status['ray']}, {status['hosts']} hosts{agents}"


def _agents(seen: "Seen") -> RenderableType:
    rows = [_agent_row(agent) for agent in seen.agents[:AGENTS_MAX]]
    drawn = table(Grid(("AGENT", "CONDITIONS", "TURNS", "INBOX", "HOST"), tuple(rows)))
    more = len(seen.agents) - AGENTS_MAX
    return Group(drawn, _text(f"and {more} more agents", "dim")) if more > 0 else drawn


def _agent_row(agent: dict[str, Any]) -> tuple[Line, ...]:
    metadata, status = agent["metadata"], agent["status"]
    return (
        Line(f"{metadata['namespace']}/{metadata['name']}", "strong"),
        conditions(agent),
        Line(str(status["turns"])),
        Line(str(status["inbox"])),
        Line(status["host"] or "-", "dim"),
    )


def _lines(title: str, lines: list[str], rows: int) -> RenderableType:
    """The last lines that fit, each on one row."""
    drawn = Table.grid()
    drawn.add_column(no_wrap=True, overflow="ellipsis")
    for line in lines[-rows:]:
        drawn.add_row(Text(clean(line)))
    return Panel(drawn if lines else _text("nothing yet", "dim"), title=title, title_align="left", border_style="dim")


def _way_in(target: Target, ending: str) -> RenderableType:
    token = target.data / "admin.token"
    text = Text()
    text.append("An LLM connects over MCP at ", "dim").append(f"{target.url}/mcp", "bold")
    text.append(" with the token of ", "dim").append(f"cat {token}", "bold")
    text.append("; the client's configuration: ", "dim").append("steward mcp-config", "bold")
    text.append("\nLook from another terminal: ", "dim").append("steward get agents", "bold")
    text.append(", ", "dim").append("steward feedback --follow", "bold").append(f". {ending}", "dim")
    return text


def _at(line: str) -> str:
    """A line with the time of day in place of its whole time."""
    time, _, rest = line.partition("  ")
    return f"{time[11:19]}  {rest}"


def _waits(change: dict[str, Any]) -> str:
    waits = ", ".join(wait["message"] for wait in change["waits_on"])
    done = sum(step["done"] for step in change["steps"])
    return f"{done} of {len(change['steps'])} steps done" + (f", waits on {waits}" if waits else "")


def _condition(agent: dict[str, Any], name: str) -> str:
    found = (one["status"] for one in agent["status"]["conditions"] if one["type"] == name)
    return str(next(found, "unknown"))


def _text(text: str, tone: str) -> Text:
    return Text(clean(text), style=STYLES[tone])
