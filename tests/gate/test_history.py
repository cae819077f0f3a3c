"""History stays bounded: an agent's turns come, fail and go, and what is kept does not grow.

STEWARD_HISTORY_TURNS says how many turns that one agent has. They come one after the other, each with a commit of its
own, at some 700 a second of a quiet machine; another agent sends them by the hundred, which costs them nothing.
"""

import os
import time

import pytest
from sqlmodel import SQLModel

import controlplane.store.tables  # noqa: F401 - fills the metadata
from controlplane.store.retention import ROUNDS_MAX, ROWS_MAX, Retention
from tests.conftest import SOAK
from tests.gate.running import RunningGate, running

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(4 * 3600 if SOAK else 400)]
TURNS = int(os.environ.get("STEWARD_HISTORY_TURNS", "1000000" if SOAK else "20000"))
WINDOWS = 5
AT_ONCE = 500
WAIT_S = 120  # for so many, however busy the machine is
SOURCE = """
from pydantic import BaseModel
from ray_runtime import Agent


class Count(BaseModel):
    seen: int = 0


class Worker(Agent):
    state: Count

    async def on_message(self, turn, envelope):
        if envelope.data % 20 == 7:
            raise ValueError("on purpose")
        self.state.seen += 1
        if envelope.data % 10 == 0:
            turn.send("ledger", envelope.data)
        if envelope.data % 100 == 0:
            await turn.sleep(0)
        return self.state.seen


class Feeder(Agent):
    async def on_message(self, turn, envelope):
        for n in range(*envelope.data):
            turn.send("worker", n)


class Ledger(Agent):
    state: Count

    async def on_message(self, turn, envelope):
        self.state.seen += 1
        return self.state.seen
"""


HELPERS = """
from ray_runtime import Agent


class Boss(Agent):
    async def on_message(self, turn, envelope):
        turn.spawn(f"helper-{envelope.data}", entrypoint="zoo:Helper", scope="turn")
        return "done"


class Helper(Agent):
    pass
"""


async def window(gate: RunningGate, first: int, many: int) -> None:
    """So many messages, and their turns over."""
    last = first + many - 1
    for start in range(first, last, AT_ONCE):
        await gate.send("feeder", [start, min(start + AT_ONCE, last)], f"f{start}")
        await gate.until("SELECT COUNT(*) FROM inbox", lambda rows: rows[0][0] < AT_ONCE, WAIT_S)
    await gate.until("SELECT 1 FROM inbox", lambda rows: not rows, WAIT_S)
    assert await gate.ask("worker", last, f"m{last}") == seen_of(last)
    assert await gate.ask("ledger", 0, f"l{first}") > last // 10
    for left in ("SELECT 1 FROM inbox", "SELECT 1 FROM turn WHERE finished_at IS NULL"):
        await gate.until(left, lambda rows: not rows)


def seen_of(last: int) -> int:
    """How many of the messages 0 to `last` the worker takes: one in twenty fails."""
    return last + 1 - len(range(7, last + 1, 20))


async def kept(gate: RunningGate) -> dict[str, int]:
    """Rows of every table, and on SQLite the pages of the file."""
    names = sorted(SQLModel.metadata.tables)
    found = {name: (await gate.rows(f'SELECT COUNT(*) FROM "{name}"'))[0][0] for name in names}
    if gate.store.dialect == "sqlite":
        found["pages"] = (await gate.rows("PRAGMA page_count"))[0][0]
    return found


async def test_what_is_kept_does_not_grow_with_the_turns(quick_url: str) -> None:
    """After the first window no table has more rows, and the file no more pages, however many turns come."""
    async with running(quick_url, turn_attempts_max=1) as gate:
        code = await gate.code(SOURCE)
        for name in ("worker", "ledger", "feeder"):
            await gate.agent(name, code, name.capitalize(), suspend_after_ms=60_000)
        sweep = Retention(
            gate.store,
            turn_retention_s=0.0,
            event_retention_s=0.0,
            usage_retention_s=0.0,
            dead_letter_retention_s=0.0,
        )
        seen = []
        many = TURNS // WINDOWS
        for number in range(WINDOWS):
            await window(gate, number * many, many)
            assert (await gate.rows("SELECT COUNT(*) FROM dead_letter"))[0][0] == many // 20
            for _ in range(0, 2 * many, ROWS_MAX * ROUNDS_MAX):  # one takes so many; the worker has not all turns
                await sweep.sweep(time.time())
            seen.append(await kept(gate))
    for later in seen[2:]:
        assert later.pop("pages", 0) <= seen[1].get("pages", 0) * 1.05 + 8
        assert later.pop("event") <= seen[1]["event"] + 5  # a summary may come just then
        assert later.pop("meta") <= seen[1]["meta"] + 1  # and with the first one a mark
        assert later.pop("traffic", 0) <= 16  # whom the agent hears: written once in a while, and perhaps not before
        assert {name: (seen[1][name], rows) for name, rows in later.items() if rows > seen[1][name]} == {}
    assert seen[-1]["turn"] == 3  # those that the agents started with
    assert seen[-1]["dead_letter"] == 0


async def test_helpers_leave_no_names(database_url: str) -> None:
    """An agent that spawns a helper in each turn keeps nothing of them, once their time is over; the names are free."""
    async with running(database_url) as gate:
        await gate.agent("boss", await gate.code(HELPERS), "Boss", watches=[], mandate={"purpose": "", "grants": []})
        sweep = Retention(gate.store, turn_retention_s=0.0, event_retention_s=0.0)
        for first in (0, 100):  # the second time anew, under names of before
            for n in range(10):
                assert await gate.ask("boss", n, f"m{first + n}") == "done"
            await gate.until("SELECT 1 FROM agent WHERE name <> 'boss'", lambda rows: not rows)
            assert (await gate.rows("SELECT COUNT(*) FROM resource"))[0][0] == 11
            await sweep.sweep(time.time() + 1)
            assert await gate.rows("SELECT name, generation FROM resource") == [("boss", 1)]
