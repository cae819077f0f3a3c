"""What the gate looks for every two seconds costs what is there to do, never what is suspended."""

import asyncio
import sqlite3
from types import SimpleNamespace
from typing import Any

import pytest

from controlplane.effects.reading import Reader
from controlplane.effects.timers import NEVER_S, Timers
from controlplane.mesh.delivery import SOME
from controlplane.store import expired, invitations, watching
from controlplane.store import statements as sql
from controlplane.store.unit import Unit
from tests.scale.conftest import Sized
from tests.scale.counting import STEPS_EACH

pytestmark = pytest.mark.anyio
NOW, LATER = 1_800_000_000.0, 2_000_000_000.0
SWEEPS: dict[str, tuple[str, tuple[float | str, ...]]] = {
    "agents that have messages": (sql.WAITING_AGENTS, ("", 2_000)),
    "agents of which a branch waits": (sql.BRANCHED_AGENTS, ("", 500)),
    "who watches the log, some at a time": (watching.PLACES, ("", "", 10)),
    "agents that have an owner": (sql.OWNED_AGENTS, ()),
    "members that lag": (watching.LAGGING + SOME, (500, 0)),
    "timers that are due": (sql.DUE_TIMERS, (NOW,)),
    "the next timer": (sql.NEXT_TIMER, ()),
    "awaits that are due": (sql.DUE_AWAITS, (NOW,)),
    "the next await": (sql.NEXT_AWAIT, ()),
    "questions whose message has expired": (expired.EXPIRED, (NOW,)),
    "the next one to expire": (expired.NEXT_EXPIRED, ()),
    "guests whose invitation is over": (invitations.OVER, (NOW, 200)),
    "hosts": (sql.LIVE_HOSTS, ()),
    "turns that nobody was told of": (sql.UNSUMMARISED, (LATER, LATER + 1)),
}


async def _wait(it: Sized) -> None:
    """Each agent waits as agents do: a member of a channel that is up to date, with a timer, parked on an answer."""
    unit = Unit()
    unit.raw(
        "INSERT INTO subscription (channel, agent, position, since)"
        " SELECT c.uid, a.uid, c.next_position - 1, 0 FROM channel c, agent a",
        [],
    )
    unit.raw(
        "INSERT INTO timer (agent, name, version, fired, due_at, data, cron, zone)"
        " SELECT uid, 't', 1, 0, ?, '{}', '*/5 * * * *', 'Europe/Berlin' FROM agent",
        [LATER],
    )
    unit.raw(
        "INSERT INTO awaiting (await_id, agent, turn_id, branch, position, kind, target, since, until)"
        " SELECT 'a' || uid, uid, 't' || uid, '0', 1, 'ask', 'x', 0, ? FROM agent",
        [LATER],
    )
    unit.raw(
        "INSERT INTO feedback_watch (agent, watch, position, told, since, filter, debounce_s, batch_max)"
        " SELECT uid, 'w', 1000000, 0, 0, '{}', 0, 1 FROM agent",
        [],
    )
    assert await it.store.write(unit)


def _steps(it: Sized, query: str, values: tuple[float | str, ...]) -> int:
    connection = sqlite3.connect(it.store.url.removeprefix("sqlite:///"))
    steps = [0]

    def stepped() -> int:
        steps[0] += STEPS_EACH
        return 0

    connection.set_progress_handler(stepped, STEPS_EACH)
    connection.execute(query, values).fetchall()
    connection.close()
    return steps[0]


async def test_a_sweep_does_not_see_who_waits(sized: list[Sized]) -> None:
    """With fifty times the agents suspended, parked and subscribed, each look takes the same steps."""
    for it in sized:
        await _wait(it)
    for what, (query, values) in SWEEPS.items():
        few, many = [_steps(it, query, values) for it in sized]
        assert many <= few + 5 * STEPS_EACH, what


async def test_messages_of_who_can_not_take_them_are_not_walked(sized: list[Sized]) -> None:
    """An agent that is parked costs a look one step, whether one message waits for it or a thousand."""
    costs = []
    for it in sized:
        await _wait(it)
        unit = Unit()
        for number in range(it.size):
            unit.raw(
                "INSERT INTO inbox (agent, message_id, trigger, body, accepted_at, attempts)"
                " SELECT uid, ?, 'message', '{}', 0, 0 FROM agent WHERE name = 'crowd-1'",
                [f"m{number}"],
            )
        assert await it.store.write(unit)
        costs.append(_steps(it, sql.WAITING_AGENTS, ("", 2_000)))
    assert costs[1] <= costs[0] + 5 * STEPS_EACH


class _Counted(Reader):
    """A gate's reader that counts."""

    read = 0

    def rows(self, sql: str, *params: Any) -> list[tuple[Any, ...]]:
        self.read += 1
        return super().rows(sql, *params)


async def test_expressions_that_are_not_due_are_not_looked_at(sized: list[Sized]) -> None:
    """A look at a thousand cron timers takes seven statements, as at twenty, writes nothing, and sleeps long."""
    for it in sized:
        await _wait(it)
        reader = _Counted(it.store.url)
        delaying = SimpleNamespace(due=lambda _: [], paused_until=0.0)
        node = SimpleNamespace(reader=reader, clock=lambda: NOW, delaying=delaying)  # no writer: what fired would fail
        timers = Timers(node)  # type: ignore[arg-type]
        timers.look()
        assert reader.read == 7
        handle = timers._handle
        assert handle is not None
        assert handle.when() - asyncio.get_running_loop().time() > NEVER_S - 60
        timers.end()
        reader.close()
