"""The writing connection, as the committer drives it: one for SQLite, one for PostgreSQL.

A fault is an error that belongs to the statements at hand; `Lost` says that the connection is gone
and that the open transaction certainly did not commit. Where a commit's answer was lost, the
connection comes back and looks at the mark which every transaction of PostgreSQL leaves first; that
one row also makes transactions of two writers follow each other, so cursors of the feedback log
grow in commit order whoever writes.
"""

import os
import re
import secrets
import sqlite3
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, Protocol

import psycopg
from psycopg import errors
from psycopg.types.numeric import Int8Dumper

from controlplane.store.batching import Group
from controlplane.store.claims import session_name, take_file, take_session
from controlplane.store.engine import BUSY_TIMEOUT_MS, dialect_of, sqlite_path, sqlite_uri
from schemas import faults
from schemas.problem import Refusal

LOCK_TIMEOUT_MS = 5_000
IDLE_TIMEOUT_MS = 10_000
RECONNECT_S = 0.1
CACHE_KIB = 16_384  # what the gate may keep of the pages of SQLite, and no more, however large the file
FAULTS = (sqlite3.Error, psycopg.Error, ValueError, TypeError, OverflowError, MemoryError)
_MARK = "INSERT INTO meta (key, value) VALUES ('writer', %s) ON CONFLICT (key) DO UPDATE SET value = excluded.value"
_PLACES = re.compile(r"'(?:[^']|'')*'|\"[^\"]*\"|\?|%")
_FULL = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY)
_LOCKED = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_CANTOPEN)


class Lost(Exception):  # noqa: N818 - a state of the connection, answered by coming back
    """The connection is gone, and nothing of the open transaction is stored."""


class Ended(Exception):  # noqa: N818 - as above
    """The database rolled the whole transaction back by itself; the connection is well."""


class InDoubt(Exception):  # noqa: N818 - as above
    """Stopped before the database came back to say whether the last transaction committed."""


class Connection(Protocol):
    """A transaction is `begin`, any of `attempt`, then `commit` or `rollback`. `whole` does all of it."""

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
    return SqliteConnection(url, sole) if dialect_of(url) == "sqlite" else PostgresConnection(url, pause, sole)


def described(error: BaseException) -> str:
    """A fault as `REASON: text`, the reason one of the problems' catalogue."""
    text = str(error).strip() or type(error).__name__
    if isinstance(error, InDoubt):
        return f"IN_DOUBT: {text}"
    full = getattr(error, "sqlite_errorcode", 0) & 0xFF in _FULL or isinstance(error, errors.DiskFull)
    locked = getattr(error, "sqlite_errorcode", 0) & 0xFF in _LOCKED
    if full:
        return f"STORAGE_FULL: {text}"
    if locked or isinstance(error, Lost | errors.LockNotAvailable):
        return f"NOT_READY: {text}"
    return f"INTERNAL: {text}"


class SqliteConnection:
    """WAL, every commit on the disk before it is told."""

    def __init__(self, url: str, sole: str | None = None) -> None:
        self._url = url
        self._commits = 0
        self._claim = None if sole is None else take_file(sqlite_path(url), "gate", sole)
        self._connection = self._open()

    def _open(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            sqlite_uri(self._url, "rw"),
            uri=True,
            timeout=BUSY_TIMEOUT_MS / 1000,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=512,
        )
        for pragma in (
            "journal_mode = WAL",
            "synchronous = FULL",
            "wal_autocheckpoint = 4000",
            "journal_size_limit = 67108864",
            f"cache_size = -{CACHE_KIB}",
        ):
            connection.execute(f"PRAGMA {pragma}").close()
        return connection

    def whole(self, groups: Sequence[Group]) -> bool:
        self.begin()
        if not self._run(groups):
            return False
        self.commit()
        return True

    def begin(self) -> None:
        self._connection.execute("BEGIN IMMEDIATE")

    def attempt(self, groups: Sequence[Group]) -> bool:
        """Do the groups, or nothing of them."""
        self._connection.execute("SAVEPOINT attempt")
        met = False
        try:
            met = self._run(groups)
        finally:
            if self._connection.in_transaction:  # a full disk ends the whole transaction by itself
                self._connection.execute("RELEASE attempt" if met else "ROLLBACK TO attempt")
            else:
                raise Ended
        return met

    def _run(self, groups: Sequence[Group]) -> bool:
        for group in groups:
            if len(group.params) == 1:
                cursor = self._connection.execute(group.sql, group.params[0])
            else:
                cursor = self._connection.executemany(group.sql, group.params)
            touched = cursor.rowcount
            cursor.close()
            if not group.met(touched):
                return False
        return True

    def commit(self) -> None:
        faults.at("store.sqlite.commit")
        self._connection.execute("COMMIT")
        self._commits += 1

    def rollback(self) -> None:
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")

    def reopen(self) -> bool:
        self.rollback()
        return True

    def rest(self) -> None:
        """Nothing waits: fold the log into the database now rather than within a commit."""
        if self._commits >= 100:
            self._commits = 0
            self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)").close()

    def close(self) -> None:
        self._connection.close()
        if self._claim is not None:
            os.close(self._claim)
            self._claim = None


