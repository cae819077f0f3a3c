"""Statements: what is read as a query, as a change, and as neither; what is sent, and what counts its rows."""

from typing import Any

import pytest

from controlplane.protocols.sql_statements import Statement, change, query
from schemas.problem import Refusal

READS = [
    ("SELECT a::int, ':x', '{\"a\":1}' FROM t WHERE b = :b AND \"c:d\" = 1 -- ;x", "postgres", {"b": 1}),
    ("WITH q AS (SELECT 1 AS a) SELECT a FROM q UNION SELECT :b", "sqlite", {"b": "x"}),
    ("VALUES (1), (2)", "postgres", {}),
    ("SELECT SUM(lo_price), LOWER(readfile), now(), a.pg_ls_dir FROM a", "postgres", {}),
]
NO_READS = [
    "DELETE FROM t",
    "WITH a AS (DELETE FROM t RETURNING *) SELECT * FROM a",
    "SELECT * INTO x FROM t",
    "SELECT * FROM t FOR UPDATE",
    "SELECT 1; SELECT 2",
    "SELECT 1; DROP TABLE t",
    "COPY t TO '/etc/passwd'",
    "SET role admin",
    "CREATE TABLE t (a int)",
    "EXPLAIN ANALYZE DELETE FROM t",
    "CALL something()",
    "BEGIN",
    "SELECT $1",
    "SELECT ?",
    "SELECT 'unclosed",
    "SELECT " + "(" * 4000 + "1" + ")" * 4000,
    "SELECT answer FROM s.Steward_Keys",
    "SELECT * FROM dblink('x', 'y') AS t(a int)",
    "SELECT pg_catalog.pg_terminate_backend(1)",
    "SELECT \"pg_read_file\"('x')",
    "SELECT count(*) FROM ROWS FROM (pg_ls_dir('.'))",
    "SELECT lo_import('x')",
    "SELECT a FROM t WHERE pg_try_advisory_lock(1)",
    "SELECT Set_Config('a', 'b', false)",
    "SELECT query_to_xml('DELETE FROM t', true, false, '')",
    "SELECT load_extension('x')",
    "",
    ";",
    "no sql at all",
]
CHANGES: list[tuple[str, str, str | None, int | None]] = [
    ("DELETE FROM t WHERE a = :a", "postgres", "FROM t WHERE a = :a", None),
    ("DELETE FROM t USING u WHERE t.a = u.a", "postgres", "FROM t CROSS JOIN u WHERE t.a = u.a", None),
    ("UPDATE t AS x SET a = 1 FROM u WHERE x.b = u.b", "postgres", "FROM t AS x CROSS JOIN u WHERE x.b = u.b", None),
    ("UPDATE t SET a = :a, b = :b", "sqlite", "SELECT 1 AS steward_one FROM t)", None),
    ("DELETE FROM t WHERE a = 1 ORDER BY b LIMIT 3", "mysql", "FROM t WHERE a = 1 ORDER BY b LIMIT 3", None),
    ("INSERT INTO t (a) SELECT a FROM u WHERE b = :b", "postgres", "FROM (SELECT a FROM u WHERE b = :b)", None),
    ("INSERT INTO t VALUES (1, :a), (2, :b)", "sqlite", None, 2),
    ("INSERT INTO t DEFAULT VALUES", "postgres", None, 1),
    (
        "WITH q AS (SELECT 1) DELETE FROM t WHERE a IN (SELECT * FROM q)",
        "postgres",
        "WITH q AS (SELECT 1) SELECT",
        None,
    ),
]
NO_CHANGES = [
    "SELECT 1",
    "INSERT OVERWRITE TABLE t SELECT 1",
    "UPDATE t SET a = pg_read_file('x')",
    "WITH gone AS (DELETE FROM t RETURNING *) INSERT INTO u SELECT * FROM gone",
    "DELETE FROM t; DELETE FROM u",
    "DROP TABLE t",
    "TRUNCATE t",
    "MERGE INTO t USING u ON t.a = u.a WHEN MATCHED THEN DELETE",
    "INSERT INTO steward_keys VALUES ('k', '', 0)",
    "DELETE FROM t WHERE a IN (SELECT answer FROM Steward_Keys)",
    "ATTACH DATABASE 'x' AS y",
    "VACUUM",
]


