"""Who talks to whom is counted from the turns that handled it: each message once, through deaths of the gate."""

from typing import Any

import pytest

from controlplane.effects import traffic
from controlplane.effects.entries import at_time
from controlplane.operations.living import topology
from controlplane.store import traffic as sql
from controlplane.store.store import Store
from controlplane.store.unit import Unit
from schemas.discovery import TopologyInput
from schemas.principal import Call, Principal
from tests.gate.running import running
from tests.operations.plane import Plane, route

pytestmark = pytest.mark.anyio
SOURCE = """
from ray_runtime import Agent


class Talker(Agent):
    async def on_message(self, turn, envelope):
        if isinstance(envelope.data, int) and envelope.data:
            turn.continue_as(envelope.data - 1)
        elif envelope.data == "tell":
            turn.send("listener", "x" * 1000)
            turn.publish("news", 1)
        else:
            return envelope.data


class Listener(Agent):
    async def on_message(self, turn, envelope):
        return 1
"""
EDGES = "SELECT source, name, channel, messages, chars FROM traffic ORDER BY name, source, channel"


async def seen(store: Store, *namespaces: str, **given: Any) -> list[tuple[str, str, str | None, int]]:
    principal = Principal("eye", "viewer", namespaces or ("*",))
    handler = topology.handlers(store)["discovery.topology"]
    found: Any = await handler(Call(principal, "discovery.topology", 1.0), TopologyInput(**given))
    return [(it.source, it.name, it.channel, it.messages) for it in found.items]


async def test_each_message_is_counted_once(quick_url: str) -> None:
    """Straight or by a channel, by who sent it; a turn that goes on is one; a killed gate changes nothing."""
    async with running(quick_url) as gate:
        code = await gate.code(SOURCE)
        talker = await gate.agent("talker", code, "Talker")
        listener = await gate.agent("listener", code, "Listener")
        await gate.channel("news", listener)
        for number in range(3):
            await gate.send("talker", "tell", f"m{number}")
        await gate.ask("talker", 2, "m-continued")
        await gate.until(EDGES, lambda rows: sum(it[3] for it in rows) == 10)
        gate.kill()
        gate.start()
        await gate.client.up()
        await gate.send("talker", "tell", "m-after")
        rows = await gate.until(EDGES, lambda rows: sum(it[3] for it in rows) == 13)
        assert talker
        assert [it[:4] for it in rows] == [
            ("/default/agents/talker", "listener", "", 4), ("/default/agents/talker", "listener", "news", 4),
            ("/operators/test", "talker", "", 5),
        ]  # fmt: skip
        assert rows[0][4] > 4000 > rows[1][4]
        plan = await Plane(gate.store).propose(route("back", source={"channel": "news"}, sink={"agent": "talker"}))
        (circle,) = [it["data"] for it in plan["notes"] if it["code"] == "LOOP_OBSERVED"]
        assert (circle["agents"], circle["observed"][0]["channel"]) == (["talker"], "news")
        assert circle["observed"][0]["messages"] == 4
        assert await seen(gate.store, "elsewhere") == []
        assert await seen(gate.store, name="talker", namespace="default") == [
            ("/default/agents/talker", "listener", None, 4), ("/default/agents/talker", "listener", "news", 4),
            ("/operators/test", "talker", None, 5),
        ]  # fmt: skip


def test_only_what_was_made_here_is_read() -> None:
    """A source that the data of an envelope names counts for nothing; an unknown form is of the others."""
    time = at_time(90.0)
    head = f'{{"specversion":"1.0","id":"m","source":"/a/agents/b","type":"t","subject":"c/d","time":"{time}"'
    forged = '{"data":{"source":"/x"},"source":"/a/agents/b"'
    sums = traffic.counted([(it, "}", 10, 100.0, 101.0, "c", "d") for it in (head, head, forged)])
    assert sums == {
        traffic.Edge("c", "d", "/a/agents/b", ""): traffic.Sum(2, 20, 20.0, 100.0, 101.0),
        traffic.Edge("c", "d", "*", ""): traffic.Sum(1, 10, 0.0, 100.0, 101.0),
    }


async def test_sources_beyond_a_number_are_counted_together(store: Store) -> None:
    """Those that are known go on by themselves; nothing is lost."""
    one = traffic.Sum(1, 1, 0.0, 1.0, 1.0)

    async def come(first: int, last: int) -> None:
        edges = {traffic.Edge("d", "a", f"/d/agents/{number}", ""): one for number in range(first, last)}
        unit = Unit()
        for statement, params, _ in traffic.rows_of(edges):
            unit.raw(statement, params)
        assert await store.write(unit)

    await come(0, sql.SOURCES_MAX + 5)
    await come(0, 3)
    await come(sql.SOURCES_MAX + 3, sql.SOURCES_MAX + 8)
    page = await seen(store, namespace="d", limit=500)
    counts = {source: messages for source, _, _, messages in page}
    assert len(counts) == sql.SOURCES_MAX + 1
    assert sum(counts.values()) == sql.SOURCES_MAX + 13
    assert (counts["/d/agents/0"], counts["*"]) == (2, 8)
