"""The gate's own reads: short, indexed, on the loop; and long ones in a thread.

A read of one row from SQLite's page cache costs some 20 µs, less than any hop to a thread. On
PostgreSQL it is a round trip on the local network; turns there pay it, and stay correct. A database
that is away is `Away`: whoever read gives up what it was about, and the sweep takes it up again.
"""

import asyncio
import sqlite3
from typing import Any

import psycopg

from controlplane.store.connection import as_psycopg
from controlplane.store.engine import BUSY_TIMEOUT_MS, dialect_of, sqlite_uri

Rows = list[tuple[Any, ...]]


class Away(Exception):  # noqa: N818 - a state of the database, waited for
    """The database does not answer."""


class Reader:
    """One reading connection for the loop, one for a thread; opened again when lost."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._sqlite = dialect_of(url) == "sqlite"
        self._connection: Any = self._open()
        self._aside: Reader | None = None

    def _open(self) -> Any:
        if self._sqlite:
            opened = sqlite3.connect(
                sqlite_uri(self._url, "rw"),
                uri=True,
                timeout=BUSY_TIMEOUT_MS / 1000,
                isolation_level=None,
                check_same_thread=False,
                cached_statements=256,
            )
            opened.execute("PRAGMA query_only = ON").close()
            opened.execute("PRAGMA cache_size = -8192").close()
            return opened
        return psycopg.connect(
            self._url,
            autocommit=True,
            connect_timeout=2,
            prepare_threshold=2,
            application_name="steward gate reading",
            options="-c default_transaction_read_only=on -c statement_timeout=10000",
        )

    def rows(self, sql: str, *params: Any) -> Rows:
        """All rows of a bounded query."""
        try:
            return self._rows(sql, params)
        except (sqlite3.OperationalError, psycopg.OperationalError) as error:
            raise Away(str(error)) from error

    def one(self, sql: str, *params: Any) -> tuple[Any, ...] | None:
        found = self.rows(sql, *params)
        return found[0] if found else None

    async def rows_aside(self, sql: str, *params: Any) -> Rows:
        """The same for a query that takes a while: in a thread, on a connection of its own; one at a time."""
        if self._aside is None:
            self._aside = await asyncio.to_thread(Reader, self._url)
        return await asyncio.to_thread(self._aside.rows, sql, *params)

    def _rows(self, sql: str, params: tuple[Any, ...]) -> Rows:
        if self._sqlite:
            cursor = self._connection.execute(sql, params)
            found: Rows = cursor.fetchall()
            cursor.close()
            return found
        if self._connection.closed:
            self._connection = self._open()
        try:
            return list(self._connection.execute(as_psycopg(sql), params).fetchall())
        except psycopg.OperationalError:
            if not self._connection.closed:
                raise
            self._connection = self._open()
            return list(self._connection.execute(as_psycopg(sql), params).fetchall())

    def close(self) -> None:
        self._connection.close()
        if self._aside is not None:
            self._aside.close()