@pytest.mark.parametrize(("statement", "dialect", "values"), READS)
def test_a_query_is_sent_as_it_was_read(statement: str, dialect: str, values: dict[str, Any]) -> None:
    """What is sent is written from what was read: no comment, each parameter by its name, colons of text kept."""
    from sqlalchemy import text

    found = query(statement, values, dialect)
    assert "--" not in found.text
    assert set(text(found.text).compile().params) == set(values)


@pytest.mark.parametrize("statement", NO_READS)
def test_what_does_more_than_read_is_refused(statement: str) -> None:
    """Whatever could change anything, and whatever is not one statement, is no query."""
    with pytest.raises(Refusal) as refused:
        query(statement, {}, "postgres", "steward_keys")
    assert refused.value.problem.reason == "INVALID_VALUE"


@pytest.mark.parametrize(("statement", "dialect", "counted", "known"), CHANGES)
def test_a_change_is_counted_by_the_same_rows(
    statement: str, dialect: str, counted: str | None, known: int | None
) -> None:
    """The count has the tables and the conditions of the change; of VALUES it is known without asking."""
    values = {name: 1 for name in ("a", "b") if f":{name}" in statement}
    found: Statement = change(statement, values, dialect, "steward_keys")
    assert found.rows == known
    assert (found.count is None) == (counted is None)
    assert counted is None or counted in str(found.count)


@pytest.mark.parametrize("statement", NO_CHANGES)
def test_what_is_no_one_change_is_refused(statement: str) -> None:
    """One INSERT, UPDATE or DELETE of rows, with nothing else in it, and never of the keys."""
    with pytest.raises(Refusal) as refused:
        change(statement, {}, "postgres", "steward_keys")
    assert refused.value.problem.reason == "INVALID_VALUE"


def test_an_insert_that_replaces_is_refused() -> None:
    """It would take away rows that nobody counted."""
    for statement in ("INSERT OR REPLACE INTO t VALUES (1)", "REPLACE INTO t VALUES (1)"):
        with pytest.raises(Refusal):
            change(statement, {}, "sqlite")


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE t, b SET t.a = 1, b.c = 2",
        "UPDATE t JOIN b ON t.i = b.i SET t.a = 1, b.c = 2",
        "UPDATE t LEFT JOIN b ON t.i = b.i SET b.a = 1",
        "UPDATE t, LATERAL (SELECT 1) AS x SET t.a = 1",
        "DELETE t, b FROM t JOIN b ON t.i = b.i",
        "INSERT INTO t VALUES (1, 2) ON DUPLICATE KEY UPDATE a = 1",
        "INSERT INTO t SELECT * FROM b ON DUPLICATE KEY UPDATE a = 1",
        "REPLACE INTO t VALUES (1)",
    ],
)
def test_what_mysql_touches_beyond_what_is_counted_is_refused(statement: str) -> None:
    """Rows of another table, and rows that it counts twice."""
    with pytest.raises(Refusal) as refused:
        change(statement, {}, "mysql")
    assert (refused.value.problem.reason, refused.value.problem.field) == ("INVALID_VALUE", "/arguments/statement")


@pytest.mark.parametrize(
    ("dialect", "name"), [("postgres", '"myFunc"'), ("postgres", "myFunc"), ("mysql", "`myFunc`"), ("sqlite", "myFunc")]
)
def test_a_function_of_the_database_s_own_keeps_its_name(dialect: str, name: str) -> None:
    """As it is written: quoted, another one would be called."""
    assert query(f"SELECT {name}(1)", {}, dialect).text == f"SELECT {name}(1)"
    assert f"a = {name}(b)" in change(f"UPDATE t SET a = {name}(b)", {}, dialect).text


def test_every_parameter_has_a_value_and_every_value_a_parameter() -> None:
    """Missing, beyond, and of a type that no database takes: each is said by its name."""
    cases: list[tuple[dict[str, Any], str, str]] = [
        ({}, "MISSING_FIELD", "/arguments/parameters/a"),
        ({"a": 1, "b": 2}, "UNKNOWN_FIELD", "/arguments/parameters/b"),
        ({"a": [1]}, "INVALID_VALUE", "/arguments/parameters/a"),
        ({"a": 2**63}, "INVALID_VALUE", "/arguments/parameters/a"),
        ({"a": "x\x00"}, "INVALID_VALUE", "/arguments/parameters/a"),
    ]
    for values, reason, field in cases:
        with pytest.raises(Refusal) as refused:
            query("SELECT :a", values, "sqlite")
        assert (refused.value.problem.reason, refused.value.problem.field) == (reason, field)
