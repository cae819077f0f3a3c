"""From channels to inboxes: one unit moves a subscription forward and puts what it passed into the inbox.

Positions are read in the order in which they were committed, because there is one writer. A member
whose inbox is full lags, and slows nobody; a sweep looks after those that lag. What is being delivered
to a member is delivered by one unit at a time.
"""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from controlplane.store import statements as sql

WINDOW = 256


class Rows(Protocol):
    """Bounded reads."""

    def rows(self, sql: str, *params: Any) -> list[tuple[Any, ...]]: ...

    def one(self, sql: str, *params: Any) -> tuple[Any, ...] | None: ...


Commit = Callable[[str, Sequence[Any], Callable[[str, str], None], int], None]


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

    def kick(self, namespace: str, name: str) -> None:
        """Something was published to a channel."""
        row = self._reader.one(sql.CHANNEL, namespace, name)
        if row is not None:
            self.deliver(row[0])

    def deliver(self, channel: str) -> None:
        """Bring to all members what they have not got yet."""
        for row in self._reader.rows(sql.LAGGING + " AND s.channel = ?", channel):
            self._move(*row)

    def sweep(self) -> None:
        for row in self._reader.rows(sql.LAGGING + " LIMIT 500"):
            self._move(*row)

    def _move(self, channel: str, agent: str, position: int, next_position: int) -> None:
        if (channel, agent) in self._moving:
            return
        waiting = self._reader.one(sql.BACKLOG, agent, self._inbox_max)
        if waiting is not None and waiting[0] >= self._inbox_max:
            return
        self._moving.add((channel, agent))
        until = min(next_position - 1, position + WINDOW)
        rows = [
            (sql.DELIVER, (agent, self._clock(), channel, position, until), -1),
            (sql.SUBSCRIPTION_ADVANCE, (until, channel, agent, position), 1),
        ]

        def moved(outcome: str, _detail: str) -> None:
            self._moving.discard((channel, agent))
            if outcome == "ok":
                self._ring(agent)
                self.deliver(channel)

        self._commit("delivery", rows, moved, 1)
