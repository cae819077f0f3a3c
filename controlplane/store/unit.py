"""A unit of writing: statements that happen all together, or not at all.

A unit is built where the decision is made, and travels to the one writer as SQL text with `?` and
scalars. Each statement says how many rows it must touch (-1: any); another count is a conflict,
and then nothing of the unit was changed. So a compare-and-set is a statement with a condition and
`expect=1`. The record and the feedback event that speaks of it belong in the same unit.
A unit reads nothing, and holds no connection.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Self

import orjson
from sqlalchemy import Dialect as SqlDialect
from sqlalchemy import Executable, Insert
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine.interfaces import Compiled
from sqlalchemy.sql.compiler import SQLCompiler

from controlplane.store.batching import Fixed
from controlplane.store.location import Dialect

Scalar = str | int | float | bytes | None
Statement = tuple[str, list[Any], int]
ANY = -1
_CACHE_MAX = 1_000
_DIALECTS: dict[Dialect, SqlDialect] = {
    "sqlite": sqlite.dialect(paramstyle="qmark"),
    "postgresql": postgresql.dialect(paramstyle="qmark"),  # type: ignore[no-untyped-call]
}
EVENT = Fixed(
    "INSERT INTO event (type, time, kind, namespace, name, principal, change_id, turn_id, data)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
_compiled: dict[tuple[Dialect, Any], SQLCompiler] = {}


class Unit:
    """Statements in their order. The methods that add one answer the unit again."""

    __slots__ = ("_statements",)

    def __init__(self) -> None:
        self._statements: list[tuple[str | Executable, Sequence[Scalar], int]] = []

    def __len__(self) -> int:
        return len(self._statements)

    def run(self, statement: Executable, expect: int | None = None) -> Self:
        """A Core insert, update or delete on the tables of the store."""
        self._statements.append((statement, (), ANY if expect is None else expect))
        return self

    def raw(self, sql: str, params: Sequence[Scalar], expect: int | None = None) -> Self:
        """SQL that both databases take, with `?` for each scalar."""
        self._statements.append((sql, params, ANY if expect is None else expect))
        return self

    def rows(self, rows: Iterable[tuple[str, Sequence[Any], int]]) -> Self:
        """Statements as the gate's units hold them."""
        for text, params, expect in rows:
            self.raw(text, params, None if expect < 0 else expect)
        return self

    def add(self, other: "Unit") -> Self:
        """All of another unit, after what is here."""
        self._statements += other._statements
        return self

    def event(
        self,
        type: str,  # noqa: A002 - the field's name in the contract
        *,
        kind: str,
        namespace: str,
        name: str,
        now: float,
        principal: str | None = None,
        change_id: str | None = None,
        turn_id: str | None = None,
        data: dict[str, Any] | None = None,
    ) -> Self:
        """What the feedback log says of this unit."""
        text = orjson.dumps(data or {}).decode()
        return self.raw(EVENT, [type, now, kind, namespace, name, principal, change_id, turn_id, text], 1)

    def compiled(self, dialect: Dialect) -> list[Statement]:
        """The statements as the writer takes them."""
        return [_statement(sql, params, expect, dialect) for sql, params, expect in self._statements]


def _statement(sql: str | Executable, params: Sequence[Scalar], expect: int, dialect: Dialect) -> Statement:
    if isinstance(sql, str):
        return sql, [_scalar(value) for value in params], expect
    text, values = _compile(sql, dialect)
    return text, [_scalar(value) for value in values], expect


def _compile(statement: Any, dialect: Dialect) -> tuple[str, list[Any]]:
    if isinstance(statement, Insert) and statement.select is None:
        statement = statement.inline()  # else PostgreSQL's new keys would be asked back
    key = statement._generate_cache_key()
    known = _compiled.get((dialect, key.key)) if key is not None else None
    if known is not None and key is not None:
        return known.string, _values(known, known.construct_params(extracted_parameters=key.bindparams))
    compiled = _compiler(statement, dialect, cache_key=key)
    if compiled.post_compile_params or compiled.literal_execute_params:  # the text depends on the values: IN lists
        compiled = _compiler(statement, dialect, compile_kwargs={"render_postcompile": True})
    elif key is not None:
        if len(_compiled) >= _CACHE_MAX:
            _compiled.clear()
        _compiled[(dialect, key.key)] = compiled
    return compiled.string, _values(compiled, compiled.params)


def _compiler(statement: Any, dialect: Dialect, **options: Any) -> SQLCompiler:
    compiled: Compiled = statement.compile(dialect=_DIALECTS[dialect], **options)
    if not isinstance(compiled, SQLCompiler):
        raise TypeError(f"a unit holds inserts, updates and deletes, not {type(statement).__name__}")
    return compiled


def _values(compiled: SQLCompiler, params: Any) -> list[Any]:
    return [params[name] for name in compiled.positiontup or ()]


def _scalar(value: Any) -> Scalar:
    if isinstance(value, bool):
        return int(value)
    if value is None or isinstance(value, str | int | float | bytes):
        return value
    raise TypeError(f"a statement's parameter must be a scalar, not {type(value).__name__}")
