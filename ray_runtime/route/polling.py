"""Rows of a poll: what is new among them, in their order, each once. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, Field

from ray_runtime.problems import refuse
from schemas.polled import DETAIL_CHARS_MAX, REASON_CHARS_MAX, Fault
from schemas.problem import Problem
from schemas.route import Poll

from .cursors import Value, alike, in_order, ordered

ROWS_AT_ONCE = 100
IDS_MAX = 10_000
UNANSWERED = (None, "Unreached", "Doubt", "Timeout", "QueryCanceled")  # as receipts say; None: it had no place
Mark = Value | tuple[Value, Value]  # the id of a row; with its cursor, where that is written in another way


class Place(BaseModel):
    """How far a poll is: the largest cursor, and the rows of that very value that were passed on. Until `more_until`
    (Unix time) it waits for the rows before to be done with, and then reads on. While it reads again, `reached` is
    where it was before, which is where it goes on if that is cancelled."""

    origin: str = ""
    cursor: Value = 0
    ids: list[Mark] = Field(default_factory=list)
    more_until: float = 0.0
    reached: tuple[Value, list[Mark]] | None = None

    def begin(self, origin: str, poll: Poll) -> None:
        """From where the poll says, if it is another one by now."""
        if self.origin != origin:
            self.origin, self.cursor, self.ids, self.reached = origin, poll.begin, [], None

    def set_back(self, value: Value) -> None:
        """It reads from a value on again; refused where that lies ahead: rows would be missed."""
        if not ordered(value, self.cursor):
            detail = f"the poll is at {self.cursor!r}, and {value!r} is not before that"
            raise refuse("INVALID_VALUE", detail, field="/value", cursor=self.cursor)
        if self.reached is None:
            self.reached = self.cursor, self.ids
        self.cursor, self.ids, self.more_until = value, [], 0.0

    def goes_on(self) -> None:
        """It reads on from where it was before it was set back, if it has not come there yet."""
        if self.reached is not None:
            (self.cursor, self.ids), self.reached, self.more_until = self.reached, None, 0.0

    def took(self, row: "Row") -> None:
        if row.cursor != self.cursor:
            self.ids = [*self._pairs()] if alike(row.cursor, self.cursor) else []
            self.cursor = row.cursor
        self.ids.append(row.id)
        if self.reached is not None and row.cursor != self.reached[0] and ordered(self.reached[0], row.cursor):
            self.reached = None

    def unknown(self, rows: "list[Row]") -> "list[Row]":
        """Those that were not passed on yet."""
        known = set(self._pairs())
        return [it for it in rows if (it.cursor, it.id) not in known]

    def _pairs(self) -> Iterator[tuple[Value, Value]]:
        """The rows that were passed on, of the value of the cursor, by how it is written and by id."""
        return (it if isinstance(it, tuple) else (self.cursor, it) for it in self.ids)


class Failing(BaseModel):
    """Why a poll fails, since when in Unix time; another poll of the same route that works ends it."""

    since: float
    fault: Fault
    reason: str
    detail: str


class Progress(Place):
    """The state of a route's worker: how far its poll is, and what it has done. `last_at` is in Unix time."""

    failing: Failing | None = None
    passed: int = 0
    filtered: int = 0
    retried: int = 0
    last_at: float = 0.0


def failing(problem: Problem, since: float) -> Failing:
    """What a failed query comes to. Who was not reached, or did not answer, is away; all else is an answer."""
    error = problem.metadata.get("error")
    away = problem.reason == "EFFECT_FAILED" and error in UNANSWERED
    fault: Fault = "away" if away else "wrong"
    return Failing(
        since=since, fault=fault, reason=problem.reason[:REASON_CHARS_MAX], detail=problem.detail[:DETAIL_CHARS_MAX]
    )


@dataclass(frozen=True)
class Row:
    """A row, with what tells it apart."""

    cursor: Value
    id: Value
    data: dict[str, Any]


def rows_of(poll: Poll, progress: Progress, found: dict[str, Any]) -> list[Row]:
    """The rows that were not passed on yet; refused where the statement is not as a poll's must be."""
    rows = [_row(poll, it) for it in found["rows"]]
    if not in_order([it.cursor for it in rows], progress.cursor):
        detail = f"the rows of the poll are not ordered by {poll.cursor}"
        raise refuse("INVALID_VALUE", detail, field="/spec/source/poll/statement", cursor=poll.cursor)
    new = progress.unknown(rows)
    if (found["truncated"] and not new) or len(progress.ids) >= IDS_MAX:
        detail = f"more rows have one value of {poll.cursor} than a poll reads at once"
        raise refuse("LIMIT_REACHED", detail, limit="query_rows_max", cursor=poll.cursor)
    return new


def _row(poll: Poll, data: dict[str, Any]) -> Row:
    cursor, mark = data.get(poll.cursor), data.get(poll.id)
    for name, value in ((poll.cursor, cursor), (poll.id, mark)):
        if not isinstance(value, str | int | float):
            detail = f"a row of the poll has no value in {name}"
            raise refuse("INVALID_VALUE", detail, field="/spec/source/poll", column=name)
    assert isinstance(cursor, str | int | float)
    assert isinstance(mark, str | int | float)
    return Row(cursor, mark, data)
