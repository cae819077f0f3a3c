"""From channels to inboxes: one unit moves a subscription forward and puts what it passed into the inbox.

That is the unit of the publication itself, for members that have all before it and room for it; they are rung. What
it did not reach is delivered here.

A subscription may wait for more: from its oldest message on, what comes within `debounce_s` is delivered
together, one by one or in batches. When that time is over follows from the message, so no death of the
gate begins it anew.

Positions are read in the order in which they were committed, because there is one writer. A member
whose inbox is full lags, and slows nobody; a sweep looks after those that lag. What retention took before a
member got it is told to it by a gap. What is being delivered to a member is delivered by one unit at a time.
"""

import asyncio
from collections.abc import Callable, Collection
from datetime import UTC, datetime
from typing import NamedTuple

import orjson

from controlplane.mesh.batches import batch, fitting
from controlplane.mesh.queues import Queues
from controlplane.mesh.rows import Commit, Row, Rows
from controlplane.store import publishing, watching
from controlplane.store import statements as sql
from schemas.base import canonical, rfc3339, short_id

WINDOW = 256
SWEPT_MAX, SOME = 500, " LIMIT ? OFFSET ?"
AGAIN_S = 0.05


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
    agent_name: str
    first: int | None  # of what it has not got, the first that is still there


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
        self.queues = Queues(reader, commit, ring, clock)
        self._moving: set[tuple[str, str]] = set()
        self._swept = 0
        self._waiting: dict[str, asyncio.TimerHandle] = {}

    def kick(self, namespace: str, name: str) -> None:
        """Somebody has joined a channel, or left it."""
        row = self._reader.one(sql.CHANNEL, namespace, name)
        if row is not None:
            self.deliver(row[0])

    def published(self, namespace: str, name: str, message_id: str, busy: Collection[str] = ()) -> int | None:
        """A message was published to a channel, and is committed: ring whom it has reached, but those who are `busy`
        with it. Answers its position."""
        row = self._reader.one(publishing.PUBLISHED, message_id, namespace, name)
        if row is None:
            return None
        channel, mode, position = row
        if mode == "queue":
            self.queues.give(channel)
            return None if position is None else int(position)
        if position is not None:
            for (agent,) in self._reader.rows(publishing.REACHED, channel, position):
                if agent not in busy:
                    self._ring(agent)
        self.deliver(channel)
        return None if position is None else int(position)

    @property
    def room(self) -> int:
        """How many messages an inbox may hold at most that a publication still goes to at once."""
        return min(publishing.FEW_WAIT, self._inbox_max - 1)

    def ready(self, channel: str, next_position: int, most: int) -> list[str]:
        """The members that have all before that position, and will have it at once; nobody where they are many."""
        found = self._reader.rows(publishing.READY, channel, next_position - 1, most + 1)
        return [agent for (agent,) in found if (channel, agent) not in self._moving] if len(found) <= most else []

    def deliver(self, channel: str) -> None:
        """Bring to all members what they have not got yet."""
        for row in self._reader.rows(sql.LAGGING + " AND s.channel = ?", channel):
            self._move(Lagging(*row))
        self.queues.give(channel)

    def sweep(self) -> None:
        """Some of those that lag, behind those of the last time: members that are full hide nobody."""
        rows = self._reader.rows(sql.LAGGING + SOME, SWEPT_MAX, self._swept)
        self._swept = self._swept + SWEPT_MAX if len(rows) == SWEPT_MAX else 0
        for row in rows:
            self._move(Lagging(*row))
        self.queues.sweep()

    def end(self) -> None:
        """Wait for nothing more."""
        for handle in self._waiting.values():
            handle.cancel()
        self.queues.end()

    def _move(self, it: Lagging) -> None:
        key = (it.channel, it.agent)
        dropped = (it.first or it.next_position) - 1  # up to there retention took what it had not got
        if key in self._moving or (dropped == it.position and it.debounce_s and self._waits(it)):
            return
        waiting = self._reader.one(sql.BACKLOG, it.agent, self._inbox_max)
        if waiting is not None and waiting[0] >= self._inbox_max:
            return
        self._moving.add(key)
        if dropped > it.position:
            rows = self._gap(it, dropped)
        else:
            rows = self._one_by_one(it) if it.batch_max == 1 else self._batched(it)

        def moved(outcome: str, _detail: str) -> None:
            self._moving.discard(key)
            if outcome == "ok":
                self._ring(it.agent)
                self.deliver(it.channel)
            elif outcome == "conflict":  # it left, or retention came in between
                self._again_soon(it.channel)

        self._commit("delivery", rows, moved, 1)

    def _one_by_one(self, it: Lagging) -> list[Row]:
        until = min(it.next_position - 1, it.position + WINDOW)
        put = (sql.DELIVER, (it.agent, self._clock(), it.channel, it.position, until), -1)
        follows = (until, it.channel, it.agent, it.position, it.channel, it.position + 1)
        return [put, (sql.SUBSCRIPTION_FOLLOWS, follows, 1)]

    def _gap(self, it: Lagging, until: int) -> list[Row]:
        """An envelope that stands for what it did not get, and an event that says so."""
        now, about = self._clock(), {"from": str(it.position + 1), "to": str(until)}
        made = short_id("gap", it.channel, it.position, until)
        body = {
            "specversion": "1.0",
            "id": made,
            "source": f"/{it.namespace}/channels/{it.name}",
            "type": "steward.gap",
            "subject": f"{it.namespace}/{it.name}",
            "time": rfc3339(datetime.fromtimestamp(now, UTC)),
            "datacontenttype": "application/json",
            "position": str(until),
            "data": about,
        }
        put = (it.agent, made, "message", orjson.dumps(body).decode(), now, short_id("turn", it.agent, made))
        told = canonical({**about, "agent": it.agent_name}).decode()
        event = ("channel.gap", now, "Channel", it.namespace, it.name, None, None, told)
        return [(sql.PUT, put, -1), (sql.EVENT, event, 1), _advance(it, until)]

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

    def _again_soon(self, channel: str) -> None:
        if channel not in self._waiting:
            self._waiting[channel] = asyncio.get_running_loop().call_later(AGAIN_S, self._waited, channel)

    def _waited(self, channel: str) -> None:
        self._waiting.pop(channel, None)
        self.deliver(channel)


def _advance(it: Lagging, until: int) -> Row:
    return sql.SUBSCRIPTION_ADVANCE, (until, it.channel, it.agent, it.position), 1
