"""Every statement that is asked again and again goes by an index, on both databases.

Statements are found where they stand, as constants of the modules; one that walks a whole table, or a
whole index, is named here with the reason why that is little.
"""

import importlib
import pkgutil
import re
import sqlite3
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import psycopg
import pytest
from sqlalchemy import TextClause

from controlplane import effects, feedback, guard, operations, store
from controlplane.operations import living
from controlplane.operations.audits import CHECKS
from controlplane.store.libpq import as_libpq
from tests.postgres import Postgres

NOT_ASKED_AGAIN = {"migrate", "migrating", "claims", "on_postgresql", "unit"}  # at a start, or of no table
MODULES = [
    importlib.import_module(it.name)
    for package in (operations, living, store, guard, feedback, effects)
    for it in pkgutil.iter_modules(package.__path__, f"{package.__name__}.")
    if not it.ispkg and it.name.rpartition(".")[2] not in NOT_ASKED_AGAIN
]
WALKS = {
    "chains.SUMS": "a chain and what lies within it, found by their keys",
    "statements.NEXT_TIMER": "stops at the first row of the order",
    "statements.NEXT_AWAIT": "stops at the first row of the order",
    "statements.LIVE_HOSTS": "hosts, of which there are few; asked once at the start",
    "external.IN_DOUBT": "open awaits alone, by a partial index; asked once at the start",
    "computing.OPEN": "open computes alone, by their partial index",
    "statements.BRANCHED_AGENTS": "open awaits of branches alone, by their partial index",
    "watching.LAGGING": "channels; their members by position",
    "statements.WAITING_AGENTS": "its own list of agents that have messages",
    "retention.EVENTS": "stops after the oldest rows",
    "retention.HOSTS": "hosts, of which there are few",
    "retention.FORGET_MEMBERS": "channels; their ended memberships by position",
    "channels.FORGET_MEMBERS": "channels; their ended memberships by position",
    "queues.OF_HELD_KEYS": "its own list of the keys that members with room hold",
    "queues.OVERDUE": "what has expired, by its partial index",
    "queues.NEXT_DUE": "stops at the first row of the order",
    "retention.MESSAGES": "channels; their messages by position",
    "progress.OPEN": "open changes alone, by their partial index",
    "oneshots.OPEN": "open changes alone, by their partial index",
    "carrying.HOSTS": "hosts, of which there are few",
    "verification.OPEN": "open claims alone, by their partial index",
    "verification.READY_TO_END": "open changes alone, by their partial index",
    "verification.MISSED": "open changes alone, by their partial index",
    "progress.DECLARED": "a window, in the order of an index",
    "progress.CHANNELS_DECLARED": "a window, in the order of an index",
    "sources.OLDEST_EVENT": "stops at the first row of the order",
    "sources.EVENTS_COUNTED": "its own list of an hour's events, with a limit",
    "sources.ROWS_COUNTED": "its own list of an hour's turns, with a limit",
    "progress.RUNNING": "a window, in the order of an index",
    "progress.CHANNELS_RUNNING": "a window, in the order of an index",
    # What an audit holds against each other, one of the two by its index; asked by people.
    "audits.scope.ownerless": "open scopes alone, by their partial index",
    "audits.agent.undeclared": "agents; what is declared of them by uid",
    "audits.host.silent": "hosts, of which there are few",
    "audits.trait.left": "what agents are found by; those by name",
    "audits.membership.left": "open memberships alone, by their partial index",
    "audits.queued.empty": "queues alone, by their partial index; the first place of each",
    "audits.guest.uninvited": "subscriptions; their channels and agents by uid",
    "audits.code.diverged": "marks of code, of which there are few",
}


def found_in(module: ModuleType) -> Iterator[tuple[str, str]]:
    """Every SQL constant, with a place `?` for each value."""
    for name, value in vars(module).items():
        for index, it in enumerate(value if isinstance(value, tuple) else (value,)):
            sql = it.text if isinstance(it, TextClause) else it
            if isinstance(sql, str) and re.match(r"(SELECT|INSERT|UPDATE|DELETE|WITH)\b", sql):
                place = name if not isinstance(value, tuple) else f"{name}[{index}]"
                yield f"{module.__name__.rpartition('.')[2]}.{place}", plain(sql)


def plain(sql: str) -> str:
    """With a place for each value, and a number where an expression is put in."""
    sql = re.sub(r"\{\w+\}", "0", sql)
    return re.sub(r"(?<![:\w]):(\w+)", "?", re.sub(r" IN :\w+", " IN (?, ?)", sql))


STATEMENTS = [
    *(it for module in MODULES for it in found_in(module) if it[0] != "statements.AGENT_COLUMNS"),
    *((f"audits.{it.name}", plain(it.query)) for it in CHECKS),
]


def walked_by_sqlite(connection: sqlite3.Connection, sql: str) -> list[str]:
    plan = [row[3] for row in connection.execute("EXPLAIN QUERY PLAN " + sql, [None] * sql.count("?"))]
    return [it for it in plan if (it.startswith("SCAN") and "CONSTANT ROW" not in it) or "AUTOMATIC" in it]


def test_on_sqlite(sqlite_url: str) -> None:
    """No statement walks a table, but those that are named; and each that is named does."""
    connection = sqlite3.connect(sqlite_url.removeprefix("sqlite:///"))
    walking = {name: walked for name, sql in STATEMENTS if (walked := walked_by_sqlite(connection, sql))}
    connection.close()
    few = {
        "SCAN counted",
        "SCAN oldest",
        "SCAN named",
        "SCAN used",
    }  # what a subquery gave: bounded, or by jumps in an index
    assert {it: walked for it, walked in walking.items() if it not in WALKS and not set(walked) <= few} == {}


def test_on_postgresql(postgres: Postgres) -> None:
    """With walking made dear, the planner finds an index for each statement, in a database that knows no sizes."""
    walking: dict[str, list[str]] = {}
    with psycopg.connect(postgres.create(), autocommit=True) as connection:
        connection.execute("SET enable_seqscan = off")
        for name, sql in STATEMENTS:
            rows: Any = connection.execute(b"EXPLAIN (GENERIC_PLAN) " + as_libpq(sql))
            if walked := [row[0].strip() for row in rows if "Seq Scan" in row[0]]:
                walking[name] = walked
    assert {it: walked for it, walked in walking.items() if it not in WALKS} == {}


@pytest.mark.parametrize("name", sorted(WALKS))
def test_what_is_named_is_there(name: str) -> None:
    """A reason is given only for a statement that there is."""
    assert name in dict(STATEMENTS)
