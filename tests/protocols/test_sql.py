"""The effector of SQL on real databases, in process: bounds, the fuse, keys, what is cut off, which files."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from controlplane.protocols.sql import SqlExecute, SqlQuery, effectors
from schemas.connection import connection_spec
from schemas.ports import Doubt, EffectCall, Link, Unreached
from schemas.problem import Refusal
from schemas.sql import SqlStatement
from tests.protocols.database import Database, database

pytestmark = pytest.mark.anyio


class Far:
    """A database of the outside, and the effects on it."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.sqlite = database.sqlite
        self.query, self.execute = self.effectors(database.folder)

    def effectors(self, *folders: Path) -> tuple[SqlQuery, SqlExecute]:
        query, execute = effectors(folders)
        assert isinstance(query, SqlQuery)
        assert isinstance(execute, SqlExecute)
        return query, execute

    def link(self, limits: dict[str, Any] | None = None, endpoint: str = "", **options: Any) -> Link:
        given = {
            "protocol": "sql",
            "endpoint": endpoint or self.database.endpoint,
            "limits": limits or {},
            "options": {"allow_private": True, **options},
        }
        return Link("shop", connection_spec(given))

    def do(self, *statements: str) -> list[Any]:
        return self.database.do(*statements)

    async def ask(self, link: Link, statement: str, **parameters: Any) -> Any:
        return await self.query.execute(SqlStatement(statement=statement, parameters=parameters), EffectCall("k", link))

    async def change(self, link: Link, statement: str, *, rows: int | None = None, key: str = "k", **given: Any) -> Any:
        """As the gate does it: counted, then done under what was counted, or under `rows`."""
        arguments = SqlStatement(statement=statement, parameters=given)
        counted = (await self.execute.preview(arguments, link)).magnitudes
        judged = counted if rows is None else {"rows": rows}
        return await self.execute.execute(arguments, EffectCall(key, link, judged=judged))


@pytest.fixture(params=["sqlite", "postgresql"])
async def far(request: pytest.FixtureRequest, anyio_backend: str, tmp_path: Path) -> AsyncIterator[Far]:
    """Ten items in a shop, on SQLite and on PostgreSQL."""
    server = request.getfixturevalue("postgres") if request.param == "postgresql" else None
    async with database(request.param, tmp_path, server) as found:
        yield Far(found)


async def test_a_query_answers_rows_within_its_bounds(far: Far) -> None:
    """Bound parameters, columns of one name, types as JSON; rows and bytes are cut where the connection says."""
    found = await far.ask(far.link(), "SELECT id, id, name FROM item WHERE name = :name", name="item 3")
    assert found == {
        "columns": ["id", "id_2", "name"],
        "rows": [{"id": 3, "id_2": 3, "name": "item 3"}],
        "truncated": False,
        "row_count": 1,
    }
    assert (await far.ask(far.link(), "SELECT name FROM item WHERE name = :n", n="' OR 1=1 --"))["rows"] == []
    cut = await far.ask(far.link(query_rows_max=4), "SELECT id FROM item ORDER BY id")
    assert ([it["id"] for it in cut["rows"]], cut["truncated"]) == ([0, 1, 2, 3], True)
    small = await far.ask(far.link({"response_bytes_max": 20}), "SELECT id FROM item ORDER BY id")
    assert (len(small["rows"]), small["truncated"]) == (2, True)


async def test_a_query_changes_nothing_whatever_it_calls(far: Far) -> None:
    """What the grammar can not see, the transaction refuses."""
    if far.sqlite:
        assert (await far.ask(far.link(), "SELECT 1 AS a"))["rows"] == [{"a": 1}]
        return
    far.do(
        "CREATE FUNCTION sly() RETURNS int LANGUAGE sql AS 'DELETE FROM item RETURNING 1'",
    )
    with pytest.raises(Refusal) as refused:
        await far.ask(far.link(), "SELECT sly()")
    assert "read-only" in refused.value.problem.detail
    assert far.do("SELECT count(*) FROM item") == [(10,)]


