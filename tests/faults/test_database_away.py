"""A database that goes in the wrong moment: nobody waits for an answer that can not come, and nothing is forgotten."""

import asyncio
import time
from types import SimpleNamespace
from typing import Any

import orjson
import pytest
from sqlalchemy import text

from controlplane.effects.reading import Away
from controlplane.effects.timers import Timers
from controlplane.store import statements as sql
from controlplane.store.store import Store
from schemas.problem import Refusal
from tests.faults.points import Arming, fault, supervised
from tests.gate.running import running, true
from tests.gate.zoo import SOURCE
from tests.postgres import Postgres

pytestmark = pytest.mark.anyio


async def test_a_publication_whose_position_can_not_be_read_is_in_doubt(own_server: Postgres, arming: Arming) -> None:
    """It is committed, and the database is gone before it is answered: at once IN_DOUBT, and said again, the same."""
    async with running(own_server.create()) as gate:
        member = await gate.agent("member", await gate.code(SOURCE), "Member")
        await gate.channel("news", member)

        def publish() -> Any:
            body = orjson.dumps({
                "specversion": "1.0", "id": "c1", "source": "/operators/test", "type": "steward.message",
                "time": "2026-01-01T00:00:00Z", "data": 1,
            })  # fmt: skip
            return gate.client.publish_channel("default", "news", "c1", body)

        arming.arm("gate.channel.committed", act="stand", seconds=30)
        publishing = asyncio.create_task(publish())
        await arming.fired()
        await asyncio.to_thread(own_server.stop_server, "immediate")
        begun = time.monotonic()
        arming.go()
        with pytest.raises(Refusal) as refused:
            await publishing
        assert time.monotonic() - begun < 10
        assert (refused.value.problem.reason, refused.value.problem.changed) == ("IN_DOUBT", "unknown")
        await asyncio.to_thread(own_server.start_server)
        assert (await publish())["position"] == 1
        await gate.until("SELECT 1 FROM turn WHERE agent = 'agent_member' AND message_id = 'c1'", bool)


async def test_whoever_reads_is_told_each_time_that_the_database_is_away(own_server: Postgres) -> None:
    """Not the first time only, when a connection was lost; and it is read again as soon as it is there."""
    store = Store(own_server.create(), Unwritten())

    async def read() -> Any:
        return await store.read(lambda session: session.connection().execute(text("SELECT 1")).scalar())

    assert await read() == 1
    await asyncio.to_thread(own_server.stop_server, "immediate")
    for _ in range(3):
        with pytest.raises(Refusal) as refused:
            await read()
        assert refused.value.problem.reason == "NOT_READY"
    await asyncio.to_thread(own_server.start_server)
    assert await read() == 1
    await store.close()


class Unwritten:
    """A writer that nobody asks."""

    async def write(self, statements: list[Any]) -> bool:
        raise NotImplementedError


async def test_a_gate_whose_writer_died_ends(postgresql_url: str, arming: Arming) -> None:
    """Of an error that its database never raises; what was said meanwhile is done by the next gate, once."""
    async with running(postgresql_url) as gate, supervised(gate):
        await gate.agent("ledger", await gate.code(SOURCE), "Ledger")
        first = gate.gate
        assert first is not None
        arming.put(fault("store.begin", "full"))
        await gate.send("ledger", {"n": 1}, "m1")
        await true(lambda: first.poll() == 1)
        assert (await gate.ask("ledger", "count", "c1", 30))["got"] == [1]


async def test_a_timer_whose_firing_met_no_database_fires_later() -> None:
    """A read that fails in the middle leaves no mark that it is firing already."""
    away = True
    committed: list[str] = []

    def one(query: str, *_: Any) -> None:
        if away and query == sql.FIRINGS_WAITING:
            raise Away("the database has gone")

    due = ("agent_a", "ring", 1, time.time() - 1, None, "1", None, None, "fire_once", 0, "default", "a")
    node = SimpleNamespace(
        reader=SimpleNamespace(rows=lambda query, *_: [due] if query == sql.DUE_TIMERS else [], one=one),
        clock=time.time,
        commit=lambda unit, *_: committed.append(unit),
        slots=SimpleNamespace(load=lambda _: None),
        delaying=SimpleNamespace(due=lambda _: [], paused_until=0.0),
    )
    timers = Timers(node)  # type: ignore[arg-type]
    with pytest.raises(Away):
        timers.look()
    away = False
    timers.look()
    assert committed == ["timer"]
    timers.end()
