"""The gate's own reads: short, indexed, on the loop; and long ones in a thread.

A read of one row from SQLite's page cache costs some 20 µs, less than any hop to a thread. On
PostgreSQL it is a round trip on the local network; turns there pay it, and stay correct. A database
that is away is `Away`: whoever read gives up what it was about, and the sweep takes it up again.
"""

import asyncio
from collections.abc import Sequence
from typing import Any

from controlplane.store.connection import reading

Rows = list[tuple[Any, ...]]


class Away(Exception):  # noqa: N818 - a state of the database, waited for
    """The database does not answer."""


class Reader:
    """One reading connection for the loop, one for a thread."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._connection = reading(url)
        self._aside: Reader | None = None

    def rows(self, sql: str, *params: Any) -> Rows:
        """All rows of a bounded query."""
        try:
            return self._connection.rows(sql, params)
        except self._connection.away as error:
            raise Away(str(error)) from error

    def each(self, sql: str, params: Sequence[tuple[Any, ...]]) -> list[Rows]:
        """All rows of a bounded query for each of the parameters, in one round trip."""
        try:
            return self._connection.each(sql, params)
        except self._connection.away as error:
            raise Away(str(error)) from error

    def one(self, sql: str, *params: Any) -> tuple[Any, ...] | None:
        found = self.rows(sql, *params)
        return found[0] if found else None

    async def rows_aside(self, sql: str, *params: Any) -> Rows:
        """The same for a query that takes a while: in a thread, on a connection of its own; one at a time."""
        if self._aside is None:
            self._aside = await asyncio.to_thread(Reader, self._url)
        return await asyncio.to_thread(self._aside.rows, sql, *params)

    def close(self) -> None:
        self._connection.close()
        if self._aside is not None:
            self._aside.close()