async def test_a_change_is_counted_and_blows_its_fuse(far: Far) -> None:
    """The count is that of the rows; one more than was judged, and nothing is written."""
    link = far.link(rows_max=5)
    previewed = await far.execute.preview(SqlStatement(statement="DELETE FROM item WHERE id >= 4"), link)
    assert (previewed.magnitudes, previewed.most) == ({"rows": 6}, {"rows": 5})
    done = await far.change(link, "UPDATE item SET stock = stock + :by WHERE id < 3", by=100)
    assert done == {"rows_changed": 3}
    with pytest.raises(Refusal) as refused:
        await far.change(link, "UPDATE item SET stock = 0 WHERE id < 3", rows=2)
    assert refused.value.problem.reason == "MORE_THAN_JUDGED"
    assert far.do("SELECT stock FROM item WHERE id < 3 ORDER BY id") == [(100,), (101,), (102,)]
    told = await far.change(link, "INSERT INTO item VALUES (:a, 'x', 1), (:b, 'y', 2) RETURNING id", a=20, b=21)
    assert (told["rows_changed"], told["rows"]) == (2, [{"id": 20}, {"id": 21}])
    copied = await far.change(link, "INSERT INTO item SELECT id + 100, name, stock FROM item WHERE id < 2")
    assert copied == {"rows_changed": 2}
    with pytest.raises(Refusal) as refused:
        await far.change(link, "INSERT INTO item VALUES (1, 'twice', 1)")
    assert refused.value.problem.reason == "EFFECT_FAILED"
    assert "nothing of it is written" in refused.value.problem.detail


async def test_under_its_key_a_change_is_done_once(far: Far) -> None:
    """Sent again, also beside itself, it answers as the first time; another key is another change."""
    link = far.link(keys_table="steward_keys")
    grow = "UPDATE item SET stock = stock + 1 WHERE id = 7"
    answers = await asyncio.gather(*(_again(far, link, grow, "one") for _ in range(4)))
    assert answers == [{"rows_changed": 1}] * 4
    await far.change(link, grow, key="two")
    assert far.do("SELECT stock FROM item WHERE id = 7") == [(9,)]
    assert far.do("SELECT count(*) FROM steward_keys") == [(2,)]
    with pytest.raises(Refusal):
        await far.change(link, grow, rows=0, key="three")
    assert far.do("SELECT count(*) FROM steward_keys") == [(2,)], "a key is written with its change, or not at all"


async def test_a_table_with_keys_of_its_own_has_failures_of_its_own(far: Far) -> None:
    """A constraint that a statement breaks has failed, whatever its column is called; nobody tries it again."""
    far.do(
        "CREATE TABLE payment (idempotency_key VARCHAR(9) UNIQUE, paid INTEGER)", "INSERT INTO payment VALUES ('a', 1)"
    )
    for link in (far.link(), far.link(keys_table="steward_keys")):
        with pytest.raises(Refusal) as refused:
            await far.change(link, "INSERT INTO payment (idempotency_key, paid) VALUES ('a', 2)")
        assert refused.value.problem.reason == "EFFECT_FAILED"
    assert far.do("SELECT count(*) FROM steward_keys") == [(0,)]


async def _again(far: Far, link: Link, statement: str, key: str) -> Any:
    """As the gate sends again what says that it may be."""
    while True:
        try:
            return await far.change(link, statement, key=key)
        except Unreached:
            continue


async def test_only_a_commit_that_is_cut_off_is_in_doubt(far: Far) -> None:
    """Cut off before, it was not done and may be sent again; cut off at the commit, nobody knows."""
    if far.sqlite:
        return
    grow = "UPDATE item SET stock = stock + 1 WHERE id = 7"
    far.database.cut_on = b"UPDATE item"
    with pytest.raises(Unreached):
        await far.change(far.link(), grow, rows=1)
    assert far.do("SELECT stock FROM item WHERE id = 7") == [(7,)]
    link = far.link(keys_table="steward_keys")
    far.database.cut_on = b"COMMIT"
    with pytest.raises(Doubt):
        await far.change(link, grow, rows=1, key="one")
    assert await _again(far, link, grow, "one") == {"rows_changed": 1}
    assert far.do("SELECT stock FROM item WHERE id = 7") == [(8,)], "with its key it can be asked again"


