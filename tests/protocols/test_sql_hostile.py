"""Statements that mean harm, and databases that are strange: what is sent was judged, and what broke is known."""

import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.dialects import registry
from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite

from controlplane.protocols import sql_running as running
from controlplane.protocols.scrubbing import scrubbed
from controlplane.protocols.sql_statements import change, query
from schemas.ports import Doubt, Unreached
from schemas.problem import Refusal
from tests.protocols.database import database
from tests.protocols.test_sql import Far

pytestmark = pytest.mark.anyio


@pytest.fixture
async def postgresql(request: pytest.FixtureRequest, anyio_backend: str, tmp_path: Path) -> AsyncIterator[Far]:
    async with database("postgresql", tmp_path, request.getfixturevalue("postgres")) as found:
        yield Far(found)


@pytest.mark.parametrize(
    ("dialect", "statement"),
    [
        ("postgres", "SELECT pg_notify('a', 'b')"),
        ("postgres", "SELECT pg_stat_reset()"),
        ("postgres", "SELECT pg_stat_statements_reset()"),
        ("postgres", "SELECT pg_catalog.pg_import_system_collations('x')"),
        ("postgres", "SELECT * FROM ROWS FROM (pg_ls_dir('/')) AS f"),
        ("postgres", "SELECT \"lo_import\"('/etc/passwd')"),
        ("sqlite", "SELECT * FROM pragma_database_list"),
        ("sqlite", "SELECT * FROM pragma_table_info('item')"),
        ("sqlite", "SELECT edit('x')"),
        ("mysql", "SELECT /*!50000 load_file('/etc/passwd'), */ load_file('/etc/passwd')"),
        ("duckdb", "SELECT * FROM read_csv('/etc/passwd')"),
        ("duckdb", "SELECT * FROM read_text('/etc/passwd')"),
        ("clickhouse", "SELECT * FROM url('http://example.com', 'CSV')"),
        ("clickhouse", "SELECT * FROM file('x')"),
        ("oracle", "SELECT utl_http.request('http://example.com') FROM dual"),
        ("oracle", "SELECT httpuritype('http://example.com').getclob() FROM dual"),
        ("oracle", "SELECT * FROM item@elsewhere"),
        ("oracle", "SELECT * FROM shop.item@elsewhere.example"),
        ("tsql", "SELECT * FROM OPENROWSET('a', 'b', 'c')"),
        ("tsql", "SELECT * FROM elsewhere.shop.dbo.item"),
        ("tsql", "SELECT * FROM elsewhere...item"),
        ("clickhouse", "SELECT * FROM urlCluster('a', 'http://example.com')"),
        ("clickhouse", "SELECT * FROM icebergS3('http://example.com')"),
        ("postgres", "SELECT pg_start_backup('x')"),
        ("postgres", "SELECT * FROM pg_hba_file_rules()"),
    ],
)
def test_what_reaches_beyond_the_statement_is_refused(dialect: str, statement: str) -> None:
    with pytest.raises(Refusal) as found:
        query(statement, {}, dialect)
    assert "beyond" in found.value.problem.detail


@pytest.mark.parametrize(
    ("dialect", "statement"),
    [
        ("clickhouse", "SELECT urlHierarchy(url), fileName FROM file"),
        ("oracle", 'SELECT * FROM "item@home"'),
        ("tsql", "SELECT * FROM shop.dbo.item"),
        ("tsql", "SELECT * FROM shop..item"),
    ],
)
def test_what_is_called_alike_is_taken(dialect: str, statement: str) -> None:
    """Columns, tables and functions within the database."""
    assert query(statement, {}, dialect).text


