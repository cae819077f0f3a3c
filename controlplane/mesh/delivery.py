"""From channels to inboxes: one unit moves a subscription forward and puts what it passed into the inbox.

That is the unit of the publication itself, for members that have all before it and room for it; they are rung. What
it did not reach is delivered here.

A subscription may wait for more: from its oldest message on, what comes within `debounce_s` is delivered
together, one by one or in batches. When that time is over follows from the message, so no death of the
gate begins it anew. A route that reads its channel again was set back; what it got before comes under the ids that
it had, or under new ones, up to where it was.

Positions are read in the order in which they were committed, because there is one writer. A member
whose inbox is full lags, and slows nobody: a publication looks at those alone that were up to date before it, and a
sweep after those that lag, of those known to be full some at a time. What retention took before a
member got it is told to it by a gap. What is being delivered to a member is delivered by one unit at a time.
"""

import asyncio
from collections.abc import Callable, Collection, Iterable
from datetime import UTC, datetime
from typing import NamedTuple

import orjson

from controlplane.mesh.again import Again, again, passed, reading
from controlplane.mesh.batches import batch, fitting
from controlplane.mesh.guests import Guests, still
from controlplane.mesh.queues import Queues
from controlplane.mesh.rows import Commit, Row, Rows
from controlplane.store import publishing, replays, watching
from controlplane.store import statements as sql
from schemas.base import canonical, rfc3339, short_id, turn_of

