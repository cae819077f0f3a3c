"""Routes on a real gate: from channel to channel, from a database and into it, with replies, paused, and mended."""

import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from schemas.problem import Refusal
from tests.gate.routed import POLL, apply, came, publish, read, routed
from tests.gate.running import true
from tests.gate.test_moving import step
from tests.operations.plane import channel, route
from tests.protocols.database import Database, database

pytestmark = pytest.mark.anyio
LETTERS = "SELECT message_id, reason FROM dead_letter"


@pytest.fixture
async def far(anyio_backend: str, tmp_path: Path) -> AsyncIterator[Database]:
    (tmp_path / "far").mkdir()
    async with database("sqlite", tmp_path / "far", None) as found:
        yield found


async def test_from_a_channel_through_a_filter_and_a_transform_into_another(quick_url: str, far: Database) -> None:
    """In order, what passes alone; who writes to the worker itself goes no way round; what does not fit is a letter."""
    async with routed(quick_url, far, turn_attempts_max=1) as (gate, plane):
        spec = {"filter": "data.n % 2 == 0", "transform": '{"half": n / 2, "from": $envelope.id}'}
        await apply(plane, route("halves", source={"channel": "orders"}, sink={"channel": "done"}, **spec))
        for n in range(6):
            await publish(gate, "orders", n, {"n": n})
        assert await came(gate, "done", 3) == [{"half": n / 2, "from": f"orders{n}"} for n in (0, 2, 4)]
        assert [it["causationid"] for it in await read(gate, "done")] == ["orders0", "orders2", "orders4"]
        await gate.send("halves-0", {"n": 8}, "past")
        await publish(gate, "orders", 6, {"m": 1})
        await publish(gate, "orders", 7, {"n": 10})
        assert (await came(gate, "done", 4))[3]["half"] == 5
        letters = dict(await gate.until(LETTERS, lambda rows: len(rows) == 2))
        assert letters == {"past": "INVALID_VALUE", "orders6": "INVALID_VALUE"}


async def test_a_message_that_would_take_everything_takes_itself_alone(quick_url: str, far: Database) -> None:
    """Time or memory without end is a dead letter; another route of the same host goes on, and so does this one."""
    async with routed(quick_url, far, turn_attempts_max=3) as (gate, plane):
        text = '$contains(text, /^(a+)+$/) ? "all" : $pad("x", wide)'
        await apply(
            plane,
            route("greedy", source={"channel": "orders"}, sink={"channel": "done"}, transform=text),
            route("plain", source={"channel": "orders"}, sink={"channel": "replies"}, filter="data.wide > 0"),
        )
        for n, (said, wide) in enumerate([("aa", 1), ("a" * 99 + "!", 1), ("b", 2_000_000_000), ("b", 3)]):
            await publish(gate, "orders", n, {"text": said, "wide": wide})
        assert await came(gate, "done", 2) == ["all", "x  "]
        assert len(await came(gate, "replies", 4)) == 4
        letters = await gate.rows(LETTERS)
        assert [it[0] for it in letters] == ["orders1", "orders2"]
        found = await plane.call("routes.get", name="greedy")
        assert (found["status"]["passed"], found["status"]["dead"]) == (2, 2)
        assert (await plane.call("routes.get", name="plain"))["status"]["passed"] == 4


async def test_from_a_database_into_a_channel_and_back(quick_url: str, far: Database) -> None:
    """Each row once, also those that come later with the same cursor; orders change the shop, and are answered."""
    async with routed(quick_url, far) as (gate, plane):
        await apply(
            plane,
            route("rows", source={"poll": POLL}, filter="data.stock >= 7", sink={"channel": "done"}),
            route(
                "sales",
                source={"channel": "orders"},
                transform='{"parameters": {"id": item}}',
                sink={
                    "effect": "sql.execute",
                    "connection": "shop",
                    "arguments": {"statement": "UPDATE item SET stock = stock - 1 WHERE id = :id"},
                    "accept": "result.rows_changed == 1",
                    "attempts_max": 1,
                },
                reply={"channel": "replies"},
            ),
        )
        assert [it["id"] for it in await came(gate, "done", 3)] == [7, 8, 9]
        far.do("INSERT INTO item VALUES (10, 'item 10', 10)")
        assert [it["id"] for it in await came(gate, "done", 4)] == [7, 8, 9, 10]
        await publish(gate, "orders", 1, {"item": 10})
        assert await came(gate, "replies", 1) == [{"rows_changed": 1}]
        assert [it["causationid"] for it in await read(gate, "replies")] == ["orders1"]
        assert far.do("SELECT stock FROM item WHERE id = 10") == [(9,)]
        await publish(gate, "orders", 2, {"item": 99})
        letters = await gate.until(LETTERS, bool)
        assert letters == [("orders2", "EFFECT_FAILED")]
        again = {**POLL, "begin": 9}
        await apply(plane, route("rows", source={"poll": again}, filter="data.stock >= 7", sink={"channel": "done"}))
        assert [it["id"] for it in await came(gate, "done", 6)] == [7, 8, 9, 10, 9, 10], "read again from there"


async def test_what_is_not_accepted_is_not_done_again(quick_url: str, far: Database) -> None:
    """It was done; its message is a dead letter after its attempts, and the shop was changed once."""
    async with routed(quick_url, far, turn_attempts_max=2) as (gate, plane):
        sink = {
            "effect": "sql.execute",
            "connection": "shop",
            "arguments": {"statement": "UPDATE item SET stock = stock - 1 WHERE id = :id"},
            "accept": "result.rows_changed == 2",
        }
        await apply(
            plane, route("sales", source={"channel": "orders"}, sink=sink, transform='{"parameters": {"id": n}}')
        )
        await publish(gate, "orders", 1, {"n": 9})
        letters = await gate.until(LETTERS, bool)
        assert letters == [("orders1", "EFFECT_FAILED")]
        assert far.do("SELECT stock FROM item WHERE id = 9") == [(8,)]


