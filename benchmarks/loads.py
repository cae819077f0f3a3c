"""Agents that are measured, and what is asked of them, over a real gate with plain host processes."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import orjson

from benchmarks import wakes
from benchmarks.timing import STATES
from schemas.base import fresh_id
from tests.gate.running import RunningGate, running

STAYS_MS = 60_000
LARGE_BYTES, LARGE_SAMPLES = 1_000_000, 10
SOURCE = """
import os, random, time
from pydantic import BaseModel
from ray_runtime import Agent


class Held(BaseModel):
    text: str = ""


class Clock(Agent):
    state: Held

    async def on_message(self, turn, envelope):
        at = time.time()
        if envelope.data:  # text that does not repeat itself, so that no two pieces of it are alike
            self.state.text = random.Random(envelope.data).randbytes(envelope.data // 2).hex()
        return [at, os.getpid()]


class Noter(Agent):
    async def on_message(self, turn, envelope):
        took = []
        for n in range(envelope.data["effects"]):
            began = time.perf_counter()
            await turn.perform("notes.again", path=envelope.data["path"], text="x")
            took.append(time.perf_counter() - began)
        return took


class Asker(Agent):
    async def on_message(self, turn, envelope):
        answer = await turn.ask(envelope.data, None)
        return time.time() - answer.data[0]
"""
GRANTS: dict[str, Any] = {"mandate": {"grants": [{"effect": "notes.*", "connection": None}]}}


class Loaded:
    """A gate with the agents' code in its store; messages get ids of their own."""

    def __init__(self, gate: RunningGate, code: str) -> None:
        self.gate = gate
        self.code = code
        self._count = 0

    async def agent(self, name: str, cls: str = "Clock", *, stays_ms: int = STAYS_MS, code: str = "") -> None:
        """An agent that has had its first turn."""
        await self.gate.agent(name, code or self.code, cls, suspend_after_ms=stays_ms, **GRANTS)
        begun = f"SELECT 1 FROM turn WHERE agent = 'agent_{name}' AND trigger = 'start' AND finished_at IS NOT NULL"
        await self.gate.until(begun, bool)

    async def asked(self, name: str, data: Any = None) -> str:
        """Ask, and wait until the answer is there; the id under which it can be read."""
        self._count += 1
        message_id = fresh_id("msg", time.time())
        await wakes.ask(self.gate.client, name, message_id, data=data)
        return message_id

    async def answer(self, message_id: str) -> Any:
        rows = await self.gate.rows("SELECT outcome, result FROM awaiting WHERE await_id = :it", it=message_id)
        assert rows, f"there is no answer to {message_id}"
        assert rows[0][0] == "answered", f"{message_id}: {rows[0]}"
        return orjson.loads(rows[0][1])

    async def asleep(self, name: str) -> None:
        await self.gate.until(f"SELECT owner FROM agent WHERE name = '{name}'", lambda rows: rows[0][0] is None)

    async def hosts(self, many: int) -> None:
        """Wait until so many are there."""
        await self.gate.until("SELECT host_id FROM host WHERE ended_at IS NULL", lambda rows: len(rows) == many)

    async def clocked(self, name: str) -> tuple[float, float]:
        """Seconds from publishing to the first line of the handler, and to the answer heard."""
        wall, begun = time.time(), time.perf_counter()
        message_id = await self.asked(name)
        answered = time.perf_counter() - begun
        at, _ = await self.answer(message_id)
        return at - wall, answered


@asynccontextmanager
async def loaded(url: str, hosts: int = 1, **bounds: Any) -> AsyncIterator[Loaded]:
    """A gate that takes states of 10 MiB, too."""
    async with running(url, hosts, **{"state_bytes_max": 2 * max(STATES.values()), **bounds}) as gate:
        found = Loaded(gate, await gate.code(SOURCE))
        await found.hosts(hosts)
        yield found


async def all_at_once(calls: list[Any]) -> float:
    """Seconds until the last of them."""
    begun = time.perf_counter()
    await asyncio.gather(*calls)
    return time.perf_counter() - begun
