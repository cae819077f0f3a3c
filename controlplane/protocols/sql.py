"""`sql.query` and `sql.execute`: one statement over a connection of protocol `sql`, with bound parameters.

A query only reads: by its grammar, and because its transaction can do nothing else. A change is previewed:
the rows it would touch are counted and judged, and it is committed only if it touched no more. What the
database promises nothing about is in doubt only where its commit was cut off; with a table of keys it is
done once, however often it is sent. The library and the drivers are loaded with the first statement.
"""

import asyncio
import logging
from collections.abc import Sequence
from functools import partial
from math import inf
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from controlplane.resources.problems import refuse
from schemas.endpoint import ConnectionSpec
from schemas.ports import EffectCall, Effector, Link, Previewed, Role
from schemas.protocols import Declaration
from schemas.sql import SqlStatement
from schemas.sql_connection import SqlConnection, SqlOptions

if TYPE_CHECKING:
    from controlplane.protocols import sql_running
    from controlplane.protocols.sql_engine import Databases
    from controlplane.protocols.sql_statements import Statement

logging.getLogger("sqlglot").setLevel(logging.ERROR)  # what it can not read is refused, and told to who wrote it


ROLES: MappingProxyType[str, Role] = MappingProxyType({"statement": "control", "parameters": "payload"})


class _Sql:
    """What both have: the databases, loaded with the first statement."""

    protocol: str | None = "sql"
    timeout_s = 30.0
    arguments: type[BaseModel] = SqlStatement
    roles = ROLES

    def __init__(self, shared: "Shared") -> None:
        self._shared = shared

    async def ready(self) -> None:
        """Load the library, in a thread."""
        await self._shared.load()


class Shared:
    """The databases of a gate; `folders` are those that files of SQLite may lie in."""

    def __init__(self, folders: Sequence[Path]) -> None:
        self._folders = folders
        self._databases: Databases | None = None

    async def load(self) -> None:
        if self._databases is None:
            loaded = await asyncio.to_thread(_loaded, self._folders)
            self._databases = self._databases or loaded

    async def read(self, given: SqlStatement, link: Link) -> Any:
        """The rows of a query."""
        from controlplane.protocols import sql_running, sql_statements

        table = options(link.spec).keys_table
        read = sql_statements.query
        statement = await asyncio.to_thread(read, given.statement, given.parameters, _dialect(link), table)
        run = partial(sql_running.read, statement=statement, values=given.parameters, bounds=_bounds(link))
        return await self._done(link, run, "sql.query", writes=False)

    async def count(self, given: SqlStatement, link: Link) -> int:
        """The rows that a change would touch."""
        from controlplane.protocols import sql_running

        statement = await self._change(given, link)
        if statement.rows is not None:
            _require_returnable(statement, statement.rows, link)
            return statement.rows
        assert statement.count is not None
        run = partial(sql_running.count, statement=statement.count, values=given.parameters, bounds=_bounds(link))
        found: int = await self._done(link, run, "sql.execute", writes=False)
        _require_returnable(statement, found, link)
        return found

    async def write(self, given: SqlStatement, link: Link, judged: int, key: str) -> Any:
        """What a change touched, if that is no more than was judged."""
        from controlplane.protocols import sql_running

        table = options(link.spec).keys_table
        statement = await self._change(given, link)
        _require_returnable(statement, judged, link)
        run = partial(
            sql_running.write,
            statement=statement,
            values=given.parameters,
            judged=judged,
            keyed=None if table is None else sql_running.Keyed(table, key),
            bounds=_bounds(link),
        )
        return await self._done(link, run, "sql.execute", writes=True)

    async def _change(self, given: SqlStatement, link: Link) -> "Statement":
        from controlplane.protocols.sql_statements import change

        table = options(link.spec).keys_table
        return await asyncio.to_thread(change, given.statement, given.parameters, _dialect(link), table)

    async def _done(self, link: Link, run: Any, effect: str, *, writes: bool) -> Any:
        from controlplane.protocols.sql_worker import done

        await self.load()
        assert self._databases is not None
        database = await self._databases.of(link, writes=writes)
        database.busy += 1
        try:
            return await done(database.threads, lambda work: run(database, work=work), _timeout(link), effect)
        finally:
            database.busy -= 1


class SqlQuery(_Sql):
    """Reads rows for agents."""

    name = "sql.query"
    description = "One statement that only reads, with bound parameters; answers rows."
    reads_only = True

    def repeats_for_s(self, arguments: BaseModel, spec: ConnectionSpec | None) -> float:
        return inf

    async def execute(self, arguments: BaseModel, call: EffectCall) -> Any:
        assert isinstance(arguments, SqlStatement)
        assert call.link is not None
        return await self._shared.read(arguments, call.link)


class SqlExecute(_Sql):
    """Changes rows for agents, no more than were judged."""

    name = "sql.execute"
    description = "One INSERT, UPDATE or DELETE of one table, with bound parameters; commits only what was judged."
    reads_only = False

    def repeats_for_s(self, arguments: BaseModel, spec: ConnectionSpec | None) -> float:
        """For as long as its key is kept, if it is written anywhere."""
        if spec is None or options(spec).keys_table is None:
            return 0.0
        return float(options(spec).keys_kept_s or inf)

    async def preview(self, arguments: BaseModel, link: Link | None) -> Previewed:
        """How many rows it would touch, and how many it may."""
        assert isinstance(arguments, SqlStatement)
        assert link is not None
        return Previewed({"rows": await self._shared.count(arguments, link)}, {"rows": options(link.spec).rows_max})

    async def execute(self, arguments: BaseModel, call: EffectCall) -> Any:
        assert isinstance(arguments, SqlStatement)
        assert call.link is not None
        return await self._shared.write(arguments, call.link, call.judged["rows"], call.key)


def effectors(folders: Sequence[Path]) -> tuple[Effector, Effector]:
    """Both, over the same databases."""
    shared = Shared(folders)
    return SqlQuery(shared), SqlExecute(shared)


def options(spec: ConnectionSpec) -> SqlOptions:
    assert isinstance(spec, SqlConnection)
    return spec.options


def _require_returnable(statement: "Statement", rows: int, link: Link) -> None:
    """Refuse a change that would return more rows than a query may: drivers read all of them at once."""
    most = options(link.spec).query_rows_max
    if statement.returns and rows > most:
        detail = f"the statement would return {rows} rows, and {most} are the most; leave out RETURNING"
        raise refuse("LIMIT_REACHED", detail, limit="query_rows_max", max=most, rows=rows)


def _dialect(link: Link) -> str:
    """The grammar that a statement is read by."""
    from controlplane.protocols.sql_statements import grammar

    return grammar(link.spec.endpoint.partition(":")[0].partition("+")[0])


def _timeout(link: Link) -> float:
    return link.spec.limits.timeout_s


def _bounds(link: Link) -> "sql_running.Bounds":
    from controlplane.protocols.sql_running import Bounds
    from controlplane.protocols.sql_worker import PATIENCE

    most = options(link.spec).query_rows_max
    return Bounds(most, link.spec.limits.response_bytes_max, _timeout(link) * PATIENCE)


def _loaded(folders: Sequence[Path]) -> "Databases":
    from controlplane.protocols import sql_running as _  # noqa: F401 - it loads the library
    from controlplane.protocols.sql_engine import Databases

    return Databases(folders)


PROTOCOL = Declaration("sql", lambda around: effectors(around.folders))
