"""How long a message takes to wake a suspended agent: from publishing to the first line of its handler.

The sender's durable insert is inside the figure (SQLite, synchronous=FULL), the code is warm on the
node, the agent is a row and nothing else before each message. Beside it: creating a Ray actor on the
same cluster, which is what a wake would cost if every agent were an actor.
"""

import asyncio
import contextlib
import json
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from typing import Any

import orjson

from benchmarks.targets import at_least
from benchmarks.timing import Latency, quantiles, table
from controlplane.effects.client import GateClient
from controlplane.settings import Settings
from controlplane.store.store import Store, open_url
from tests.stack import Stack

WAKES, WARM = 300, 20
CLOCK = """import time
from ray_runtime import Agent


class Clock(Agent):
    async def on_message(self, turn, envelope):
        return time.time()
"""
CLOCK_AGENT = {
    "kind": "Agent",
    "metadata": {"name": "clock"},
    "spec": {"code": {"files": {"clock.py": CLOCK}}, "entrypoint": "clock:Clock", "suspend_after_ms": 0},
}


def measure(stack: Stack) -> str:
    stack.apply(CLOCK_AGENT)
    woken, answered = asyncio.run(wakes(stack))
    created = _actors(stack)
    ratio = at_least("a Ray actor's creation beside a wake", created.p50_ms / woken.p50_ms, 300)
    return table(
        ["", "p50 / p99 ms", "n", "ratio at p50"],
        [
            ["published → handler started", woken, woken.n, ""],
            ["published → turn committed, answer read", answered, answered.n, ""],
            ["creating a Ray actor", created, created.n, f"{ratio.figure:.0f} times a wake (target {ratio.cell})"],
        ],
    )


@contextlib.asynccontextmanager
async def gate_of(stack: Stack) -> AsyncIterator[tuple[GateClient, Store]]:
    """The gate of a running stack, as a plane speaks to it, and its store."""
    settings = Settings(data=stack.data)
    client = GateClient(settings.gate_socket, (stack.data / "gate.key").read_text().strip(), lambda: None)
    store = Store(open_url(stack.database_url, settings.sqlite_path), client)
    client.connect()
    await client.up()
    try:
        yield client, store
    finally:
        await client.close()
        await store.close()


async def wakes(stack: Stack, count: int = WAKES, mark: str = "wake") -> tuple[Latency, Latency]:
    """From published to the handler's first line, and to the answer read, of an agent that is suspended each time."""
    started, answered = [], []
    async with gate_of(stack) as (client, store):
        for n in range(count + WARM):
            await _suspended(store)
            begun, wall = time.perf_counter(), time.time()
            at = await _ask(client, store, f"{mark}-{n}")
            if n >= WARM:
                answered.append(time.perf_counter() - begun)
                started.append(at - wall)
    return quantiles(started), quantiles(answered)


async def _suspended(store: Store) -> None:
    while await _one(store, "SELECT owner FROM agent WHERE name = 'clock'") is not None:  # noqa: ASYNC110
        await asyncio.sleep(0.002)


async def ask(client: GateClient, name: str, message_id: str, timeout_s: float = 60, data: Any = None) -> None:
    """Ask an agent, and wait for its answer."""
    body = {
        "specversion": "1.0",
        "id": message_id,
        "source": "/operators/bench",
        "type": "steward.message",
        "time": "2026-01-01T00:00:00Z",
        "data": data,
        "replyto": message_id,
    }
    waiting = asyncio.ensure_future(client.answered(message_id, timeout_s))
    await client.publish("default", name, message_id, orjson.dumps(body), time.time() + timeout_s, "bench")
    await waiting


async def _ask(client: GateClient, store: Store, message_id: str) -> float:
    await ask(client, "clock", message_id)
    found = await _one(store, f"SELECT result FROM awaiting WHERE await_id = '{message_id}'")
    return float(found)


async def _one(store: Store, sql: str) -> Any:
    return await store.read(lambda session: session.connection().exec_driver_sql(sql).scalar())


def _actors(stack: Stack) -> Latency:
    ray = orjson.loads((stack.data / "ray.json").read_bytes())
    command = [sys.executable, "-m", "benchmarks.ray_actor", ray["address"], ray["token_path"]]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180, check=True)
    return quantiles(json.loads(done.stdout.strip().splitlines()[-1]))