@pytest.mark.parametrize(
    "statement",
    [
        "MERGE INTO item USING item AS s ON item.id = s.id WHEN MATCHED THEN DELETE",
        "CREATE TABLE x (a int)",
        "CREATE TABLE x AS SELECT 1",
        "DROP TABLE item",
        "TRUNCATE item",
        "ALTER TABLE item ADD x int",
        "COPY item TO PROGRAM 'sh'",
        "DO $$ BEGIN END $$",
        "CALL f()",
        "GRANT ALL ON item TO public",
        "VACUUM",
        "WITH gone AS (DELETE FROM item RETURNING id) UPDATE item SET stock = 1",
        "INSERT INTO item VALUES (1) ; DELETE FROM item",
        "EXPLAIN ANALYZE DELETE FROM item",
    ],
)
def test_what_can_not_be_counted_is_no_change(statement: str) -> None:
    """Of no known size, or more than one: refused with the reason, and never a crash."""
    with pytest.raises(Refusal) as found:
        change(statement, {}, "postgres")
    assert (found.value.problem.reason, found.value.problem.field) == ("INVALID_VALUE", "/arguments/statement")


async def test_a_text_ends_where_it_was_read_to_end(postgresql: Far) -> None:
    """Also in a database of the old rule, where a backslash in a text takes the meaning from what follows."""
    name = postgresql.do("SELECT current_database()")[0][0]
    postgresql.do(f'ALTER DATABASE "{name}" SET standard_conforming_strings = off')
    hidden = "SELECT '\\' AS a, ' || (SELECT count(*) FROM item) || ' AS b"
    found = await postgresql.ask(postgresql.link(), hidden)
    assert found["rows"] == [{"a": "\\", "b": " || (SELECT count(*) FROM item) || "}]
    sneaked = "UPDATE item SET name = '\\' WHERE id = 1 AND name <> ' OR id > 0 --'"
    done = await postgresql.change(postgresql.link(), sneaked)
    assert done == {"rows_changed": 1}


async def test_what_is_returned_is_bounded_also_where_more_is_touched(postgresql: Far) -> None:
    """Between count and change others write; no more is read than was judged, and nothing stays."""
    link = postgresql.link(query_rows_max=5)
    postgresql.do("INSERT INTO item SELECT n, 'x', 0 FROM generate_series(100, 20099) AS n")
    statement = "UPDATE item SET stock = stock + 1 WHERE id < :most RETURNING id, id, repeat('x', 1000) AS wide"
    with pytest.raises(Refusal) as fused:
        await postgresql.change(link, statement, rows=5, most=30_000)
    assert fused.value.problem.reason == "LIMIT_REACHED", "it was counted anew, and would return too much"
    few = await postgresql.change(link, statement, most=2)
    assert (few["rows_changed"], few["columns"]) == (2, ["id", "id_2", "wide"])
    assert [it["id"] for it in few["rows"]] == [0, 1]
    none = await postgresql.change(link, statement, most=-1)
    assert (none["rows_changed"], none["rows"]) == (0, [])