@pytest.mark.parametrize(
    ("late", "said"),
    [
        ("RAISE EXCEPTION 'never'", "never"),
        ("RETURN NEW.id / 0", "division by zero"),
        ("PERFORM absent()", "does not exist"),
    ],
)
async def test_a_commit_that_was_rolled_back_is_not_in_doubt(far: Far, late: str, said: str) -> None:
    """What a deferred trigger raises has failed, whatever that is, and nothing is written."""
    if far.sqlite:
        return
    far.do(
        f"CREATE FUNCTION late() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN {late}; END$$",
        "CREATE CONSTRAINT TRIGGER late AFTER UPDATE ON item DEFERRABLE INITIALLY DEFERRED"
        " FOR EACH ROW EXECUTE FUNCTION late()",
    )
    with pytest.raises(Refusal, match=said) as refused:
        await far.change(far.link(), "UPDATE item SET stock = 0 WHERE id = 7")
    assert refused.value.problem.reason == "EFFECT_FAILED"
    assert far.do("SELECT stock FROM item WHERE id = 7") == [(7,)]


async def test_no_more_rows_are_returned_than_a_query_answers(far: Far) -> None:
    """All that a change returns is read at once; without RETURNING it is done."""
    link = far.link(query_rows_max=3)
    for rows in (None, 4):
        with pytest.raises(Refusal) as refused:
            await far.change(link, "UPDATE item SET stock = 0 WHERE id < 4 RETURNING id", rows=rows)
        assert refused.value.problem.reason == "LIMIT_REACHED"
    assert await far.change(link, "UPDATE item SET stock = 0 WHERE id < 4") == {"rows_changed": 4}


async def test_what_takes_too_long_is_cancelled(far: Far) -> None:
    """Also at the database: it is told so, and the connection can be used again."""
    link = far.link({"timeout_s": 0.4, "in_flight_max": 1})
    slow = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
    with pytest.raises(Refusal) as refused:
        await far.ask(link, slow if far.sqlite else "SELECT pg_sleep(60)")
    assert refused.value.problem.reason == "EFFECT_FAILED"
    while True:
        try:
            assert (await far.ask(link, "SELECT 1 AS a"))["rows"] == [{"a": 1}]
            return
        except Refusal:
            continue


async def test_only_what_may_be_reached_is(far: Far, tmp_path: Path) -> None:
    """Inner addresses, files outside of the allowed folders, and drivers that are not there."""
    if far.sqlite:
        (tmp_path / "inside").mkdir()
        (tmp_path / "inside" / "link.db").symlink_to(tmp_path / "shop.db")
        query, _ = far.effectors(tmp_path / "inside")
        for name in ("../shop.db", "link.db", f"{tmp_path}/shop.db", "absent.db"):
            with pytest.raises(Refusal) as refused:
                await query.execute(
                    SqlStatement(statement="SELECT 1"), EffectCall("k", far.link(endpoint=f"sqlite:///{name}"))
                )
            assert refused.value.problem.reason == "FORBIDDEN_ADDRESS", name
        assert not (tmp_path / "inside" / "absent.db").exists()
        return
    with pytest.raises(Refusal) as refused:
        await far.ask(far.link(allow_private=False), "SELECT 1")
    assert refused.value.problem.reason == "FORBIDDEN_ADDRESS"
    with pytest.raises(Refusal) as refused:
        await far.ask(far.link(endpoint="mssql://127.0.0.1/shop"), "SELECT 1")
    assert refused.value.problem.reason == "NOT_SET_UP"
    with pytest.raises(Unreached):
        await far.ask(far.link(endpoint="postgresql://127.0.0.1:1/shop"), "SELECT 1")
