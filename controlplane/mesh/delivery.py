"""From channels to inboxes: one unit moves a subscription forward and puts what it passed into the inbox.

A subscription may wait for more: from its oldest message on, what comes within `debounce_s` is delivered
together, one by one or in batches. When that time is over follows from the message, so no death of the
gate begins it anew.

Positions are read in the order in which they were committed, because there is one writer. A member
whose inbox is full lags, and slows nobody; a sweep looks after those that lag. What is being delivered
to a member is delivered by one unit at a time.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

from controlplane.mesh.batches import Row, batch, fitting
from controlplane.store import statements as sql
from controlplane.store import watching

WINDOW = 256
SWEPT_MAX, SOME = 500, " LIMIT ? OFFSET ?"


class Rows(Protocol):
    """Bounded reads."""

    def rows(self, sql: str, *params: Any) -> list[tuple[Any, ...]]: ...

    def one(self, sql: str, *params: Any) -> tuple[Any, ...] | None: ...


Commit = Callable[[str, Sequence[Any], Callable[[str, str], None], int], None]


class Lagging(NamedTuple):
    """A member that has not got everything yet."""

    channel: str
    agent: str
    position: int
    next_position: int
    debounce_s: float
    batch_max: int
    namespace: str
    name: str


class Delivery:
    """Delivers channels to the inboxes of their members."""

    def __init__(
        self, reader: Rows, commit: Commit, ring: Callable[[str], None], clock: Callable[[], float], inbox_max: int
    ) -> None:
        self._reader = reader
        self._commit = commit
        self._ring = ring
        self._clock = clock
        self._inbox_max = inbox_max
        self._moving: set[tuple[str, str]] = set()
        self._swept = 0
        self._waiting: dict[str, asyncio.TimerHandle] = {}

    def kick(self, namespace: str, name: str) -> None:
        """Something was published to a channel."""
        row = self._reader.one(sql.CHANNEL, namespace, name)
        if row is not None:
            self.deliver(row[0])

    def deliver(self, channel: str) -> None:
        """Bring to all members what they have not got yet."""
        for row in self._reader.rows(sql.LAGGING + " AND s.channel = ?", channel):
            self._move(Lagging(*row))

    def sweep(self) -> None:
        """Some of those that lag, behind those of the last time: members that are full hide nobody."""
        rows = self._reader.rows(sql.LAGGING + SOME, SWEPT_MAX, self._swept)
        self._swept = self._swept + SWEPT_MAX if len(rows) == SWEPT_MAX else 0
        for row in rows:
            self._move(Lagging(*row))

    def end(self) -> None:
        """Wait for nothing more."""
        for handle in self._waiting.values():
            handle.cancel()

    def _move(self, it: Lagging) -> None:
        key = (it.channel, it.agent)
        if key in self._moving or (it.debounce_s and self._waits(it)):
            return
        waiting = self._reader.one(sql.BACKLOG, it.agent, self._inbox_max)
        if waiting is not None and waiting[0] >= self._inbox_max:
            return
        self._moving.add(key)
        rows = self._one_by_one(it) if it.batch_max == 1 else self._batched(it)

        def moved(outcome: str, _detail: str) -> None:
            self._moving.discard(key)
            if outcome == "ok":
                self._ring(it.agent)
                self.deliver(it.channel)

        self._commit("delivery", rows, moved, 1)

    def _one_by_one(self, it: Lagging) -> list[Row]:
        until = min(it.next_position - 1, it.position + WINDOW)
        put = (sql.DELIVER, (it.agent, self._clock(), it.channel, it.position, until), -1)
        return [put, _advance(it, until)]

    def _batched(self, it: Lagging) -> list[Row]:
        """The next batch; nothing but the step when retention took what was there."""
        found = self._reader.rows(watching.NEXT_OF_CHANNEL, it.channel, it.position, it.batch_max)
        if not found:
            return [_advance(it, it.next_position - 1)]
        bodies = [str(body) for _, body in found]
        taken = fitting(bodies)
        until = int(found[taken - 1][0])
        source = f"/{it.namespace}/channels/{it.name}"
        parts = (it.channel, it.position, until)
        return [batch(it.agent, source, parts, bodies[:taken], self._clock()), _advance(it, until)]

    def _waits(self, it: Lagging) -> bool:
        """Whether more may come for what is there; then it is looked at again when that time is over."""
        oldest = self._reader.one(watching.OLDEST_WAITING, it.channel, it.position)
        left = oldest[0] + it.debounce_s - self._clock() if oldest is not None else 0.0
        if not 0 < left <= it.debounce_s:  # over, or the clock was set
            return False
        loop = asyncio.get_running_loop()
        handle = self._waiting.get(it.channel)
        if handle is None or handle.when() > loop.time() + left:
            if handle is not None:
                handle.cancel()
            self._waiting[it.channel] = loop.call_later(left, self._waited, it.channel)
        return True

    def _waited(self, channel: str) -> None:
        self._waiting.pop(channel, None)
        self.deliver(channel)


def _advance(it: Lagging, until: int) -> Row:
    return sql.SUBSCRIPTION_ADVANCE, (until, it.channel, it.agent, it.position), 1
