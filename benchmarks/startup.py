"""How long until messages are durably accepted, how long until the first turn, and what each process holds."""

import time
from typing import Any

import psutil

from benchmarks.timing import table
from tests.stack import Stack

ECHO = """from ray_runtime import Agent


class Echo(Agent):
    async def on_message(self, turn, envelope):
        return envelope.data
"""


def agent(name: str, **spec: Any) -> dict[str, Any]:
    """A manifest of an agent that answers what it gets."""
    spec = {"code": {"files": {"echo.py": ECHO}}, "entrypoint": "echo:Echo"} | spec
    return {"kind": "Agent", "metadata": {"name": name}, "spec": spec}


def measure(stack: Stack) -> str:
    """Starts the stack; it is the caller's to close."""
    begun = time.perf_counter()
    stack.up()
    ready_s = time.perf_counter() - begun
    stack.apply(agent("first"))
    answer = stack.call("agents.ask", name="first", data="hello", timeout_s=60)
    assert answer["reply"] == "hello", answer
    first_turn_s = time.perf_counter() - begun
    return table(
        ["from `steward up`", "seconds", "target"],
        [["`/readyz` is 200", f"{ready_s:.1f}", "≤ 5"], ["first turn answered", f"{first_turn_s:.1f}", "≤ 20"]],
    )


def memory(stack: Stack) -> str:
    """Resident, proportional and unique memory of the installation's processes, in MB, summed by name."""
    rows: dict[str, list[float]] = {}
    for process in [psutil.Process(stack.pid), *_of(stack)]:
        try:
            held = process.memory_full_info()
            name = _named(process, stack)
        except psutil.Error:
            continue
        row = rows.setdefault(name, [0, 0, 0, 0])
        for index, value in enumerate((1, held.rss / 1e6, held.pss / 1e6, held.uss / 1e6)):
            row[index] += value
    return table(
        ["process", "count", "RSS MB", "PSS MB", "USS MB"],
        [[name, int(row[0]), *(f"{value:.0f}" for value in row[1:])] for name, row in sorted(rows.items())],
    )


def _of(stack: Stack) -> list[psutil.Process]:
    return [psutil.Process(int(line.split()[0])) for line in stack.leftovers() if int(line.split()[0]) != stack.pid]


def _named(process: psutil.Process, stack: Stack) -> str:
    line = " ".join(process.cmdline())
    for name in ("wiring gate", "wiring placer"):
        if name in line:
            return name.split()[1]
    if process.pid == stack.pid:
        return "plane"
    if line.startswith("ray::") and "host" in line.lower():
        return "host"
    return "Ray: " + process.name()
