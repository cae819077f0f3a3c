"""SQLite: the writing connection, and the one that the gate reads by."""

import os
import sqlite3
from collections.abc import Sequence
from typing import Any

from controlplane.store.batching import Group
from controlplane.store.claims import take_file
from controlplane.store.connection import OWN_FAULTS, Ended
from controlplane.store.location import BUSY_TIMEOUT_MS, sqlite_path, sqlite_uri
from schemas import faults

CACHE_KIB = 8_192  # what each connection of the gate may keep of its pages, and no more, however large the file


class SqliteConnection:
    """WAL, every commit on the disk before it is told."""

    faults: tuple[type[Exception], ...] = (sqlite3.Error, *OWN_FAULTS)

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


class SqliteReading:
    """Single queries, read-only; each is one snapshot."""

    away: tuple[type[Exception], ...] = (sqlite3.OperationalError,)

    def __init__(self, url: str) -> None:
        self._connection = sqlite3.connect(
            sqlite_uri(url, "rw"),
            uri=True,
            timeout=BUSY_TIMEOUT_MS / 1000,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=256,
        )
        self._connection.execute("PRAGMA query_only = ON").close()
        self._connection.execute(f"PRAGMA cache_size = -{CACHE_KIB}").close()

    def rows(self, sql: str, params: tuple[Any, ...]) -> list[tuple[Any, ...]]:
        cursor = self._connection.execute(sql, params)
        found: list[tuple[Any, ...]] = cursor.fetchall()
        cursor.close()
        return found

    def each(self, sql: str, params: Sequence[tuple[Any, ...]]) -> list[list[tuple[Any, ...]]]:
        return [self.rows(sql, it) for it in params]

    def close(self) -> None:
        self._connection.close()
