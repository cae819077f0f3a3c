"""Reading the records directly, and handing writes to the one writer.

A read is a plain function over a session, and sees one snapshot. On SQLite it runs where it is
called: the rows come from the page cache, and a thread would cost more than the query. On
PostgreSQL it runs in a thread, because the loop must never wait for a network. Every write of the
plane goes through the writer (the gate's committer), never through a connection of this module.
"""

import sqlite3
from collections.abc import Callable
from typing import Protocol, TypeVar

import anyio
import anyio.to_thread
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlmodel import Session

from controlplane.resources.problems import refuse
from controlplane.store.engine import READERS_MAX, reading_engine
from controlplane.store.location import Dialect, dialect_of, open_url
from controlplane.store.unit import Statement, Unit

__all__ = ["Store", "Writer", "open_url"]

T = TypeVar("T")
AWAY_RETRY_S = 1.0
ASIDE_MAX = 2  # of a file's readers, so that the others are there for the loop
_PASSING = (
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_NOMEM,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_CANTOPEN,
)


class Writer(Protocol):
    """The one writer. False is a conflict: nothing was changed."""

    async def write(self, statements: list[Statement]) -> bool: ...


class Store:
    """The records of one installation."""

    dialect: Dialect

    def __init__(self, url: str, writer: Writer) -> None:
        self.url = url
        self.dialect = dialect_of(url)
        self._writer = writer
        self._engine = reading_engine(url)
        self._readers = anyio.CapacityLimiter(READERS_MAX) if self.dialect == "postgresql" else None
        self._aside = anyio.CapacityLimiter(ASIDE_MAX)

    async def read(self, query: Callable[[Session], T]) -> T:
        """What the query answers, from one snapshot. It must not keep the session, nor rows of it that load later."""
        if self._readers is None:
            return self._query_here(query)
        return await anyio.to_thread.run_sync(self._query_again, query, limiter=self._readers)

    async def read_aside(self, query: Callable[[Session], T]) -> T:
        """The same in a thread on both databases, for what takes a while."""
        if self._readers is not None:
            return await self.read(query)
        return await anyio.to_thread.run_sync(self._query_here, query, limiter=self._aside)

    async def write(self, unit: Unit) -> bool:
        """All of the unit, durably; or False, and nothing of it. An empty unit is done already."""
        if not len(unit):
            return True
        return await self._writer.write(unit.compiled(self.dialect))

    async def close(self) -> None:
        self._engine.dispose()

    def _query(self, query: Callable[[Session], T]) -> T:
        with Session(self._engine, expire_on_commit=False, autoflush=False) as session:
            return query(session)

    def _query_here(self, query: Callable[[Session], T]) -> T:
        """A file that can not be read now, for want of descriptors, memory or a working disk, is away."""
        try:
            return self._query(query)
        except DBAPIError as error:
            if getattr(error.orig, "sqlite_errorcode", 0) & 0xFF not in _PASSING:
                raise
            detail = f"the database can not be read: {error.orig}"
            raise refuse("NOT_READY", detail, retry_after_s=AWAY_RETRY_S, cause=str(error.orig)) from error

    def _query_again(self, query: Callable[[Session], T]) -> T:
        """A read repeats safely: a connection that the server closed costs one more try."""
        try:
            return self._query(query)
        except DBAPIError as error:
            if not error.connection_invalidated and error.statement is not None:  # without one it never connected
                raise
        try:
            return self._query(query)
        except OperationalError as error:
            detail = "the database is away; it is tried again with the next call"
            raise refuse("NOT_READY", detail, retry_after_s=AWAY_RETRY_S) from error
