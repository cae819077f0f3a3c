"""Queues: each message to one member, in order of its key, the most urgent key first.

A key sticks to the member that has an unfinished message of it: the next one of that key is `ready` when the last
is finished, and until then only the same member may have it, if the queue lets it hold several; that one waits in
line with all others, as urgent as its key is. A member holds `in_flight_max` unfinished messages at most. Nothing comes
to anybody again because time went by. What is given out is decided here from what is stored, and committed by a unit
that holds only if the message still waits and the member is still one; so whoever leaves, and whatever ends, at that
very moment makes the unit void, not wrong.
"""

import asyncio
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

import msgspec

from controlplane.mesh.guests import still
from controlplane.mesh.rooms import RETRY_AFTER_S, Rooms
from controlplane.mesh.rows import Commit, Row, Rows
from controlplane.mesh.standing import Standing, Standings
from controlplane.resources.problems import problem
from controlplane.store import queues as sql
from controlplane.store import statements
from schemas.base import canonical
from schemas.problem import Problem

AT_ONCE = 64
SWEPT_MAX, OVERDUE_MAX, READ_MAX = 500, 200, 50
AGAIN_S = 0.05
ROOMS_MAX = 10_000


class _Expiry(msgspec.Struct):
    """What of an envelope says until when it is good."""

    expires: datetime | None = None


_expiry = msgspec.json.Decoder(_Expiry)


class Queues:
    """Gives messages of queues to their members."""

    def __init__(self, reader: Rows, commit: Commit, ring: Callable[[str], None], clock: Callable[[], float]) -> None:
        self._reader = reader
        self._commit = commit
        self._ring = ring
        self._clock = clock
        self._giving: set[str] = set()
        self._again: set[str] = set()
        self._standings = Standings(reader)
        self._rooms = Rooms(ROOMS_MAX)
        self._swept = ""
        self._expiring: set[tuple[str, int]] = set()
        self._later: set[asyncio.TimerHandle] = set()

    def end(self) -> None:
        """Give out nothing more."""
        for handle in self._later:
            handle.cancel()

    def give(self, channel: str) -> None:
        """To whoever has room, and whoever is a member by now, what is ready."""
        self._standings.forget(channel)
        self.look(channel)

    def finished(self, channel: str, agent: str) -> None:
        """A member has finished with a message: it has room, and the next of that key may be ready."""
        self._standings.finished(channel, agent)
        self.look(channel)

    def look(self, channel: str) -> None:
        """To whoever is known to have room, what is ready. One unit of a queue at a time."""
        if channel in self._giving:
            self._again.add(channel)
            return
        row = self._reader.one(sql.QUEUE, channel)
        if row is None or row[0] != "queue":
            return
        now = self._clock()
        standing = self._standings.now(channel, int(row[1]), now)
        given = self._matched(channel, standing, now)
        if not given:
            return
        self._giving.add(channel)
        rows: list[Row] = [still(channel, it, now) for it in {agent for agent, _ in given} & standing.guests]
        for agent, position in given:
            rows.append((sql.TAKE, (now, agent, channel, position), 1))
            rows.append((sql.TAKEN, (channel, position), 1))

        def gave(outcome: str, _detail: str) -> None:
            self._giving.discard(channel)
            again = channel in self._again
            self._again.discard(channel)
            if outcome == "ok":
                self._rooms.freed(channel, len(given))
                for agent in dict.fromkeys(agent for agent, _ in given):
                    self._ring(agent)
                if again or len(given) == AT_ONCE or standing.most > 1:
                    self.look(channel)
            else:
                self._standings.forget(channel)
                self._look_later(channel)

        self._commit("dispatch", rows, gave, 1)

    def _look_later(self, channel: str) -> None:
        def look() -> None:
            self._later.discard(handle)
            self.look(channel)

        handle = asyncio.get_running_loop().call_later(AGAIN_S, look)
        self._later.add(handle)

    def _matched(self, channel: str, standing: Standing, now: float) -> list[tuple[str, int]]:
        """Who gets which position, the most urgent first. Members that have least come first, and then in turn."""
        if not standing.free:
            return []
        found: list[tuple[int, int, str | None]] = [
            (rank, position, None) for position, rank in self._reader.rows(sql.HEADS, channel, now, AT_ONCE)
        ]
        if standing.most > 1:
            held = self._reader.rows(sql.OF_HELD_KEYS, channel, standing.most, channel, channel, now, AT_ONCE)
            found += [(rank, position, agent) for position, rank, agent in held if agent in standing.free]
        given: list[tuple[str, int]] = []
        for _, position, holder in sorted(found, key=lambda it: it[:2])[:AT_ONCE]:
            agent = next(iter(standing.free), None) if holder is None else holder
            if agent in standing.free:
                given.append((agent, position))
                standing.take(agent)
        return given

    def full(self, channel: str, address: str, most: int) -> Problem | None:
        """Why a queue takes no more; each None is room for one message."""
        if not self._rooms.full(channel, most, lambda: int(self._reader.rows(sql.BACKLOG, channel, most)[0][0])):
            return None
        detail = f"the queue {address} holds {most} messages that no member has, which is the most"
        return problem("BACKLOG_FULL", detail, retry_after_s=RETRY_AFTER_S, channel=address, messages=most)

    def sweep(self) -> None:
        """What nobody was told of, and what is overdue; queues behind those of the last time."""
        self._standings.forget_all()
        rows = self._reader.rows(sql.WAITING_QUEUES, self._swept, SWEPT_MAX)
        self._swept = rows[-1][0] if len(rows) == SWEPT_MAX else ""
        for (channel,) in rows:
            self.look(channel)
        self._note_expiry()
        now = self._clock()
        for row in self._reader.rows(sql.OVERDUE, now, OVERDUE_MAX):
            self._expire(row, now)

    def _note_expiry(self) -> None:
        """Of what members have given back: until when it is good, as its envelope says."""
        found = self._reader.rows(sql.GIVEN_BACK, sql.UNREAD, READ_MAX)
        rows = [(sql.GOOD_UNTIL, (_good_until(body), *place, sql.UNREAD), -1) for *place, body in found]
        if rows:
            self._commit("dated", rows, lambda *_: None, 1)

    def _expire(self, row: Sequence[Any], now: float) -> None:
        channel, position, key, namespace, name, message_id = row
        if (channel, position) in self._expiring:
            return
        self._expiring.add((channel, position))
        detail = "no member had it before it expired"
        told = {"message_id": message_id, "reason": "EXPIRED", "detail": detail, "trigger": "publish"}
        about = ("message.dead_lettered", now, "Channel", namespace, name, None, None, canonical(told).decode())
        rows: list[Row] = [
            (sql.OVERDUE_LETTER, (detail, now, channel, position), 1),
            (sql.TAKEN, (channel, position), 1),
            *([] if key is None else _next_of(channel, key)),
            (statements.EVENT, about, 1),
        ]

        def expired(outcome: str, _detail: str) -> None:
            self._expiring.discard((channel, position))
            if outcome == "ok":
                self._rooms.freed(channel)
            self.look(channel)

        self._commit("overdue", rows, expired, 1)


def _good_until(body: str) -> float | None:
    try:
        expires = _expiry.decode(body).expires
    except msgspec.DecodeError:
        return None
    return None if expires is None else expires.timestamp()


def _next_of(channel: str, key: str) -> list[Row]:
    """Of a key that has lost a message which nobody had: the next may be ready, and less urgent."""
    promote = (sql.PROMOTE_KEY, (channel, key, channel, key, channel, key, ""), -1)
    return [promote, (sql.RERANK, (channel, key), -1)]
