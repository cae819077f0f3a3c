"""The connections of the gate, for writing and for reading: SQLite's and PostgreSQL's, each in a room of its own.

A fault is an error that belongs to the statements at hand; `Lost` says that the connection is gone
and that the open transaction certainly did not commit. A driver is imported by whoever uses its
database, so that a gate on SQLite starts without the other's.
"""

import sqlite3
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from controlplane.store.batching import Group
from controlplane.store.location import dialect_of

RECONNECT_S = 0.1
OWN_FAULTS = (ValueError, TypeError, OverflowError, MemoryError)  # of a driver that can not take what it is given
_FULL = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY)
_LOCKED = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_CANTOPEN)
_FULL_STATE, _LOCKED_STATE = "53100", "55P03"  # disk_full, lock_not_available: SQLSTATEs of PostgreSQL


class Lost(Exception):  # noqa: N818 - a state of the connection, answered by coming back
    """The connection is gone, and nothing of the open transaction is stored."""


class Ended(Exception):  # noqa: N818 - as above
    """The database rolled the whole transaction back by itself; the connection is well."""


class InDoubt(Exception):  # noqa: N818 - as above
    """Stopped before the database came back to say whether the last transaction committed."""


class Connection(Protocol):
    """A transaction is `begin`, any of `attempt`, then `commit` or `rollback`. `whole` does all of it."""

    faults: tuple[type[Exception], ...]

    def whole(self, groups: Sequence[Group]) -> bool: ...
    def begin(self) -> None: ...
    def attempt(self, groups: Sequence[Group]) -> bool: ...
    def commit(self) -> None: ...
    def rollback(self) -> None: ...
    def reopen(self) -> bool: ...
    def rest(self) -> None: ...
    def close(self) -> None: ...


def connect(url: str, pause: Callable[[float], bool], sole: str | None = None) -> Connection:
    """The connection of a url; `pause(seconds)` waits between tries, and answers True when it shall give up.

    `sole` names the installation whose gate this is: then nobody else's gate writes while the connection stands.
    """
    if dialect_of(url) == "sqlite":
        from controlplane.store.on_sqlite import SqliteConnection

        return SqliteConnection(url, sole)
    from controlplane.store.on_postgresql import PostgresConnection

    return PostgresConnection(url, pause, sole)


class Reading(Protocol):
    """Single queries; `away` are the errors that say that the database does not answer."""

    away: tuple[type[Exception], ...]

    def rows(self, sql: str, params: tuple[Any, ...]) -> list[tuple[Any, ...]]: ...
    def each(self, sql: str, params: Sequence[tuple[Any, ...]]) -> list[list[tuple[Any, ...]]]: ...
    def close(self) -> None: ...


def reading(url: str) -> Reading:
    """A connection that reads, for one thread at a time."""
    if dialect_of(url) == "sqlite":
        from controlplane.store.on_sqlite import SqliteReading

        return SqliteReading(url)
    from controlplane.store.on_postgresql import PostgresReading

    return PostgresReading(url)


def described(error: BaseException) -> str:
    """A fault as `REASON: text`, the reason one of the problems' catalogue."""
    text = str(error).strip() or type(error).__name__
    if isinstance(error, InDoubt):
        return f"IN_DOUBT: {text}"
    code, state = getattr(error, "sqlite_errorcode", 0) & 0xFF, getattr(error, "sqlstate", None)
    if code in _FULL or state == _FULL_STATE:
        return f"STORAGE_FULL: {text}"
    if code in _LOCKED or state == _LOCKED_STATE or isinstance(error, Lost):
        return f"NOT_READY: {text}"
    return f"INTERNAL: {text}"
