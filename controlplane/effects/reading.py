"""The gate's own reads: short, indexed, on the loop.

A read of one row from SQLite's page cache costs some 20 µs, less than any hop to a thread. On
PostgreSQL it is a round trip on the local network; turns there pay it, and stay correct.
"""

import sqlite3
from collections.abc import Sequence
from typing import Any

import psycopg

from controlplane.store.connection import as_psycopg
from controlplane.store.engine import BUSY_TIMEOUT_MS, dialect_of, sqlite_uri


class Reader:
    """One reading connection; opened again when it was lost."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._sqlite = dialect_of(url) == "sqlite"
        self._connection: Any = self._open()

    def _open(self) -> Any:
        if self._sqlite:
            opened = sqlite3.connect(
                sqlite_uri(self._url, "rw"), uri=True, timeout=BUSY_TIMEOUT_MS / 1000, isolation_level=None
            )
            opened.execute("PRAGMA query_only = ON").close()
            return opened
        return psycopg.connect(
            self._url,
            autocommit=True,
            connect_timeout=5,
            prepare_threshold=2,
            application_name="steward gate reading",
            options="-c default_transaction_read_only=on -c statement_timeout=10000",
        )

    def rows(self, sql: str, *params: Any) -> list[tuple[Any, ...]]:
        """All rows of a bounded query."""
        if self._sqlite:
            cursor = self._connection.execute(sql, params)
            found: list[tuple[Any, ...]] = cursor.fetchall()
            cursor.close()
            return found
        return self._again(sql, params)

    def one(self, sql: str, *params: Any) -> tuple[Any, ...] | None:
        found = self.rows(sql, *params)
        return found[0] if found else None

    def _again(self, sql: str, params: Sequence[Any]) -> list[tuple[Any, ...]]:
        try:
            return list(self._connection.execute(as_psycopg(sql), params).fetchall())
        except psycopg.OperationalError:
            self._connection.close()
            self._connection = self._open()
            return list(self._connection.execute(as_psycopg(sql), params).fetchall())

    def close(self) -> None:
        self._connection.close()
