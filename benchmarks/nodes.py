"""A node that is killed, or hangs, under an agent: how long until it has a turn elsewhere.

The node is a raylet of its own on this machine, with a relay and hosts. Killed, its connections end; stopped, they
stand, and Ray's health checks say that it is gone. The other node has a spare host: where each of its places is
taken, one whose agents rest is let go first, and a new one has to start, which takes a second more.
"""

import asyncio
import contextlib
import itertools
import signal
import statistics
import time
from collections.abc import Callable

import psutil

from benchmarks import wakes
from benchmarks.startup import agent
from benchmarks.targets import at_most
from tests.raylet import Raylet
from tests.stack import Stack

KILLS, AGENTS_MAX, APPEARS_S_MAX = 3, 12, 90.0
KILLED_S, HUNG_S = 1.0, 3.0
WHY_HUNG = "Ray's health checks say so after 2.4 s; the rest is a host that comes, and its code"
STAYS_MS, IDLE_S = 600_000, 2.0
CODE = """from ray_runtime import Agent


class Echo(Agent):
    async def on_message(self, turn, envelope):
"""


def measure(*, quick: bool) -> list[list[object]]:
    """Rows of both; each a median, and beside its target."""
    numbers = itertools.count()
    with Stack(ray_dashboard=True, host_idle_s=IDLE_S) as stack:
        kills = [_struck(stack, f"n{next(numbers)}", signal.SIGKILL) for _ in range(1 if quick else KILLS)]
        hangs = [_struck(stack, f"n{next(numbers)}", signal.SIGSTOP) for _ in kills]
    killed, hung = statistics.median(kills), statistics.median(hangs)
    at_most("node killed → a turn of its agent elsewhere, s", killed, KILLED_S)
    at_most("node hung → a turn of its agent elsewhere, s", hung, HUNG_S, WHY_HUNG)
    return [
        [f"SQLite: kill -9 of a node → a turn of its agent elsewhere (median of {len(kills)})", f"{killed:.2f} s"],
        [f"SQLite: SIGSTOP of a node → a turn of its agent elsewhere (median of {len(hangs)})", f"{hung:.2f} s"],
    ]


def _struck(stack: Stack, name: str, number: int) -> float:
    """Seconds to the answer of an agent that lives on the node when it is struck."""
    node = Raylet(stack.data, name, resources={}, labels={})
    made: list[str] = []
    try:
        _until("the node", lambda: any(it["node"] == name and it["alive"] for it in stack.call("nodes.list")["items"]))
        there = _agent_on(stack, name, made)
        _until("a spare host on each node", lambda: len({it["node"] for it in _hosts(stack) if not it["digest"]}) == 2)
        return asyncio.run(_answered(stack, there, node.processes(), number))
    finally:
        node.kill()
        for name_of in made:  # the next one finds room, as this did
            stack.call("plans.commit", plan_id=stack.call("agents.delete", name=name_of)["plan_id"])
        _until("the end of its hosts", lambda: all(not it["digest"] for it in _hosts(stack)))


def _agent_on(stack: Stack, node: str, made: list[str]) -> str:
    """One more agent with code of its own, again and again, until one has its host there."""
    for number in range(AGENTS_MAX):
        name = f"on-{node}-{number}"
        body = f'        return "{name}"\n'
        made.append(name)
        stack.apply(agent(name, code={"files": {"echo.py": CODE + body}}, suspend_after_ms=STAYS_MS))
        stack.call("agents.ask", name=name, data=None, timeout_s=60)
        digest = stack.call("agents.get", name=name)["spec"]["code"]["digest"]
        if any(it["node"] == node and it["digest"] == digest for it in _hosts(stack)):
            return name
    raise RuntimeError(f"none of {AGENTS_MAX} agents came to node {node}")


def _hosts(stack: Stack) -> list[dict[str, object]]:
    return [it for it in stack.call("hosts.list")["items"] if it["state"] != "lost"]


async def _answered(stack: Stack, name: str, processes: list[psutil.Process], number: int) -> float:
    async with wakes.gate_of(stack) as (client, _):
        begun = time.perf_counter()
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(number)
        await wakes.ask(client, name, f"after-{name}")
        return time.perf_counter() - begun


def _until(what: str, condition: Callable[[], object]) -> None:
    limit = time.monotonic() + APPEARS_S_MAX
    while not condition():
        if time.monotonic() > limit:
            raise RuntimeError(f"{what} did not come within {APPEARS_S_MAX:.0f} s")
        time.sleep(0.2)