WINDOW = 256
AGAIN_MAX = 64
SWEPT_MAX, SOME = 500, " LIMIT ? OFFSET ?"
OF_CHANNEL, OF_MEMBER = " AND s.channel = ?", " AND s.channel = ? AND s.agent = ?"
SINCE = " AND s.channel = ? AND s.position >= ?"
FULL_MAX, FULL_KEPT_MAX = 50, 10_000  # full inboxes that a sweep counts again, and that are kept in mind
AGAIN_S = 0.05
Pair = tuple[str, str]
Triple = tuple[str, str, str]


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
    invitation: str | None = None  # of a guest
    replay: str | None = None
    keys: str | None = None
    until: int | None = None
    resume: int | None = None

    @property
    def again(self) -> Again | None:
        """What it reads again, if it does."""
        place = self.agent, self.replay, self.position, self.until, self.resume
        return reading(*place, self.namespace, self.agent_name)


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
        self._guests = Guests(reader, commit)
        self._moving: set[tuple[str, str]] = set()
        self._full: dict[str, int] = {}  # members whose inbox was found full; the lowest was counted longest ago
        self._counted = 0
        self._swept = 0
        self._waiting: dict[str, asyncio.TimerHandle] = {}

    def changed(self, namespace: str, name: str) -> None:
        """Somebody joined or left a channel."""
        row = self._reader.one(sql.CHANNEL, namespace, name)
        if row is not None:
            self.deliver(row[0])

    def moved(self, published: Iterable[Triple], members: Iterable[Pair], queues: Iterable[Pair]) -> None:
        """What a unit was for: publications, by namespace, channel and message; channels whose members changed; and
        queues of which a member has finished a message, by the uids of both."""
        for message in published:
            self.published(*message)
        for channel in members:
            self.changed(*channel)
        for of_queue in queues:
            self.queues.finished(*of_queue)

    def published(self, namespace: str, name: str, message_id: str, busy: Collection[str] = ()) -> int | None:
        """A message was published to a channel, and is committed: ring whom it has reached, but those who are `busy`
        with it. Answers its position."""
        row = self._reader.one(publishing.PUBLISHED, message_id, namespace, name)
        if row is None:
            return None
        channel, mode, position = row
        if mode == "queue":
            self.queues.look(channel)
            return None if position is None else int(position)
        if position is not None:
            for (agent,) in self._reader.rows(publishing.REACHED, channel, position):
                if agent not in busy:
                    self._ring(agent)
            for it in self._lagging(SINCE, channel, position - 1):
                self._unless_full(it)
        return None if position is None else int(position)

    def freed(self, agent: str) -> None:
        """A message has left an inbox: if that was full, the next sweep looks again."""
        self._full.pop(agent, None)

    @property
    def room(self) -> int:
        """How many messages an inbox may hold at most that a publication still goes to at once."""
        return min(publishing.FEW_WAIT, self._inbox_max - 1)

    def ready(self, channel: str, next_position: int, most: int) -> list[str]:
        """The members that have all before that position, and will have it at once; nobody where they are many."""
        found = self._reader.rows(publishing.READY, channel, next_position - 1, most + 1)
        return [agent for (agent,) in found if (channel, agent) not in self._moving] if len(found) <= most else []

    def deliver(self, channel: str) -> None:
        """Bring to all members, whoever they are by now, what they have not got yet."""
        self._to_members(channel)
        self.queues.give(channel)

    def _to_members(self, channel: str) -> None:
        for it in self._lagging(OF_CHANNEL, channel):
            self._unless_full(it)

    def _lagging(self, which: str, *params: str | int) -> list[Lagging]:
        return [Lagging(*row) for row in self._reader.rows(watching.LAGGING + which, *params)]

    def _unless_full(self, it: Lagging) -> None:
        if it.agent not in self._full:
            self._move(it)

    def sweep(self) -> None:
        """Some of those that lag, behind those of the last time: members that are full hide nobody."""
        found = self._lagging(SOME, SWEPT_MAX, self._swept)
        self._swept = self._swept + SWEPT_MAX if len(found) == SWEPT_MAX else 0
        full = sorted((it.agent for it in found if it.agent in self._full), key=lambda agent: self._full[agent])
        for agent in list(dict.fromkeys(full))[:FULL_MAX]:
            del self._full[agent]
        for it in found:
            self._unless_full(it)
        self.queues.sweep()
        self._guests.sweep(self._clock())

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
        if it.invitation is not None and not self._guests.holds(it.channel, it.agent, self._clock()):
            return
        if self._is_full(it.agent):
            return
        self._moving.add(key)
        if dropped > it.position:
            rows = self._gap(it, dropped)
        elif it.again is not None and it.keys == "new":
            rows = self._under_new_ids(it, it.again)
        else:
            rows = self._one_by_one(it) if it.batch_max == 1 else self._batched(it)
        if it.invitation is not None:
            rows.insert(0, still(it.channel, it.agent, self._clock()))

        def moved(outcome: str, _detail: str) -> None:
            self._moving.discard(key)
            if outcome == "ok":
                self._ring(it.agent)
                for rest in self._lagging(OF_MEMBER, it.channel, it.agent):
                    self._unless_full(rest)
            elif outcome == "conflict":  # it left, or retention came in between
                self._again_soon(it.channel)

        self._commit("delivery", rows, moved, 1)

    def _is_full(self, agent: str) -> bool:
        """Counts what waits in an inbox; one that is full is kept in mind."""
        waiting = self._reader.one(sql.BACKLOG, agent, self._inbox_max)
        if waiting is None or waiting[0] < self._inbox_max:
            return False
        if len(self._full) >= FULL_KEPT_MAX:
            self._full.clear()
        self._counted += 1
        self._full[agent] = self._counted
        return True

    def _one_by_one(self, it: Lagging) -> list[Row]:
        until = min(it.next_position - 1, it.position + WINDOW, it.again.until if it.again else it.next_position)
        put = (sql.DELIVER, (it.agent, self._clock(), it.channel, it.position, until), -1)
        return [put, *self._followed(it, until)]

    def _followed(self, it: Lagging, until: int) -> list[Row]:
        to, told = passed(it.again, until, self._clock())
        follows = (to, it.channel, it.agent, it.position, it.channel, it.position + 1)
        return [(sql.SUBSCRIPTION_FOLLOWS, follows, 1), *told]

    def _under_new_ids(self, it: Lagging, of: Again) -> list[Row]:
        """What it got before, as other messages."""
        found = self._reader.rows(replays.AGAIN, it.channel, it.position, of.until, AGAIN_MAX)
        if not found:  # retention came in between
            return self._followed(it, of.until)
        taken = fitting([str(row[2]) for row in found])
        until = int(found[taken - 1][0]) if taken < len(found) or taken == AGAIN_MAX else of.until
        rows = again(of, it.channel, found[:taken], self._clock())
        return [*rows, *self._followed(it, until)]

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
        put = (it.agent, made, "message", orjson.dumps(body).decode(), now, turn_of(it.agent, made))
        told = canonical({**about, "agent": it.agent_name}).decode()
        event = ("channel.gap", now, "Channel", it.namespace, it.name, None, None, told)
        to, ended = passed(it.again, until, now)
        return [(sql.PUT, put, -1), (sql.EVENT, event, 1), _advance(it, to), *ended]

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
