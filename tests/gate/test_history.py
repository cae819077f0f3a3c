"""History stays bounded: turns come and go, and what is kept does not grow. STEWARD_HISTORY_TURNS says how many."""

import asyncio
import os
import time

import pytest
from sqlmodel import SQLModel

import controlplane.store.tables  # noqa: F401 - fills the metadata
from controlplane.store.retention import Retention
from tests.conftest import SOAK
from tests.gate.running import RunningGate, running

pytestmark = pytest.mark.anyio
TURNS = int(os.environ.get("STEWARD_HISTORY_TURNS", "20000" if SOAK else "600"))
WINDOWS = 5
AT_ONCE = 50
SOURCE = """
from pydantic import BaseModel
from ray_runtime import Agent


class Count(BaseModel):
    seen: int = 0


class Worker(Agent):
    state: Count

    async def on_message(self, turn, envelope):
        self.state.seen += 1
        turn.send("ledger", envelope.data)
        if self.state.seen % 10 == 0:
            await turn.sleep(0)
        return self.state.seen


class Ledger(Agent):
    state: Count

    async def on_message(self, turn, envelope):
        self.state.seen += 1
        return self.state.seen
"""


async def window(gate: RunningGate, first: int, many: int) -> None:
    """So many messages, and their turns over."""
    for start in range(first, first + many - 1, AT_ONCE):
        numbers = range(start, min(start + AT_ONCE, first + many - 1))
        await asyncio.gather(*(gate.send("worker", n, f"m{n}") for n in numbers))
        await gate.until("SELECT COUNT(*) FROM inbox", lambda rows: rows[0][0] < AT_ONCE)
    assert await gate.ask("worker", 0, f"m{first + many - 1}") == first + many
    assert await gate.ask("ledger", 0, f"l{first}") > first + many
    for left in ("SELECT 1 FROM inbox", "SELECT 1 FROM turn WHERE finished_at IS NULL"):
        await gate.until(left, lambda rows: not rows)


async def kept(gate: RunningGate) -> dict[str, int]:
    """Rows of every table, and on SQLite the pages of the file."""
    names = sorted(SQLModel.metadata.tables)
    found = {name: (await gate.rows(f'SELECT COUNT(*) FROM "{name}"'))[0][0] for name in names}
    if gate.store.dialect == "sqlite":
        found["pages"] = (await gate.rows("PRAGMA page_count"))[0][0]
    return found


async def test_what_is_kept_does_not_grow_with_the_turns(quick_url: str) -> None:
    """After the first window no table has more rows, and the file no more pages, however many turns come."""
    async with running(quick_url) as gate:
        code = await gate.code(SOURCE)
        for name, cls in (("worker", "Worker"), ("ledger", "Ledger")):
            await gate.agent(name, code, cls, suspend_after_ms=60_000)
        sweep = Retention(gate.store, turn_retention_s=0.0, event_retention_s=0.0, usage_retention_s=0.0)
        seen = []
        many = TURNS // WINDOWS
        for number in range(WINDOWS):
            await window(gate, number * many, many)
            await sweep.sweep(time.time())
            seen.append(await kept(gate))
    for later in seen[2:]:
        assert later.pop("pages", 0) <= seen[1].get("pages", 0) * 1.05 + 8
        assert later.pop("event") <= seen[1]["event"] + 5  # a summary may come just then
        assert later.pop("meta") <= seen[1]["meta"] + 1  # and with the first one a mark
        assert {name: (seen[1][name], rows) for name, rows in later.items() if rows > seen[1][name]} == {}
    assert seen[-1]["turn"] == 2  # those that the agents started with
