"""Rows that go into PostgreSQL in one statement are the rows that would go in one by one."""

from collections import Counter
from typing import Any

import psycopg
from hypothesis import given, settings
from hypothesis import strategies as st

from controlplane.store import statements, usage
from controlplane.store.batching import Group, Many
from controlplane.store.libpq import Prepared
from controlplane.store.merging import ROWS_MAX, Values, insert, merged

PLAIN = Many("INSERT INTO t (a, b) VALUES (?, ?) ON CONFLICT (a) DO NOTHING")
ADDS = Many("INSERT INTO t (a, b) VALUES (?, ?) ON CONFLICT (a) DO UPDATE SET b = t.b + excluded.b")
REPLACES = Many("INSERT INTO t (a, b, c) VALUES (?, ?, ?) ON CONFLICT (a) DO UPDATE SET b = excluded.b")


def values(*rows: tuple[Any, ...], types: tuple[int, ...] = (25, 25)) -> list[Values]:
    return [Values([str(it).encode() for it in row], types, [0] * len(row)) for row in rows]


def test_what_may_be_merged() -> None:
    """INSERTs of values, if what they update is what they add to; nothing that reads, and nothing of other verbs."""
    assert insert(usage.ADD) is not None
    assert insert(statements.TURN_OPEN) is not None
    assert insert(REPLACES) is None
    for sql in (statements.PUT, statements.COMMIT, statements.CONSUME, statements.LATE_EVENT):
        assert insert(sql) is None, sql


def test_only_what_is_marked_is_merged_in_powers_of_two() -> None:
    """Few statements are prepared, whatever the length of a batch; the order stays."""
    many = values(*((n, n) for n in range(43)))
    runs = list(merged(Group(PLAIN, 1), many))
    assert [len(it.types) // 2 for _, it in runs] == [16, 16, 8, 2, 1]
    assert [value for _, it in runs for value in it.given] == [value for it in many for value in it.given]
    assert len(list(merged(Group(str(PLAIN), 1), many))) == 43


def test_what_is_added_up_meets_no_row_twice_in_a_statement() -> None:
    """PostgreSQL refuses a statement that updates a row which it has put in itself."""
    runs = list(merged(Group(ADDS, 1), values(("a", 1), ("b", 2), ("a", 3), ("a", 4), ("c", 5))))
    assert [[it.given[n] for n in range(0, len(it.given), 2)] for _, it in runs] == [[b"a", b"b"], [b"a"], [b"a", b"c"]]


def test_rows_of_other_types_stand_apart() -> None:
    """A statement is prepared for the types of its parameters."""
    mixed = [*values((1, 2), (3, 4)), *values((5, 6), types=(25, 0)), *values((7, 8))]
    assert [len(it.given) // 2 for _, it in merged(Group(PLAIN, 1), mixed)] == [2, 1, 1]


ROWS = st.lists(st.tuples(st.sampled_from("abcd"), st.none() | st.text("é'\\?", max_size=3), st.integers(-9, 9)))


def test_they_are_the_same_rows(postgresql_url: str) -> None:
    """In their order, with their counts, where values are missing and where rows meet each other."""
    add = Many(
        "INSERT INTO added (name, note, amount) VALUES (?, ?, ?)"
        " ON CONFLICT (name, note) DO UPDATE SET amount = added.amount + excluded.amount"
    )
    log = Many("INSERT INTO logged (name, note, amount, kind) VALUES (?, ?, ?, 'x')")
    with psycopg.connect(postgresql_url, autocommit=True) as connection:
        connection.execute(
            "CREATE TEMP TABLE added (name TEXT, note TEXT, amount BIGINT, UNIQUE NULLS NOT DISTINCT (name, note))"
        )
        connection.execute("CREATE TEMP TABLE logged (id BIGSERIAL, name TEXT, note TEXT, amount BIGINT, kind TEXT)")
        prepared = Prepared(connection)

        @settings(max_examples=30, deadline=None)
        @given(ROWS)
        def same(rows: list[tuple[str, str | None, int]]) -> None:
            connection.execute("TRUNCATE added, logged")
            assert prepared.pipelined([Group(add, 1, rows), Group(log, 1, rows)]) == [len(rows)] * 2
            sums: Counter[tuple[str, str | None]] = Counter()
            for name, note, amount in rows:
                sums[name, note] += amount
            found = connection.execute("SELECT name, note, amount FROM added").fetchall()
            assert {(name, note): amount for name, note, amount in found} == dict(sums)
            kept = connection.execute("SELECT name, note, amount FROM logged ORDER BY id").fetchall()
            assert kept == rows

        same()


def test_a_query_for_each_is_one_trip(postgresql_url: str) -> None:
    """The rows of each, in their order, also where there are none; what fails leaves a connection that goes on."""
    with psycopg.connect(postgresql_url, autocommit=True) as connection:
        prepared = Prepared(connection)
        asked = [(n,) for n in range(ROWS_MAX * 3)]
        rows = prepared.each("SELECT g FROM generate_series(1, ?) g WHERE g <> 2", asked)
        assert rows == [[(it,) for it in range(1, n + 1) if it != 2] for (n,) in asked]
        try:
            prepared.each("SELECT 1 / ?", [(1,), (0,), (2,)])
        except psycopg.errors.DivisionByZero:
            assert prepared.each("SELECT 1 + ?", [(1,), (2,)]) == [[(2,)], [(3,)]]
        else:
            raise AssertionError("a query that fails has to be told")
