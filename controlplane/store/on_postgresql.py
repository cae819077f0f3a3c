"""PostgreSQL: the writing connection, and the one that the gate reads by.

Where a commit's answer was lost, the connection comes back and looks at the mark which every transaction
leaves first; that one row also makes transactions of two writers follow each other, so cursors of the
feedback log grow in commit order whoever writes.
"""

import secrets
from collections.abc import Callable, Sequence
from typing import Any

import psycopg

from controlplane.store.batching import Group, Many
from controlplane.store.claims import session_name, take_session
from controlplane.store.connection import OWN_FAULTS, RECONNECT_S, InDoubt, Lost
from controlplane.store.libpq import Prepared
from schemas import faults
from schemas.problem import Refusal

LOCK_TIMEOUT_MS = 5_000
IDLE_TIMEOUT_MS = 10_000
# A statement that is prepared keeps the plan that was good when its table was new, small and not yet analysed: to read
# all of it. Each of ours has an index to go by.
BY_INDEX = "-c enable_seqscan=off"
_MARK = Many(
    "INSERT INTO meta (key, value) VALUES ('writer', ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value"
)


class PostgresConnection:
    """Whole transactions go in one pipeline; a lost connection comes back, and knows what it had committed."""

    faults: tuple[type[Exception], ...] = (psycopg.Error, *OWN_FAULTS)

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
            prepare_threshold=None,
            connect_timeout=5,
            application_name="steward writing" if self._sole is None else session_name("gate", self._sole),
            options=f"-c lock_timeout={LOCK_TIMEOUT_MS} -c idle_in_transaction_session_timeout={IDLE_TIMEOUT_MS}"
            f" -c synchronous_commit=on -c default_transaction_read_only=off {BY_INDEX}",
        )
        if self._sole is not None:
            self._claimed(connection)
        self._prepared = Prepared(connection)
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
        first: list[Group] = []
        if opening:
            self._mark = secrets.token_hex(8)
            first = [Group("BEGIN", -1, [()]), Group(_MARK, 1, [(self._mark,)])]
        try:
            touched = self._prepared.pipelined([*first, *groups])[len(first) :]
        except self.faults as error:
            raise self._judged(error) from error
        return all(group.met(many) for group, many in zip(groups, touched, strict=True))

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


class PostgresReading:
    """Single queries, read-only, each its own transaction; the connection is opened again when it was lost."""

    away: tuple[type[Exception], ...] = (psycopg.OperationalError,)

    def __init__(self, url: str) -> None:
        self._url = url
        self._connection = self._open()

    def _open(self) -> "psycopg.Connection[Any]":
        connection = psycopg.connect(
            self._url,
            autocommit=True,
            connect_timeout=2,
            application_name="steward gate reading",
            options=f"-c default_transaction_read_only=on -c statement_timeout=10000 {BY_INDEX}",
        )
        self._prepared = Prepared(connection)
        return connection

    def rows(self, sql: str, params: tuple[Any, ...]) -> list[tuple[Any, ...]]:
        return self.each(sql, [params])[0]

    def each(self, sql: str, params: Sequence[tuple[Any, ...]]) -> list[list[tuple[Any, ...]]]:
        if self._connection.closed:
            self._connection = self._open()
        try:
            return self._prepared.each(sql, params)
        except psycopg.OperationalError:
            if not self._connection.closed:
                raise
            self._connection = self._open()
            return self._prepared.each(sql, params)

    def close(self) -> None:
        self._connection.close()