async def test_a_change_that_grew_is_taken_back_without_being_read(
    postgresql: Far, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The database itself cuts what comes back at what was judged."""
    read: list[int] = []
    answer = running._answer

    def counted(found: Any, *rest: Any) -> dict[str, Any]:
        answered = answer(found, *rest)
        read.append(answered["row_count"] + len(list(found)))
        return answered

    monkeypatch.setattr(running, "_answer", counted)
    link = postgresql.link(query_rows_max=50)
    volatile = "UPDATE item SET stock = stock + 1 WHERE id < 10 RETURNING id"
    with pytest.raises(Refusal) as fused:
        await postgresql.change(link, volatile, rows=3)
    assert fused.value.problem.reason == "MORE_THAN_JUDGED"
    assert fused.value.problem.metadata["rows"] == 10
    assert read == [4]
    assert postgresql.do("SELECT sum(stock) FROM item") == [(45,)]


async def test_a_function_of_the_database_s_own_is_called_by_its_name(postgresql: Far) -> None:
    """Quoted, capitals and small letters are told apart."""
    postgresql.do("CREATE FUNCTION \"myFunc\"(int) RETURNS int LANGUAGE sql AS 'SELECT $1 + 1'")
    found = await postgresql.ask(postgresql.link(), 'SELECT "myFunc"(stock) AS more FROM item WHERE id = 7')
    assert found["rows"] == [{"more": 8}]
    assert await postgresql.change(postgresql.link(), 'UPDATE item SET stock = "myFunc"(stock) WHERE id = 7') == {
        "rows_changed": 1
    }
    assert postgresql.do("SELECT stock FROM item WHERE id = 7") == [(8,)]


class Standin(SQLiteDialect_pysqlite):
    """A dialect that somebody installed: of a server that is a file here."""

    name = "standin"
    supports_statement_cache = True
    path = ""
    breaks = ""

    def create_connect_args(self, url: Any) -> Any:
        assert (url.host, url.username, url.password) == ("127.0.0.1", "clerk", "s3cret/@")
        return [self.path], {"check_same_thread": False}

    def connect(self, *args: Any, **given: Any) -> Any:
        if self.breaks == "connect":
            raise RuntimeError("no route to clerk:s3cret/@127.0.0.1")
        return super().connect(*args, **given)

    def do_execute(self, cursor: Any, statement: str, parameters: Any, context: Any = None) -> None:
        if self.breaks == "execute" and "UPDATE" in statement:
            raise RuntimeError("the driver lost itself")
        super().do_execute(cursor, statement, parameters, context)

    def do_commit(self, dbapi_connection: Any) -> None:
        if self.breaks == "commit":
            raise RuntimeError("the driver lost itself")
        if self.breaks == "blocked":
            raise sqlite3.OperationalError("the connection is blocked")
        super().do_commit(dbapi_connection)


@pytest.fixture
async def strange(anyio_backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Far]:
    registry.register("standin", "tests.protocols.test_sql_hostile", "Standin")
    async with database("sqlite", tmp_path, None) as found:
        monkeypatch.setattr(Standin, "path", str(tmp_path / "shop.db"))
        yield Far(found)


def clerk(strange: Far, **options: Any) -> Any:
    from dataclasses import replace

    return replace(strange.link(endpoint="standin://clerk@127.0.0.1:5000/shop", **options), secret="s3cret/@")


async def test_a_dialect_that_somebody_installed_works_as_it_is(strange: Far) -> None:
    """By its URL: bound parameters, the preview, the fuse, keys."""
    link = clerk(strange, keys_table="steward_keys")
    found = await strange.ask(link, "SELECT id FROM item WHERE stock > :least ORDER BY id", least=7)
    assert found["rows"] == [{"id": 8}, {"id": 9}]
    take = "UPDATE item SET stock = stock - 1 WHERE id = :id"
    assert await strange.change(link, take, id=9) == {"rows_changed": 1}
    assert await strange.change(link, take, id=9) == {"rows_changed": 1}, "its key is known"
    assert strange.do("SELECT stock FROM item WHERE id = 9") == [(8,)]
    with pytest.raises(Refusal) as fused:
        await strange.change(link, "UPDATE item SET stock = 0", rows=2, key="other")
    assert fused.value.problem.reason == "MORE_THAN_JUDGED"
    with pytest.raises(Refusal) as second:
        await strange.ask(link, "SELECT 1; DELETE FROM item")
    assert second.value.problem.reason == "INVALID_VALUE"
    with pytest.raises(Refusal) as absent:
        await strange.ask(strange.link(endpoint="nodriver://clerk@127.0.0.1:5000/shop"), "SELECT 1")
    assert absent.value.problem.reason == "NOT_SET_UP"


async def test_a_driver_that_breaks_is_in_doubt_at_its_commit_only(
    strange: Far, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever it raises: before, nothing was done."""
    link, take = clerk(strange), "UPDATE item SET stock = 0 WHERE id = 9"
    monkeypatch.setattr(Standin, "breaks", "execute")
    with pytest.raises(Refusal) as broke:
        await strange.change(link, take)
    assert broke.value.problem.reason == "EFFECT_FAILED"
    for at_commit in ("commit", "blocked"):
        monkeypatch.setattr(Standin, "breaks", at_commit)
        with pytest.raises(Doubt):
            await strange.change(link, take)
    monkeypatch.setattr(Standin, "breaks", "connect")
    with pytest.raises(Unreached) as unreached:
        await strange.change(clerk(strange, query_rows_max=9), take)
    told = scrubbed([str(unreached.value), "clerk:s3cret%2F%40@far"], link.secret)
    assert not [it for it in told if "s3cret" in it], "as the gate keeps it, nobody reads the password"
    assert strange.do("SELECT stock FROM item WHERE id = 9") in ([(9,)], [(0,)])
