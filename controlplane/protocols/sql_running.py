"""What the threads do: read within a transaction that can only read, or change within one with a fuse.

A change commits only if it touched no more rows than were judged, and writes its key, if the connection
has a table for keys, in the same transaction. Whatever breaks before the commit was not done: it failed, or
may be tried again. Only a commit that is cut off is in doubt.
"""

import base64
import contextlib
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from datetime import time as time_of_day
from decimal import Decimal
from math import isfinite
from typing import Any

import orjson
from sqlalchemy import Column, Connection, Double, MetaData, String, Table, Text, insert, select, text, update
from sqlalchemy.engine import CursorResult
from sqlalchemy.exc import DBAPIError, IntegrityError, SQLAlchemyError

from controlplane.protocols.sql_engine import Database
from controlplane.protocols.sql_statements import CHANGED, Statement
from controlplane.protocols.sql_worker import Stopped, Work
from controlplane.resources.problems import refuse
from schemas.ports import Doubt, Unreached
from schemas.problem import Refusal

BUFFERED_ROWS = 50
WHY_CHARS_MAX = 500
KEY_CHARS_MAX = 255
AGAIN = {"40001", "40P01", "55P03"}  # SQLSTATE of a transaction that lost against another
CANCELLED = {"57014"}
TAKEN = "23505"  # a key that somebody else has written
ROLLED_BACK = {"21", "22", "23", "2F", "38", "39", "40", "42", "44", "55", "P0"}  # classes of SQLSTATE: what a trigger
# or a constraint found at the end, lost transactions; and not that the server or the way to it broke
COMPLETION_UNKNOWN = "40003"
READ_ONLY = {"postgresql", "mysql", "mariadb", "oracle"}  # others: by the grammar alone, and rolled back
KEYS_DDL = "CREATE TABLE {} (idempotency_key VARCHAR(255) PRIMARY KEY, answer TEXT NOT NULL, done_at {} NOT NULL)"


@dataclass(frozen=True)
class Bounds:
    """Of one statement: rows and bytes of its answer, seconds at the server."""

    rows: int
    bytes: int
    seconds: float


def read(database: Database, statement: Statement, values: Mapping[str, Any], bounds: Bounds, work: Work) -> Any:
    """The rows of a query."""
    with _connected(database, work, "sql.query") as connection:
        _begin(connection, bounds, writes=False)
        streamed = connection.execution_options(stream_results=True, max_row_buffer=BUFFERED_ROWS)
        found = streamed.execute(text(statement.text), _used(statement.text, values))
        with contextlib.closing(found):
            answer = _answer(found, bounds, None)
        del answer["apart"]
        _unlock(connection)
        return answer


def count(database: Database, statement: str, values: Mapping[str, Any], bounds: Bounds, work: Work) -> int:
    """The rows that a change would touch."""
    with _connected(database, work, "sql.execute") as connection:
        _begin(connection, bounds, writes=False)
        rows = int(connection.execute(text(statement), _used(statement, values)).scalar_one())
        _unlock(connection)
        return rows


@dataclass(frozen=True)
class Keyed:
    """Where a change writes its key, and which one."""

    table: str
    key: str

    @property
    def rows(self) -> Table:
        """(idempotency_key, answer, done_at); done_at in seconds of Unix time."""
        columns = Column("idempotency_key", String(KEY_CHARS_MAX), primary_key=True), Column("answer", Text)
        return Table(self.table, MetaData(), *columns, Column("done_at", Double))


def write(
    database: Database,
    statement: Statement,
    values: Mapping[str, Any],
    judged: int,
    keyed: Keyed | None,
    bounds: Bounds,
    work: Work,
) -> Any:
    """What a change touched; committed if that is no more than was judged."""
    with _connected(database, work, "sql.execute") as connection:
        _begin(connection, bounds, writes=True)
        if keyed is not None and (known := _known(connection, keyed)) is not None:
            return known
        answer = _touched(connection, statement, values, judged, bounds)
        rows = answer["rows_changed"]
        if not 0 <= rows <= judged:
            detail = f"the statement touched {rows} rows, and was judged for {judged}; it was rolled back"
            raise refuse("MORE_THAN_JUDGED", detail, rows=rows, judged=judged)
        if keyed is not None:
            told = orjson.dumps(answer).decode()
            keys = keyed.rows
            connection.execute(update(keys).where(keys.c.idempotency_key == keyed.key).values(answer=told))
        work.commits()
        _commit(connection)
        _forget_session(connection)
        return answer


