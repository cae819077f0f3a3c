"""Rows that one INSERT of PostgreSQL puts in, where the same one would run for each.

A statement costs the server some 30 µs whatever it does, and a turn has a dozen. Pure. Only neighbours whose
parameters are of the same types are merged, so the order stays, and in powers of two, so that few statements are
prepared. What updates where it finds a row must not meet the same one twice in a statement.
"""

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import groupby
from operator import attrgetter
from typing import Any, NamedTuple

from psycopg.pq import Format

from controlplane.store.batching import Group, Many

ROWS_MAX = 16
_INSERT = re.compile(r"(INSERT INTO \w+ \(([^()]*)\) VALUES )(\([^()]*\))([^?]*)", re.ASCII)
_ADDS = re.compile(r" ON CONFLICT \(([^()]*)\) DO UPDATE .*", re.ASCII)


class Values(NamedTuple):
    """Parameters as they travel."""

    given: Sequence[Any]
    types: tuple[int, ...]
    formats: Sequence[Format]


class Insert(NamedTuple):
    """An INSERT of values, taken apart; it `adds` where what stands there already has all but the last of them."""

    head: str
    row: str
    tail: str
    adds: bool

    def of(self, rows: int) -> str:
        return f"{self.head}{', '.join([self.row] * rows)}{self.tail}"


@lru_cache(maxsize=500)
def insert(sql: str) -> Insert | None:
    """The statement, if it may put in several rows."""
    if (found := _INSERT.fullmatch(sql)) is None:
        return None
    head, columns, row, tail = found.groups()
    adds = _ADDS.fullmatch(tail)
    if "DO UPDATE" in tail and (adds is None or columns.split(", ")[:-1] != adds.group(1).split(", ")):
        return None
    return Insert(head, row, tail, adds is not None)


def merged(group: Group, values: Sequence[Values]) -> Iterator[tuple[str, Values]]:
    """What runs instead of the group's statement for each of the values, in their order."""
    found = insert(group.sql) if len(values) > 1 and isinstance(group.sql, Many) else None
    if found is None:
        yield from ((group.sql, it) for it in values)
        return
    for _, alike in groupby(values, attrgetter("types")):
        for run in _distinct(list(alike)) if found.adds else [list(alike)]:
            at = 0
            while at < len(run):
                rows = min(ROWS_MAX, 1 << ((len(run) - at).bit_length() - 1))
                yield _one(group.sql, found, run[at : at + rows])
                at += rows


def _distinct(values: Sequence[Values]) -> Iterator[list[Values]]:
    """Runs in which no two differ in their last parameter alone, which is what is added up."""
    run: list[Values] = []
    seen: set[tuple[Any, ...]] = set()
    for it in values:
        key = tuple(None if value is None else bytes(value) for value in it.given[:-1])
        if key in seen:
            yield run
            run, seen = [], set()
        run.append(it)
        seen.add(key)
    yield run


def _one(sql: str, found: Insert, values: Sequence[Values]) -> tuple[str, Values]:
    if len(values) == 1:
        return sql, values[0]
    given = [it for one in values for it in one.given]
    formats = [it for one in values for it in one.formats]
    return found.of(len(values)), Values(given, values[0].types * len(values), formats)