async def test_a_large_table_is_read_by_and_by(quick_url: str, far: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each row once and in order; what is read waits for the rows before, so that the inbox stays small."""
    many = 230
    far.do(*(f"INSERT INTO item VALUES ({n}, 'item', 1)" for n in range(100, 100 + many)))
    async with routed(quick_url, far, inbox_messages_max=130) as (gate, plane):
        poll = {**POLL, "begin": 100}
        await apply(plane, route("rows", source={"poll": poll}, sink={"channel": "done"}))
        assert [it["id"] for it in await came(gate, "done", many)] == list(range(100, 100 + many))
        assert await gate.rows(LETTERS) == []
        await gate.until("SELECT 1 FROM inbox WHERE trigger = 'message'", lambda rows: not rows)
        (began,) = await gate.rows("SELECT updated_at FROM resource WHERE kind = 'Route'")
        monkeypatch.setattr("controlplane.operations.views.time.time", lambda: began[0] + 3600)
        found = await plane.call("routes.get", name="rows")
        assert found["status"]["source_per_hour"] == many == found["status"]["passed"], "what it told itself is no row"


async def test_what_is_told_in_the_log_is_passed_on_and_counted(
    quick_url: str, far: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the others' failures each; of its own, and of what its own turns make, none."""
    async with routed(quick_url, far, turn_attempts_max=1) as (gate, plane):
        began, source = time.time(), {"events": {"types": ["message.dead_lettered", "turn.failed"]}}
        await apply(
            plane,
            route("letters", source=source, sink={"channel": "done"}),
            route("odd", source={"channel": "orders"}, sink={"agent": "nobody"}, transform="n"),
            route("lost", source=source, sink={"agent": "nobody"}),
        )
        await gate.send("letters-0", {"n": 8}, "past")
        await gate.until("SELECT 1 FROM event WHERE type = 'turn.failed' AND name = 'letters-0'", bool)
        await publish(gate, "orders", 0, {"n": 1})
        told = await came(gate, "done", 4)
        assert [it["subject"]["name"] for it in told] == ["nobody"] * 4, "three of what the other passed on in vain"
        monkeypatch.setattr("controlplane.operations.views.time.time", lambda: began + 3600)
        for name, many in (("letters", 4), ("lost", 3)):
            await gate.until(f"SELECT 1 FROM agent WHERE name = '{name}-0' AND version > {many}", bool)
            found = (await plane.call("routes.get", name=name))["status"]
            assert (found["source_per_hour"], found["passed"]) == (many, many), name


async def test_a_paused_route_keeps_what_comes(quick_url: str, far: Database) -> None:
    """Nothing goes on until it is resumed, and nothing of it is lost."""
    async with routed(quick_url, far) as (gate, plane):
        await apply(plane, route("all", source={"channel": "orders"}, sink={"channel": "done"}))
        found = await plane.call("routes.pause", name="all")
        assert {it["type"]: it["status"] for it in found["status"]["conditions"]}["Paused"] == "true"
        for n in range(3):
            await publish(gate, "orders", n, n)
        await gate.until("SELECT 1 FROM inbox", lambda rows: len(rows) == 3)
        assert await read(gate, "done") == []
        await plane.call("routes.resume", name="all")
        assert await came(gate, "done", 3) == [0, 1, 2]
        with pytest.raises(Refusal) as absent:
            await plane.call("routes.pause", name="none")
        assert absent.value.problem.reason == "NOT_FOUND"
        plan = await plane.call("routes.delete", name="all")
        await plane.commit(plan)
        left: list[int] = [1]

        async def gone() -> None:
            await step(plane)
            left[0] = len(await gate.rows("SELECT 1 FROM agent"))

        for _ in range(200):
            await gone()
            if not left[0]:
                break
        await true(lambda: not left[0])
        assert await gate.rows("SELECT 1 FROM subscription") == []


async def test_what_changed_around_a_route_takes_its_messages_one_by_one(quick_url: str, far: Database) -> None:
    """A sink with another schema, a table that is gone: each message has its letter, and what fits goes on in order."""
    async with routed(quick_url, far, turn_attempts_max=1) as (gate, plane):
        sink = {
            "effect": "sql.execute", "connection": "shop", "attempts_max": 1,
            "arguments": {"statement": "UPDATE item SET stock = 0 WHERE id = :id"},
        }  # fmt: skip
        sales = route("sales", source={"channel": "orders"}, sink=sink, transform='{"parameters": {"id": n}}',
                      reply={"channel": "replies"})  # fmt: skip
        await apply(plane, route("all", source={"channel": "orders"}, sink={"channel": "done"}, transform="n"), sales)
        await apply(plane, channel("done", dataschema={"type": "integer"}))
        far.do("ALTER TABLE item RENAME TO gone")
        await publish(gate, "orders", 0, {"n": "7"})
        letters = await gate.until("SELECT message_id, reason FROM dead_letter", lambda rows: len(rows) == 2)
        assert {it[0] for it in letters} == {"orders0"}
        far.do("ALTER TABLE gone RENAME TO item")
        for n in (1, 2):
            await publish(gate, "orders", n, {"n": n})
        assert await came(gate, "done", 2) == [1, 2]
        assert await came(gate, "replies", 2) == [{"rows_changed": 1}] * 2
        for name in ("all", "sales"):
            found = await plane.call("routes.get", name=name)
            assert (found["status"]["passed"], found["status"]["dead"]) == (2, 1)
            own = await plane.call("channels.dead_letters", namespace="default", name=name)
            assert [it["name"] for it in own["items"]] == [f"{name}-0"]
