"""Polls by columns that JSON writes otherwise than the database orders them: numerics, moments, collated text."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.gate.routed import apply, came, routed
from tests.gate.running import RunningGate
from tests.gate.test_failing_polls import TOLD, fired
from tests.operations.plane import route
from tests.postgres import Postgres
from tests.protocols.database import Database, database

pytestmark = pytest.mark.anyio


@pytest.fixture
async def postgresql(anyio_backend: str, tmp_path: Path, postgres: Postgres) -> AsyncIterator[Database]:
    (tmp_path / "far").mkdir()
    async with database("postgresql", tmp_path / "far", postgres) as found:
        yield found


@pytest.fixture
async def sqlite(anyio_backend: str, tmp_path: Path) -> AsyncIterator[Database]:
    (tmp_path / "far").mkdir()
    async with database("sqlite", tmp_path / "far", None) as found:
        yield found


def polled(name: str, table: str, column: str, begin: Any, sink: str) -> dict[str, Any]:
    """A route that passes on the ids of a table, in the order of a column."""
    poll = {
        "connection": "shop",
        "statement": f"SELECT id, {column} FROM {table} WHERE {column} >= :cursor ORDER BY {column}, id",
        "cursor": column, "id": "id", "begin": begin, "cron": "* * * * * *",
    }  # fmt: skip
    return route(name, source={"poll": poll}, sink={"channel": sink}, transform="id")


async def passed_once(gate: RunningGate, wanted: dict[str, list[int]]) -> None:
    """So much came, in this order; asked again and again, nothing comes twice, and no poll failed."""
    for sink, ids in wanted.items():
        assert await came(gate, sink, len(ids)) == ids
    await fired(gate, 2 * len(wanted))
    for sink, ids in wanted.items():
        assert await came(gate, sink, len(ids)) == ids
    assert await gate.rows(TOLD) == []
    assert await gate.rows("SELECT 1 FROM dead_letter") == []


async def test_numerics_and_moments_go_by_what_they_are(quick_url: str, postgresql: Database) -> None:
    """9 comes before 10, 9.0 and 9.00 are one, and so do moments before and after the clocks are put back."""
    name = postgresql.do("SELECT current_database()")[0][0]
    postgresql.do(
        f"ALTER DATABASE \"{name}\" SET timezone = 'Europe/Berlin'",
        "CREATE TABLE offer (id INTEGER, price NUMERIC)",
        "INSERT INTO offer VALUES (1, 9.00), (2, 9.0), (3, 10), (4, 100)",
        "CREATE TABLE seen (id INTEGER, at TIMESTAMPTZ)",
        "INSERT INTO seen VALUES (1, '2026-10-25T00:30Z'), (2, '2026-10-25T01:10Z')",
    )
    async with routed(quick_url, postgresql) as (gate, plane):
        await apply(
            plane, polled("prices", "offer", "price", 0, "done"), polled("times", "seen", "at", "2026-01-01", "replies")
        )
        await passed_once(gate, {"done": [1, 2, 3, 4], "replies": [1, 2]})
        postgresql.do(
            "INSERT INTO offer VALUES (5, 100.0), (6, 1e3), (7, 'NaN')",
            "INSERT INTO seen VALUES (3, '2026-10-25T01:30Z')",
        )
        await passed_once(gate, {"done": [1, 2, 3, 4, 5, 6, 7], "replies": [1, 2, 3]})


async def test_text_goes_by_its_collation(quick_url: str, sqlite: Database) -> None:
    """Which is the database's own: `b` comes before `C`, and `c` is `C`."""
    sqlite.do(
        "CREATE TABLE word (id INTEGER, said TEXT COLLATE NOCASE)",
        "INSERT INTO word VALUES (1, 'a'), (2, 'b'), (3, 'C'), (4, 'c'), (5, 'C')",
    )
    async with routed(quick_url, sqlite) as (gate, plane):
        await apply(plane, polled("words", "word", "said", "", "done"))
        await passed_once(gate, {"done": [1, 2, 3, 4, 5]})
        sqlite.do("INSERT INTO word VALUES (6, 'c'), (7, 'D')")
        await passed_once(gate, {"done": [1, 2, 3, 4, 5, 6, 7]})


@pytest.mark.parametrize("order", ["ORDER BY price DESC", "ORDER BY id"])
async def test_what_is_not_ordered_is_still_refused(quick_url: str, postgresql: Database, order: str) -> None:
    """Nothing of it is passed on: numbers say whether they are in order."""
    postgresql.do(
        "CREATE TABLE offer (id INTEGER, price NUMERIC)", "INSERT INTO offer VALUES (1, 100), (2, 9), (3, 10)"
    )
    async with routed(quick_url, postgresql) as (gate, plane):
        spec = polled("prices", "offer", "price", 0, "done")
        poll = spec["spec"]["source"]["poll"]
        poll["statement"] = poll["statement"].partition("ORDER")[0] + order
        await apply(plane, spec)
        told = await gate.until(TOLD, bool)
        assert "not ordered by price" in str(told[0][4])
        assert await gate.rows("SELECT 1 FROM channel_message") == []