def _begin(connection: Connection, bounds: Bounds, *, writes: bool) -> None:
    """The transaction, with what the server itself keeps to."""
    name = connection.dialect.name
    if name == "sqlite":
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
        if not writes:
            connection.exec_driver_sql("PRAGMA query_only = ON")
        return
    if not writes and name in READ_ONLY:
        connection.exec_driver_sql("SET TRANSACTION READ ONLY")
    if name == "postgresql":  # texts end where the grammar says, whatever the database was set to
        within_ms = max(1, int(bounds.seconds * 1000))
        connection.exec_driver_sql(
            f"SELECT set_config('statement_timeout', '{within_ms}', true),"
            " set_config('standard_conforming_strings', 'on', true)"
        )


def _known(connection: Connection, keyed: Keyed) -> Any:
    """The answer of before, if the key is there; else the key is written, which whoever comes beside waits for."""
    rows = keyed.rows
    asked = select(rows.c.answer).where(rows.c.idempotency_key == keyed.key)
    if (found := connection.execute(asked).scalar_one_or_none()) is not None:
        return orjson.loads(found)
    try:
        connection.execute(insert(rows).values(idempotency_key=keyed.key, answer="{}", done_at=time.time()))
    except IntegrityError as error:
        if getattr(error.orig, "sqlstate", TAKEN) != TAKEN:  # the table asks for more than a key has
            raise
        raise Unreached("is being done under the same key at this moment") from error
    return None


def _commit(connection: Connection) -> None:
    try:
        connection.commit()
    except IntegrityError:
        raise  # a deferred constraint: it was rolled back
    except DBAPIError as error:
        if _locked(error):  # a reader of another process: nothing was committed
            raise
        state = str(getattr(error.orig, "sqlstate", None) or "")
        if state[:2] in ROLLED_BACK and state != COMPLETION_UNKNOWN:
            raise
        raise Doubt(f"was cut off at its commit: {_why(error)}") from error


def _unlock(connection: Connection) -> None:
    """Locks that a query took for its session, and no rollback gives back."""
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql("SELECT pg_advisory_unlock_all()")


def _forget_session(connection: Connection) -> None:
    """Whatever the statement set for its session goes with it, before another has the connection."""
    if connection.dialect.name != "sqlite":
        with contextlib.suppress(SQLAlchemyError):  # it is committed, whatever becomes of the session
            connection.invalidate()


@contextlib.contextmanager
def _connected(database: Database, work: Work, effect: str) -> Iterator[Connection]:
    """A connection of the pool; every way that it can break, as the gate knows it."""
    try:
        connection = database.engine.connect()
    except (DBAPIError, SQLAlchemyError) as error:
        raise Unreached(f"could not be sent: {_why(error)}") from error
    except ImportError as error:
        raise refuse(
            "NOT_SET_UP", f"the driver is not installed: {error}", name=str(error), kind="Connection"
        ) from error
    except Exception as error:  # whatever a driver raises: nothing was sent
        raise Unreached(f"could not be sent: {_why(error)}") from error
    try:
        work.uses(connection.connection.driver_connection)
        yield connection
    except DBAPIError as error:
        with contextlib.suppress(SQLAlchemyError):
            connection.invalidate()
        raise _broken(error, work, effect) from error
    except (Refusal, Doubt, Unreached, Stopped):
        _forget_session(connection)
        raise
    except Exception as error:  # what a driver raises that is none of the errors it declares
        _forget_session(connection)
        if work.committing:
            raise Doubt(f"was cut off at its commit: {_why(error)}") from error
        raise refuse("EFFECT_FAILED", f"{effect}: {_why(error)}", effect=effect, error=type(error).__name__) from error
    except BaseException:
        _forget_session(connection)
        raise
    finally:
        work.ended()
        with contextlib.suppress(SQLAlchemyError):
            connection.close()


