"""Statements of a PostgreSQL connection, prepared, and given to libpq itself.

psycopg dumps and loads the values, and does all else that is not done thousands of times a second: its cursors
take more of the processor than the answers do.
"""

import itertools
import re
import select
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Any

import psycopg
from psycopg.adapt import PyFormat, Transformer
from psycopg.pq import ExecStatus
from psycopg.pq.abc import PGresult
from psycopg.types.numeric import Int8Dumper

from controlplane.store.batching import Fixed, Group, Many
from controlplane.store.merging import Values, merged

_PLACES = re.compile(r"'(?:[^']|'')*'|\"[^\"]*\"|\?")
Key = tuple[str, tuple[int, ...]]  # a statement, and the types of its parameters
_WELL = (ExecStatus.COMMAND_OK, ExecStatus.TUPLES_OK)


@lru_cache(maxsize=2_000)
def as_libpq(sql: str) -> bytes:
    """`?` as `$1` and so on, outside of quotes."""
    numbers = itertools.count(1)

    def place(found: re.Match[str]) -> str:
        return f"${next(numbers)}" if found.group() == "?" else found.group()

    return _PLACES.sub(place, sql).encode()


class Prepared:
    """One connection's statements; errors are psycopg's."""

    def __init__(self, connection: "psycopg.Connection[Any]") -> None:
        connection.adapters.register_dumper(int, Int8Dumper)  # one prepared statement whatever the number's size
        self._connection = connection
        self._pq = connection.pgconn
        self._pq.nonblocking = 1  # what libpq waits for itself holds the interpreter: waiting is ours
        self._ready = select.poll()
        self._adapting = Transformer(connection)
        self._names: dict[Key, bytes] = {}
        self._new: dict[Key, bytes] = {}  # that are on their way
        self._numbers = itertools.count()

    def rows(self, sql: str, params: Sequence[Any]) -> list[tuple[Any, ...]]:
        """The rows of one query."""
        values = self._dumped(params)
        name = self._names.get((sql, values.types))
        if name is None:
            name = self._named()
            self._pq.send_prepare(name, as_libpq(sql), values.types)
            self._answer()
            self._names[sql, values.types] = name
        self._pq.send_query_prepared(name, values.given, values.formats)
        result = self._answer()
        return self._loaded(result)

    def each(self, sql: str, params: Sequence[Sequence[Any]]) -> list[list[tuple[Any, ...]]]:
        """The rows of one query for each of the parameters, in one round trip."""
        if len(params) == 1:
            return [self.rows(sql, params[0])]
        found: list[list[tuple[Any, ...]]] = []
        self._in_one_trip([Group(Many(sql), -1, list(params))], lambda _, result: found.append(self._loaded(result)))
        return found

    def pipelined(self, groups: Sequence[Group]) -> list[int]:
        """Run all in one round trip; answers how many rows each group touched."""
        touched = [0] * len(groups)

        def counted(at: int, result: PGresult) -> None:
            touched[at] += result.command_tuples or 0

        self._in_one_trip(groups, counted)
        return touched

    def _in_one_trip(self, groups: Sequence[Group], take: Callable[[int, PGresult], None]) -> None:
        """Run all; each answer is taken with the place of its group."""
        dumped = [list(merged(group, [self._dumped(params) for params in group.params])) for group in groups]
        self._new.clear()
        self._pq.enter_pipeline_mode()
        try:
            sent = [
                it for at, group in enumerate(groups) for it in self._send(at, isinstance(group.sql, Fixed), dumped[at])
            ]
            self._pq.pipeline_sync()
            self._flush()
            self._settle(sent, take)
        finally:
            self._leave_pipeline()

    def _loaded(self, result: PGresult) -> list[tuple[Any, ...]]:
        self._adapting.set_pgresult(result)
        return self._adapting.load_rows(0, result.ntuples, tuple)

    def _leave_pipeline(self) -> None:
        """Where answers are left that nobody took, the connection ends, and the server undoes what was open."""
        try:
            self._pq.exit_pipeline_mode()
        except psycopg.Error:
            self._pq.finish()

    def _send(self, at: int, keep: bool, many: Sequence[tuple[str, Values]]) -> Iterator[int | Key]:
        """Each command on its way: a run of the group, or the preparing of a statement that is kept."""
        for sql, (given, types, formats) in many:
            if not keep:
                self._pq.send_query_params(as_libpq(sql), given, types, formats)
                yield at
                continue
            key = sql, types
            name = self._names.get(key) or self._new.get(key)
            if name is None:
                name = self._new[key] = self._named()
                self._pq.send_prepare(name, as_libpq(sql), types)
                yield key
            self._pq.send_query_prepared(name, given, formats)
            yield at

    def _settle(self, sent: Sequence[int | Key], take: Callable[[int, PGresult], None]) -> None:
        fault: PGresult | None = None
        for it in sent:
            result = self._next()
            if result is None:
                raise psycopg.OperationalError("the connection ended before the answer")
            while self._next() is not None:
                pass
            if result.status not in _WELL:
                fault = fault or result  # those after it were not tried
            elif isinstance(it, int):
                take(it, result)
            else:
                self._names[it] = self._new[it]
        self._next()  # the end of the pipeline
        if fault is not None:
            self._checked(fault)

    def _answer(self) -> PGresult:
        """Of the one command that was sent."""
        self._flush()
        result = self._next()
        while result is not None and self._next() is not None:
            pass
        if result is None:
            raise psycopg.OperationalError("the connection ended before the answer")
        return self._checked(result)

    def _flush(self) -> None:
        while self._pq.flush():
            self._wait(select.POLLIN | select.POLLOUT)

    def _next(self) -> PGresult | None:
        while self._pq.is_busy():
            self._wait(select.POLLIN)
        return self._pq.get_result()

    def _wait(self, events: int) -> None:
        """For the server, while other threads go on."""
        self._ready.register(self._pq.socket, events)
        self._ready.poll()
        self._pq.consume_input()

    def _named(self) -> bytes:
        return b"s%d" % next(self._numbers)

    def _checked(self, result: PGresult) -> PGresult:
        """Raises what the server, or the loss of the connection, says."""
        if result.status in _WELL:
            return result
        if self._connection.broken:
            raise psycopg.OperationalError(result.error_message.decode(errors="replace"))
        raise psycopg.errors.error_from_result(result)

    def _dumped(self, params: Sequence[Any]) -> Values:
        adapting = self._adapting
        given = adapting.dump_sequence(params, [PyFormat.AUTO] * len(params))
        return Values(given, adapting.types or (), adapting.formats or ())
