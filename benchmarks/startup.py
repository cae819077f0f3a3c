"""How long until messages are durably accepted, how long until the first turn, and what each process holds."""

import os
import time
from typing import Any

import psutil

from benchmarks.given import Given
from benchmarks.targets import at_most
from benchmarks.timing import table
from tests.stack import Stack

WHY_READY = (
    "the tables are made by Alembic, which a first start imports, while Ray's head starts on the same two cores;"
    " the same installation started again needs neither"
)
ECHO = """from ray_runtime import Agent


class Echo(Agent):
    async def on_message(self, turn, envelope):
        return envelope.data
"""


def agent(name: str, **spec: Any) -> dict[str, Any]:
    """A manifest of an agent that answers what it gets."""
    spec = {"code": {"files": {"echo.py": ECHO}}, "entrypoint": "echo:Echo"} | spec
    return {"kind": "Agent", "metadata": {"name": name}, "spec": spec}


def measure(given: Given) -> str:
    """A new installation, from nothing to its first turn; then what it holds."""
    stack = given.new_stack()
    begun = time.perf_counter()
    stack.up()
    ready_s = time.perf_counter() - begun
    stack.apply(agent("first"))
    answer = stack.call("agents.ask", name="first", data="hello", timeout_s=60)
    assert answer["reply"] == "hello", answer
    first_turn_s = time.perf_counter() - begun
    reached = [at_most("`/readyz` is 200", ready_s, 5, WHY_READY), at_most("first turn answered", first_turn_s, 20)]
    return (
        table(
            ["from `steward up`", "seconds", "target"],
            [[it.name, f"{it.figure:.1f}", it.cell] for it in reached],
        )
        + f"\n{memory(stack)}"
    )


def memory(stack: Stack) -> str:
    """Resident, proportional and unique memory of the installation's processes, in MB, summed by name."""
    rows: dict[str, list[float]] = {}
    for name, process in processes(stack):
        try:
            held = process.memory_full_info()
        except psutil.Error:
            continue
        row = rows.setdefault(name, [0, 0, 0, 0])
        for index, value in enumerate((1, held.rss / 1e6, held.pss / 1e6, held.uss / 1e6)):
            row[index] += value
    return table(
        ["process", "count", "RSS MB", "PSS MB", "USS MB"],
        [[name, int(row[0]), *(f"{value:.0f}" for value in row[1:])] for name, row in sorted(rows.items())],
    )


def processes(stack: Stack) -> list[tuple[str, psutil.Process]]:
    """Every process of the installation, and what it is."""
    found = []
    for process in [psutil.Process(stack.pid), *_of(stack)]:
        try:
            found.append((_named(process, stack), process))
        except psutil.Error:
            continue
    return found


def _of(stack: Stack) -> list[psutil.Process]:
    """Everything beside the plane: what it supervises, with the gate's spare, and the whole session of Ray's head."""
    known = {it["name"]: it["pid"] for it in stack.call("system.status")["processes"] if it["name"] != "plane"}
    session = [pid for pid in psutil.pids() if _session(pid) == known.get("ray")]
    spares = [it.pid for it in psutil.Process(stack.pid).children() if it.pid not in known.values()]
    return [psutil.Process(pid) for pid in {*known.values(), *spares, *session}]


def _session(pid: int) -> int | None:
    try:
        return os.getsid(pid)
    except ProcessLookupError:
        return None


def _named(process: psutil.Process, stack: Stack) -> str:
    line = " ".join(process.cmdline())
    if process.pid == stack.pid:
        return "plane"
    for name in ("gate", "placer"):
        if f"controlplane.wiring {name}" in line:
            return name
    return "host" if line.startswith("ray::host") else "Ray's own"
