"""Queues: each message to one member, in order of its key, the most urgent key first.

A key sticks to the member that has an unfinished message of it: the next one of that key is `ready` when the last
is finished, and until then only the same member may have it, if the queue lets it hold several. A member holds
`in_flight_max` unfinished messages at most. Nothing comes to anybody again because time went by. What is given out is
decided here from what is stored, and committed by a unit that holds only if the message still waits and the member
is still one; so whoever leaves, and whatever ends, at that very moment makes the unit void, not wrong.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from controlplane.mesh.rows import Commit, Row, Rows
from controlplane.resources.problems import problem
from controlplane.store import queues as sql
from controlplane.store import statements
from schemas.base import canonical
from schemas.problem import Problem

AT_ONCE = 64
SWEPT_MAX, OVERDUE_MAX = 500, 200
AGAIN_S, RETRY_AFTER_S = 0.05, 1.0
RECOUNT, ROOMS_MAX = 256, 10_000


class Queues:
    """Gives messages of queues to their members."""

    def __init__(self, reader: Rows, commit: Commit, ring: Callable[[str], None], clock: Callable[[], float]) -> None:
        self._reader = reader
        self._commit = commit
        self._ring = ring
        self._clock = clock
        self._giving: set[str] = set()
        self._again: set[str] = set()
        self._room: dict[str, int] = {}
        self._turns = 0
        self._swept = ""
        self._expiring: set[tuple[str, int]] = set()
        self._later: set[asyncio.TimerHandle] = set()

    def end(self) -> None:
        """Give out nothing more."""
        for handle in self._later:
            handle.cancel()

    def give(self, channel: str) -> None:
        """To whoever has room, what is ready. One unit of a queue at a time."""
        if channel in self._giving:
            self._again.add(channel)
            return
        row = self._reader.one(sql.QUEUE, channel)
        if row is None or row[0] != "queue":
            return
        given = self._matched(channel, int(row[1]))
        if not given:
            return
        self._giving.add(channel)
        now = self._clock()
        rows: list[Row] = []
        for agent, position in given:
            rows.append((sql.TAKE, (now, agent, channel, position), 1))
            rows.append((sql.TAKEN, (channel, position), 1))

        def gave(outcome: str, _detail: str) -> None:
            self._giving.discard(channel)
            again = channel in self._again
            self._again.discard(channel)
            if outcome == "ok":
                for agent in dict.fromkeys(agent for agent, _ in given):
                    self._ring(agent)
                if again or len(given) == AT_ONCE or int(row[1]) > 1:
                    self.give(channel)
            else:
                self._look_later(channel)

        self._commit("dispatch", rows, gave, 1)

    def _look_later(self, channel: str) -> None:
        def look() -> None:
            self._later.discard(handle)
            self.give(channel)

        handle = asyncio.get_running_loop().call_later(AGAIN_S, look)
        self._later.add(handle)

    def _matched(self, channel: str, most: int) -> list[tuple[str, int]]:
        """Who gets which position: members that hold a key first its next ones, then whoever holds least."""
        now = self._clock()
        members = self._reader.rows(sql.MEMBERS, channel)
        self._turns += 1
        first = self._turns % len(members) if members else 0
        free = [(int(held), agent) for agent, held in members[first:] + members[:first] if held < most]
        given: list[tuple[str, int]] = []
        taken: set[int] = set()
        room: dict[str, int] = {}
        for held, agent in free:
            room[agent] = most - held
            if not held:
                continue
            for (position,) in self._reader.rows(sql.OF_HELD_KEYS, agent, channel, now, room[agent]):
                if len(given) < AT_ONCE and position not in taken:
                    taken.add(position)
                    given.append((agent, position))
                    room[agent] -= 1
        return given + self._heads(channel, now, room, taken, AT_ONCE - len(given))

    def _heads(
        self, channel: str, now: float, room: dict[str, int], taken: set[int], most: int
    ) -> list[tuple[str, int]]:
        places = [agent for agent, left in room.items() if left > 0]
        if not places or most <= 0:
            return []
        found = [it[0] for it in self._reader.rows(sql.HEADS, channel, now, most) if it[0] not in taken]
        given: list[tuple[str, int]] = []
        while found and places:
            for agent in list(places):
                if not found:
                    break
                given.append((agent, found.pop(0)))
                room[agent] -= 1
                if not room[agent]:
                    places.remove(agent)
        return given

    def full(self, channel: str, address: str, most: int) -> Problem | None:
        """Why a queue takes no more; each None is room for one message. Counted once for some hundred."""
        room = self._room.get(channel, 0)
        if room <= 0:
            waiting = int(self._reader.rows(sql.BACKLOG, channel, most)[0][0])
            if waiting >= most:
                detail = f"the queue {address} holds {waiting} messages that no member has, which is the most"
                return problem("BACKLOG_FULL", detail, retry_after_s=RETRY_AFTER_S, channel=address, messages=waiting)
            if len(self._room) > ROOMS_MAX:
                self._room.clear()
            room = min(RECOUNT, most - waiting)
        self._room[channel] = room - 1
        return None

    def sweep(self) -> None:
        """What nobody was told of, and what is overdue; queues behind those of the last time."""
        rows = self._reader.rows(sql.WAITING_QUEUES, self._swept, SWEPT_MAX)
        self._swept = rows[-1][0] if len(rows) == SWEPT_MAX else ""
        for (channel,) in rows:
            self.give(channel)
        now = self._clock()
        for row in self._reader.rows(sql.OVERDUE, now, OVERDUE_MAX):
            self._expire(row, now)

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
            *([] if key is None else [(sql.PROMOTE_KEY, (channel, key, channel, key, channel, key, ""), -1)]),
            (statements.EVENT, about, 1),
        ]

        def expired(_outcome: str, _detail: str) -> None:
            self._expiring.discard((channel, position))
            self.give(channel)

        self._commit("overdue", rows, expired, 1)
