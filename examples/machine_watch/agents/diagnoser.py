"""Diagnoser: names the processes behind an unusual reading, and reports in words and in data.

It looks at the processes twice, a second apart: what a process used between the two looks is what
it is doing now, whatever it did in its life before. What it says goes to the channel that people
read, and back to whoever asked. It changes nothing on the machine.
"""

from typing import Any

from pydantic import BaseModel

from ray_runtime import Agent, Envelope, Turn

APART_S = 1.0
NAMED_MAX = 5  # commands in a report
PIDS_MAX = 50  # of one command
BUSY_PERCENT = 5.0  # of one core; less is not worth naming
COMMAND_CHARS = 160
WORDS = {
    "cpu_percent": "CPU use",
    "busiest_core_percent": "use of the busiest core",
    "tasks_running": "the number of tasks that run or wait for a core",
    "memory_percent": "memory use",
    "disk_percent": "use of the fullest disk",
    "disk_bytes_per_s": "disk traffic",
    "network_bytes_per_s": "network traffic",
}


class DiagnoserState(BaseModel):
    """How many reports were made."""

    reports: int = 0


class Diagnoser(Agent):
    """Answers findings with a report."""

    state: DiagnoserState

    async def on_message(self, turn: Turn, envelope: Envelope) -> dict[str, Any]:
        findings = findings_of(envelope.data)
        first = await turn.perform("machine.read", what="processes", purpose="what runs")
        began = turn.now()
        await turn.sleep(APART_S)
        second = await turn.perform("machine.read", what="processes", purpose="what it used meanwhile")
        elapsed_s = (turn.now() - began).total_seconds()
        processes = behind(findings, first["processes"], second["processes"], elapsed_s)
        report = {
            "text": in_words(findings, processes),
            "findings": findings,
            "processes": processes,
            "asked_by": envelope.source,
            "at": turn.now().isoformat().replace("+00:00", "Z"),
        }
        self.state.reports += 1
        await turn.publish(self.config.get("channel", "reports"), report)
        return report


def findings_of(data: Any) -> list[dict[str, Any]]:
    """The findings of a question; none when somebody just asks what is going on."""
    findings = data.get("findings") if isinstance(data, dict) else None
    return findings if isinstance(findings, list) else []


def behind(
    findings: list[dict[str, Any]], first: list[dict[str, Any]], second: list[dict[str, Any]], elapsed_s: float
) -> list[dict[str, Any]]:
    """What used most between two looks: by memory if that is what is unusual, else by CPU.

    Processes of one command count as one, so that many small ones are found as well as a single large one.
    """
    before = {(process["pid"], process["started_at"]): process for process in first}
    used: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for process in second:
        known = before.get((process["pid"], process["started_at"]))
        since = known["cpu_s"] if known else 0.0  # one that began in between used all of it in between
        percent = 100.0 * max(0.0, process["cpu_s"] - since) / max(elapsed_s, 0.001)
        grown = process["rss_bytes"] - (known["rss_bytes"] if known else 0)
        seen = {**process, "cpu_percent": percent, "rss_grown_bytes": grown}
        used.setdefault((process["name"], shorten(process["cmdline"])), []).append(seen)
    commands = [_named(name, cmdline, herd) for (name, cmdline), herd in used.items()]
    if findings and findings[0]["measure"] == "memory_percent":
        return sorted(commands, key=lambda c: (c["rss_grown_bytes"], c["rss_bytes"]), reverse=True)[:NAMED_MAX]
    busy = [command for command in commands if command["cpu_percent"] >= BUSY_PERCENT]
    return sorted(busy, key=lambda c: c["cpu_percent"], reverse=True)[:NAMED_MAX]


def _named(name: str, cmdline: str, herd: list[dict[str, Any]]) -> dict[str, Any]:
    """The processes of one command, the busiest first."""
    herd.sort(key=lambda process: process["cpu_percent"], reverse=True)
    return {
        "pid": herd[0]["pid"],
        "pids": [process["pid"] for process in herd[:PIDS_MAX]],
        "count": len(herd),
        "name": name,
        "cmdline": cmdline,
        "cpu_percent": round(sum(process["cpu_percent"] for process in herd), 1),
        "rss_bytes": sum(process["rss_bytes"] for process in herd),
        "rss_grown_bytes": sum(process["rss_grown_bytes"] for process in herd),
    }


def shorten(cmdline: Any) -> str:
    """A command line as one short text."""
    text = cmdline if isinstance(cmdline, str) else " ".join(cmdline or [])
    return text if len(text) <= COMMAND_CHARS else text[: COMMAND_CHARS - 1] + "…"


def in_words(findings: list[dict[str, Any]], processes: list[dict[str, Any]]) -> str:
    """The report as a person reads it."""
    seen = "; ".join(_finding(finding) for finding in findings) or "nothing unusual was named"
    seen = seen[0].upper() + seen[1:]
    if not processes:
        return f"{seen}. No process stands out now."
    return f"{seen}. Behind it: {'; '.join(_process(process) for process in processes)}."


def _finding(finding: dict[str, Any]) -> str:
    measure, value, usual = finding["measure"], finding["value"], finding["usual"]
    word = WORDS.get(measure, measure)
    if measure.endswith("_percent"):
        return f"{word} is {value:.0f} %, usually {usual:.0f} %"
    if measure.endswith("_bytes_per_s"):
        return f"{word} is {value / 1e6:.1f} MB/s, usually {usual / 1e6:.1f} MB/s"
    return f"{word} is {value:.0f}, usually {usual:.0f}"


def _process(process: dict[str, Any]) -> str:
    used = f"{process['cpu_percent']:.0f} % of a core, {process['rss_bytes'] / 1e6:.0f} MB"
    if process["count"] == 1:
        return f"{process['name']} (pid {process['pid']}) with {used}: {process['cmdline']}"
    pids = ", ".join(map(str, process["pids"][:3])) + (", …" if process["count"] > 3 else "")
    return f"{process['count']} times {process['name']} (pids {pids}) with {used}: {process['cmdline']}"
