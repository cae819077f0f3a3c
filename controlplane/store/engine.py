"""Where the database is, in one normal form, and engines that can only read it.

A database's url is `sqlite:////absolute/path` or `postgresql://…`, and nothing else: every room
passes it on as it is. Reading and writing never share a connection: what this module opens is
read-only (`query_only` on SQLite, `default_transaction_read_only` on PostgreSQL), so a query that
tries to write fails wherever it stands. Every session is one snapshot. No file is ever created here:
a missing database is an error of the reader, not an empty store.
"""

import sqlite3
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote, unquote

from sqlalchemy import Engine, create_engine, event
from sqlalchemy.pool import QueuePool

from controlplane.resources.problems import refuse

Dialect = Literal["sqlite", "postgresql"]
BUSY_TIMEOUT_MS = 5_000
READERS_MAX = 8
STATEMENT_TIMEOUT_MS = 30_000
_POSTGRES = ("postgresql://", "postgres://", "postgresql+psycopg://")


def open_url(database_url: str | None, sqlite_path: Path) -> str:
    """The normal form of what the settings say."""
    if database_url is None:
        return f"sqlite:///{sqlite_path.expanduser().resolve()}"
    for scheme in _POSTGRES:
        if database_url.startswith(scheme):
            return "postgresql://" + database_url.removeprefix(scheme)
    if database_url.startswith("sqlite:////"):
        return database_url
    scheme = database_url.partition(":")[0]
    detail = f"a database url starts with postgresql:// or sqlite:////, not with {scheme}"
    raise refuse("INVALID_VALUE", detail, field="/database_url", scheme=scheme)


def dialect_of(url: str) -> Dialect:
    return "sqlite" if url.startswith("sqlite:") else "postgresql"


def sqlite_path(url: str) -> Path:
    """The file of a SQLite url."""
    return Path(unquote(url.removeprefix("sqlite:///")))


def sqlite_uri(url: str, mode: Literal["rw", "rwc"]) -> str:
    return f"file:{quote(str(sqlite_path(url)))}?mode={mode}"


def reading_engine(url: str) -> Engine:
    """An engine whose sessions read one snapshot each, and write nothing."""
    return _sqlite(url) if dialect_of(url) == "sqlite" else _postgresql(url)


def _sqlite(url: str) -> Engine:
    def connect() -> sqlite3.Connection:
        connection = sqlite3.connect(
            sqlite_uri(url, "rw"),
            uri=True,
            timeout=BUSY_TIMEOUT_MS / 1000,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=512,
        )
        connection.execute("PRAGMA query_only = ON")
        connection.execute("PRAGMA cache_size = -65536")
        connection.execute("PRAGMA mmap_size = 268435456")
        return connection

    engine = create_engine("sqlite://", creator=connect, poolclass=QueuePool, pool_size=READERS_MAX, max_overflow=0)

    @event.listens_for(engine, "begin")
    def begin(connection: Any) -> None:
        connection.exec_driver_sql("BEGIN")

    return engine


def _postgresql(url: str) -> Engine:
    return create_engine(
        "postgresql+psycopg://" + url.removeprefix("postgresql://"),
        pool_size=READERS_MAX,
        max_overflow=0,
        isolation_level="REPEATABLE READ",
        connect_args={
            "connect_timeout": 5,
            "application_name": "steward reading",
            "options": "-c default_transaction_read_only=on"
            f" -c statement_timeout={STATEMENT_TIMEOUT_MS}"
            f" -c idle_in_transaction_session_timeout={STATEMENT_TIMEOUT_MS}",
        },
    )
