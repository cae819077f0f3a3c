"""The work that the store does for one call: every statement that is read or written, and the rows it gives.

Time is no proof on a shared machine. Who runs the same statements with parameters of the same shape,
gets as many rows from each, and takes as many steps of the database's machine, has done the same work.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import event

from controlplane.store.store import Store

_ours: ContextVar[object] = ContextVar("_ours", default=None)  # the loops of the plane read too


@dataclass
class Work:
    """What was done: statements with their parameters, in order; `rows` is counted afterwards."""

    read: list[tuple[str, Any]] = field(default_factory=list)
    written: list[tuple[str, Any]] = field(default_factory=list)
    rows: list[int] = field(default_factory=list)
    steps: int = 0  # of SQLite's machine, for all that is read: every row and index entry that is looked at costs some

    def shape(self) -> list[Any]:
        return [[sql for sql, _ in self.read], self.rows, [sql for sql, _ in self.written]]


@asynccontextmanager
async def worked(store: Store) -> AsyncIterator[Work]:
    """Listen to the store while a call is made."""
    work = Work()

    def reads(_connection: Any, _cursor: Any, sql: str, parameters: Any, _context: Any, _many: bool) -> None:
        if _ours.get() is work and sql != "BEGIN":
            work.read.append((sql, parameters))

    real = store._writer.write

    async def writes(statements: list[Any]) -> bool:
        if _ours.get() is work:
            work.written += [(sql, parameters) for sql, parameters, _ in statements]
        return await real(statements)

    ours = _ours.set(work)
    event.listen(store._engine, "before_cursor_execute", reads)
    store._writer.write = writes  # type: ignore[method-assign]
    try:
        yield work
    finally:
        _ours.reset(ours)
        event.remove(store._engine, "before_cursor_execute", reads)
        del store._writer.write
    with store._engine.connect() as connection:
        driver: Any = connection.connection.driver_connection
        counted = store.dialect == "sqlite"
        if counted:
            driver.set_progress_handler(lambda: _step(work), 1)
        try:
            work.rows = [len(connection.exec_driver_sql(sql, parameters).fetchall()) for sql, parameters in work.read]
        finally:
            if counted:
                driver.set_progress_handler(None, 0)


def _step(work: Work) -> int:
    work.steps += 1
    return 0
