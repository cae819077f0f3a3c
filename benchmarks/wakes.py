"""How long a message takes to wake a suspended agent: from publishing to the first line of its handler.

The sender's durable insert is inside the figure (SQLite, synchronous=FULL), the code is warm on the
node, the agent is a row and nothing else before each message. Beside it: creating a Ray actor on the
same cluster, which is what a wake would cost if every agent were an actor.
"""

import asyncio
import json
import subprocess
import sys
import time
from typing import Any

import orjson

from benchmarks.timing import Latency, quantiles, table
from controlplane.effects.client import GateClient
from controlplane.settings import Settings
from controlplane.store.store import Store, open_url
from tests.stack import Stack

WAKES = 300
CLOCK = """import time
from ray_runtime import Agent


class Clock(Agent):
    async def on_message(self, turn, envelope):
        return time.time()
"""


def measure(stack: Stack) -> str:
    spec = {"code": {"files": {"clock.py": CLOCK}}, "entrypoint": "clock:Clock", "suspend_after_ms": 0}
    stack.apply({"kind": "Agent", "metadata": {"name": "clock"}, "spec": spec})
    woken, answered = asyncio.run(_wakes(stack))
    created = _actors(stack)
    ratio = created.p50_ms / woken.p50_ms
    return table(
        ["", "p50 / p99 ms", "n", "ratio at p50"],
        [
            ["published → handler started", woken, woken.n, ""],
            ["published → turn committed, answer read", answered, answered.n, ""],
            ["creating a Ray actor", created, created.n, f"{ratio:.0f} times a wake (target ≥ 300)"],
        ],
    )


async def _wakes(stack: Stack) -> tuple[Latency, Latency]:
    settings = Settings(data=stack.data)
    client = GateClient(settings.gate_socket, (stack.data / "gate.key").read_text().strip(), lambda: None)
    store = Store(open_url(None, settings.sqlite_path), client)
    client.connect()
    await client.up()
    started, answered = [], []
    try:
        for n in range(WAKES + 20):
            await _suspended(store)
            begun, wall = time.perf_counter(), time.time()
            at = await _ask(client, store, f"wake-{n}")
            if n >= 20:
                answered.append(time.perf_counter() - begun)
                started.append(at - wall)
    finally:
        await client.close()
        await store.close()
    return quantiles(started), quantiles(answered)


async def _suspended(store: Store) -> None:
    while await _one(store, "SELECT owner FROM agent WHERE name = 'clock'") is not None:  # noqa: ASYNC110
        await asyncio.sleep(0.002)


async def _ask(client: GateClient, store: Store, message_id: str) -> float:
    body = {
        "specversion": "1.0",
        "id": message_id,
        "source": "/operators/bench",
        "type": "steward.message",
        "time": "2026-01-01T00:00:00Z",
        "data": None,
        "replyto": message_id,
    }
    waiting = asyncio.ensure_future(client.answered(message_id, 10))
    await client.publish("default", "clock", message_id, orjson.dumps(body), time.time() + 60, "bench")
    await waiting
    found = await _one(store, f"SELECT result FROM awaiting WHERE await_id = '{message_id}'")
    return float(found)


async def _one(store: Store, sql: str) -> Any:
    return await store.read(lambda session: session.connection().exec_driver_sql(sql).scalar())


def _actors(stack: Stack) -> Latency:
    ray = orjson.loads((stack.data / "ray.json").read_bytes())
    command = [sys.executable, "-m", "benchmarks.ray_actor", ray["address"], ray["token_path"]]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180, check=True)
    return quantiles(json.loads(done.stdout.strip().splitlines()[-1]))