def _broken(error: DBAPIError, work: Work, effect: str) -> Exception:
    state = getattr(error.orig, "sqlstate", None)
    if work.stopped:
        return Stopped()
    if error.connection_invalidated or state in AGAIN or _locked(error):
        return Unreached(f"was not done, and may be tried again: {_why(error)}")
    reason = "it took too long" if state in CANCELLED else _why(error)
    detail = f"{effect}: {reason}; nothing of it is written"
    return refuse("EFFECT_FAILED", detail, effect=effect, error=type(error.orig).__name__)


def _locked(error: DBAPIError) -> bool:
    """Whether SQLite says that somebody else has the file, by its code: texts are anybody's."""
    return (getattr(error.orig, "sqlite_errorcode", 0) & 0xFF) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def _why(error: Exception) -> str:
    """The database's own words, without the statement."""
    said = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
    return str(said).strip()[:WHY_CHARS_MAX]


def _used(statement: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """The values that a statement names: what counts may name fewer."""
    return {name: values[name] for name in text(statement).compile().params if name in values}


def _touched(
    connection: Connection, statement: Statement, values: Mapping[str, Any], judged: int, bounds: Bounds
) -> dict[str, Any]:
    """How many rows were touched, and what the statement returns of them: no more is read than was judged."""
    within = statement.returns and connection.dialect.name == "postgresql"
    sent = statement.returning(judged + 1) if within else statement.text
    found = connection.execute(text(sent), _used(sent, values))
    if not statement.returns:
        return {"rows_changed": found.rowcount}
    answer = _answer(found, bounds, CHANGED if within else None)
    seen, told = answer.pop("row_count"), answer.pop("apart")
    return {"rows_changed": told or 0 if within else seen + sum(1 for _ in found), **answer}


def _answer(found: CursorResult[Any], bounds: Bounds, aside: str | None) -> dict[str, Any]:
    """Columns and rows as JSON, as many as the bounds let; `truncated` if there are more. One column may be put aside:
    its last value is `apart`."""
    names = _once(list(found.keys()))
    rows: list[dict[str, Any]] = []
    room, truncated, seen, apart = bounds.bytes, False, 0, None
    for row in found:
        seen += 1
        shown = {name: jsonable(value) for name, value in zip(names, row, strict=True)}
        apart = shown.pop(aside) if aside is not None else None
        room -= len(orjson.dumps(shown))
        if len(rows) >= bounds.rows or room < 0:
            truncated = True
            break
        rows.append(shown)
    kept = [it for it in names if it != aside]
    return {"columns": kept, "rows": rows, "truncated": truncated, "row_count": seen, "apart": apart}


def _once(names: list[str]) -> list[str]:
    """Names of columns, each once: the second `a` is `a_2`."""
    found: list[str] = []
    for name in names:
        n, one = 1, name
        while one in found:
            n += 1
            one = f"{name}_{n}"
        found.append(one)
    return found


_FORMS: tuple[tuple[type | tuple[type, ...], Callable[[Any], Any]], ...] = (
    ((datetime, date, time_of_day), lambda it: it.isoformat()),
    (timedelta, lambda it: it.total_seconds()),
    (Decimal, str),
    ((bytes, bytearray, memoryview), lambda it: base64.b64encode(bytes(it)).decode()),
    ((list, tuple), lambda it: [jsonable(one) for one in it]),
    (dict, lambda it: {str(key): jsonable(one) for key, one in it.items()}),
)


def jsonable(value: Any) -> Any:
    """A value of a database as JSON: times as RFC 3339, decimals as text, bytes as base64, intervals in seconds."""
    if value is None or isinstance(value, str | bool):
        return value
    if isinstance(value, int):
        return value if -(2**63) <= value < 2**64 else str(value)
    if isinstance(value, float):
        return value if isfinite(value) else str(value)
    return next((form(value) for kind, form in _FORMS if isinstance(value, kind)), str(value))


__all__ = ["Bounds", "Keyed", "Refusal", "count", "read", "write"]
