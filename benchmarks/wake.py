"""`python -m benchmarks.wake [DATABASE_URL]`: the gate by itself, with one plain host and without Ray.

Wake is from the call of publish, its durable insert included, to the first line of the handler, for an
agent that is a row and nothing else. Turns a second are from publish to commit, over many agents.
"""

import asyncio
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.timing import Latency, quantiles, table
from controlplane.store import migrate
from tests.gate.running import RunningGate
from tests.postgres import Postgres

CLOCK = """import time
from ray_runtime import Agent


class Clock(Agent):
    async def on_message(self, turn, envelope):
        return time.time()
"""
WAKES, AGENTS, EACH = 300, 64, 40


async def _wakes(gate: RunningGate, name: str, asleep: bool) -> tuple[Latency, Latency]:
    started, answered = [], []
    for n in range(WAKES):
        if asleep:
            await gate.until(f"SELECT owner FROM agent WHERE name = '{name}'", lambda rows: rows[0][0] is None)
        begun = time.time()
        at = await gate.ask(name, None, f"{name}{n}")
        answered.append(time.time() - begun)
        started.append(at - begun)
    return quantiles(started), quantiles(answered)


async def _throughput(gate: RunningGate, names: list[str]) -> float:
    total = len(names) * EACH

    async def feed(name: str) -> None:
        for n in range(EACH):
            await gate.ask(name, None, f"{name}-{n}")

    begun = time.perf_counter()
    await asyncio.gather(*(feed(name) for name in names))
    return total / (time.perf_counter() - begun)


async def measured(url: str) -> str:
    """The table of one database, which must be migrated."""
    gate = RunningGate(url)
    gate.start()
    gate.client.connect()
    gate.host()
    try:
        await gate.client.up()
        code = await gate.code(CLOCK)
        await gate.agent("asleep", code, "Clock", suspend_after_ms=0)
        await gate.agent("awake", code, "Clock", suspend_after_ms=60_000)
        names = [f"a{n}" for n in range(AGENTS)]
        for name in names:
            await gate.agent(name, code, "Clock", suspend_after_ms=60_000)
        await gate.ask("asleep", None, "warm")
        await gate.ask("awake", None, "warm2")
        rows = []
        for name, asleep in (("asleep", True), ("awake", False)):
            woken, answered = await _wakes(gate, name, asleep)
            rows.append([f"{name}: publish → handler / → answer read", f"{woken}", f"{answered}"])
        rows.append([f"asks a second, {AGENTS} at once", f"{await _throughput(gate, names):.0f}", ""])
        return table(["one gate, one plain host", "p50 / p99 ms", "p50 / p99 ms"], rows)
    finally:
        await gate.client.close()
        await gate.store.close()
        await asyncio.to_thread(gate.end)


def on_both() -> str:
    """SQLite, then a PostgreSQL of its own."""
    with tempfile.TemporaryDirectory() as folder:
        sqlite = f"sqlite:///{Path(folder).resolve()}/steward.db"
        migrate.upgrade(sqlite)
        found = "SQLite, `synchronous=FULL`:\n\n" + asyncio.run(measured(sqlite))
    server = Postgres()
    try:
        found += "\nPostgreSQL, `fsync=off` as in the tests:\n\n" + asyncio.run(measured(server.lend()))
    finally:
        server.close()
    return found


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        given = sys.argv[1] if len(sys.argv) > 1 else f"sqlite:///{Path(folder).resolve()}/steward.db"
        migrate.upgrade(given)
        print(asyncio.run(measured(given)))