@lru_cache(maxsize=2_000)
def as_psycopg(sql: str) -> str:
    """`?` as `%s`, outside of quotes; `%` doubled."""

    def place(found: re.Match[str]) -> str:
        text = found.group()
        return "%s" if text == "?" else text.replace("%", "%%")

    return _PLACES.sub(place, sql)


class PostgresConnection:
    """Whole transactions go in one pipeline; a lost connection comes back, and knows what it had committed."""

    def __init__(self, url: str, pause: Callable[[float], bool], sole: str | None = None) -> None:
        self._url = url
        self._pause = pause
        self._sole = sole
        self._mark = ""
        self._connection = self._open()

    def _open(self) -> "psycopg.Connection[Any]":
        connection = psycopg.connect(
            self._url,
            autocommit=True,
            prepare_threshold=2,
            connect_timeout=5,
            application_name="steward writing" if self._sole is None else session_name("gate", self._sole),
            options=f"-c lock_timeout={LOCK_TIMEOUT_MS} -c idle_in_transaction_session_timeout={IDLE_TIMEOUT_MS}"
            " -c synchronous_commit=on -c default_transaction_read_only=off",
        )
        if self._sole is not None:
            self._claimed(connection)
        connection.prepared_max = 300
        connection.adapters.register_dumper(int, Int8Dumper)  # one prepared statement whatever the number's size
        return connection

    def _claimed(self, connection: "psycopg.Connection[Any]") -> None:
        try:
            take_session(connection, "gate")
        except Refusal:
            connection.close()
            raise

    def whole(self, groups: Sequence[Group]) -> bool:
        met = self._run(groups, opening=True)
        if met:
            self.commit()
        return met

    def begin(self) -> None:
        self._run((), opening=True)

    def attempt(self, groups: Sequence[Group]) -> bool:
        """Do the groups, or nothing of them."""
        self._send("SAVEPOINT attempt")
        met = False
        try:
            met = self._run(groups)
        finally:
            if not self._connection.broken:
                self._send("RELEASE attempt" if met else "ROLLBACK TO attempt")
        return met

    def _run(self, groups: Sequence[Group], *, opening: bool = False) -> bool:
        try:
            with self._connection.pipeline():
                if opening:
                    self._mark = secrets.token_hex(8)
                    self._connection.execute("BEGIN")
                    self._connection.execute(_MARK, [self._mark])
                cursors = [self._queue(group) for group in groups]
        except FAULTS as error:
            raise self._judged(error) from error
        return all(group.met(cursor.rowcount) for group, cursor in zip(groups, cursors, strict=True))

    def _queue(self, group: Group) -> "psycopg.Cursor[Any]":
        cursor = self._connection.cursor()
        if len(group.params) == 1:
            return cursor.execute(as_psycopg(group.sql), group.params[0])
        cursor.executemany(as_psycopg(group.sql), group.params)
        return cursor

    def _send(self, sql: str) -> None:
        try:
            self._connection.execute(sql.encode())
        except psycopg.Error as error:
            raise self._judged(error) from error

    def _judged(self, error: BaseException) -> BaseException:
        return Lost(f"the database is away: {error}") if self._connection.broken else error

    def commit(self) -> None:
        """Commit; where the answer is lost, come back and look whether it happened."""
        faults.at("store.postgresql.commit")
        try:
            self._connection.execute("COMMIT")
        except psycopg.Error as error:
            if not self._connection.broken:
                raise
            if not self._committed():
                raise Lost("the database went away before it committed") from error

    def _committed(self) -> bool:
        """Waits for the database; the mark's row is locked until the transaction in doubt is decided."""
        while not self._pause(RECONNECT_S):
            if not self.reopen():
                continue
            try:
                row = self._connection.execute("SELECT value FROM meta WHERE key = 'writer' FOR UPDATE").fetchone()
            except psycopg.Error:
                continue
            return row is not None and row[0] == self._mark
        raise InDoubt("the database is away, and had not told whether it committed")

    def rollback(self) -> None:
        if not self._connection.broken:
            self._send("ROLLBACK")

    def reopen(self) -> bool:
        """Whether there is a connection again."""
        self._connection.close()
        try:
            self._connection = self._open()
        except (psycopg.Error, Refusal):  # it is away, or another gate has it now
            return False
        return True

    def rest(self) -> None:
        """Nothing to do: the server keeps house by itself."""

    def close(self) -> None:
        self._connection.close()
