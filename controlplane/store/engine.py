"""Engines that can only read.

Reading and writing never share a connection: what this module opens is read-only (`query_only` on
SQLite, `default_transaction_read_only` on PostgreSQL), so a query that tries to write fails wherever
it stands. Every session is one snapshot. No file is ever created here: a missing database is an
error of the reader, not an empty store.
"""

import sqlite3
from typing import Any

from sqlalchemy import Engine, create_engine, event
from sqlalchemy.pool import QueuePool

from controlplane.store.location import BUSY_TIMEOUT_MS, dialect_of, sqlite_uri

READERS_MAX = 8
STATEMENT_TIMEOUT_MS = 30_000


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
