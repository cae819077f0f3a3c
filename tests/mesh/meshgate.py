"""The mesh without hosts: its rooms and statements on a real store, and a gate that dies as an act says.

A unit of the gate ends in one of three ways, as an act says: nothing of it happened, and the gate is dead; it is
committed, nobody heard of it, and the gate is dead; or all is well. A dead gate forgets what it had in mind, and the
next one sweeps. Agents are rows; what they do is what the gate commits for them.
"""

import threading
import time
from collections import defaultdict, deque
from dataclasses import dataclass
from typing import Any, Literal

from controlplane.effects.reading import Reader
from controlplane.mesh.delivery import Delivery
from controlplane.store import queues
from controlplane.store.batching import Job
from controlplane.store.direct import DirectWriter
from controlplane.store.location import Dialect

Fate = Literal["well", "before", "untold"]
AGENTS, KEYS = 3, ("a", "b", None)
LAG_MAX, HELD_MAX, ATTEMPTS_MAX, INBOX_MAX = 4, 2, 2, 8
TABLES = (
    "channel", "channel_message", "subscription", "invitation", "membership", "queued", "delayed", "inbox", "turn",
    "agent", "dead_letter", "event", "resource",
)  # fmt: skip
QUEUE, NEWS, BRIEF = "queue", "news", "brief"
GUEST = AGENTS - 1  # of another namespace: a member by an invitation
TTL_S, LATER_S = 10.0, 20.0
TWO_HOLD = (
    "SELECT channel, key FROM inbox WHERE channel IS NOT NULL AND key IS NOT NULL GROUP BY channel, key"
    " HAVING COUNT(DISTINCT agent) > 1"
)
HOLDS = "SELECT agent, COUNT(*) FROM inbox WHERE channel = 'c-queue' GROUP BY agent"
MEMBERS = (
    "SELECT s.agent FROM subscription s JOIN agent a ON a.uid = s.agent WHERE s.channel = 'c-queue' AND a.stopped = 0"
    " AND (s.invitation IS NULL OR EXISTS (SELECT 1 FROM invitation i WHERE i.invitation_id = s.invitation"
    " AND i.revoked_at IS NULL AND i.expires_at > ?))"
)
HELD = "SELECT agent, COUNT(*) FROM inbox WHERE channel IS NOT NULL AND position IS NOT NULL GROUP BY agent"


@dataclass(frozen=True)
class Act:
    """What somebody does, and how the unit of it ends."""

    verb: str
    agent: int = 0
    channel: str = QUEUE
    key: str | None = None
    priority: int = 0
    fate: Fate = "well"
    ttl: bool = False
    swept: bool = True  # whether the gate's sweep comes behind it; else it goes by what it was told


class MeshGate:
    """One gate after the other, three agents, one of them a guest, a queue and a broadcast; and its own time."""

    def __init__(self, url: str, writer: DirectWriter) -> None:
        self._writer = writer
        self.reader = Reader(url)
        self._fates: deque[Fate] = deque()
        self._pending: deque[tuple[list[Any], Any]] = deque()
        self.published: dict[str, dict[int, tuple[str, str | None]]] = {QUEUE: {}, NEWS: {}}  # position: id, key
        self.handled: dict[int, list[dict[str, Any]]] = defaultdict(list)
        self.finished: list[dict[str, Any]] = []  # of the queue, in the order of commits
        self.members: dict[str, dict[int, tuple[int, list[list[int | None]]]]] = {QUEUE: {}, NEWS: {}}
        self.spans: list[tuple[str, int, int, int | None]] = []  # of the broadcast: agent reads from, before
        self.opened: dict[int, str] = {}
        self.waiting: dict[str, tuple[str, str | None, int]] = {}  # what is delayed: channel, key, priority
        self.expired: list[str] = []
        self.stopped: set[int] = set()
        self.now = time.time()
        self.brief: list[str] = []  # what was published to the channel that comes and goes
        self._dialect: Dialect = "sqlite" if url.startswith("sqlite") else "postgresql"
        self._made = 0
        self._invited = 0
        self._write([(f"DELETE FROM {table}", (), -1) for table in TABLES])
        rows: list[Any] = []
        for n in range(AGENTS):
            put = "INSERT INTO agent (uid, namespace, name, generation, epoch, version, stopped, changed_at)"
            rows.append((put + " VALUES (?, ?, ?, 1, 0, 0, 0, 1.0)", (f"u{n}", _namespace(n), f"a{n}"), 1))
        for name, mode in ((QUEUE, "queue"), (NEWS, "broadcast")):
            put = "INSERT INTO channel (uid, namespace, name, next_position, retention_s, mode, backlog_max,"
            put += " attempts_max, in_flight_max) VALUES (?, 'default', ?, 1, 1.0, ?, ?, ?, ?)"
            rows.append((put, (f"c-{name}", name, mode, LAG_MAX, ATTEMPTS_MAX, HELD_MAX), 1))
        assert self._write(rows)
        self._start()

    # The gate

    def _start(self) -> None:
        self._pending.clear()
        self.delivery = Delivery(self.reader, self._commit, lambda _: None, lambda: self.now, INBOX_MAX)

    def _commit(self, unit: str, rows: Any, done: Any, lane: int) -> None:
        if unit == "dispatch":
            self._require_urgency([it for it in rows if it[0] == queues.TAKE])
        self._pending.append((list(rows), done))

    def _write(self, rows: list[Any]) -> bool:
        ended, outcomes = threading.Event(), []

        def done(outcome: str, detail: str) -> None:
            outcomes.append((outcome, detail))
            ended.set()

        self._writer.committer.submit(Job(rows, done, 1))
        assert ended.wait(20)
        assert outcomes[0][0] != "error", outcomes
        return bool(outcomes[0][0] == "ok")

    def _die(self) -> None:
        self.delivery.end()
        self._start()

    def settle(self) -> None:
        """The gate's units end, each as it shall; after a death the next gate sweeps."""
        while self._pending:
            rows, done = self._pending.popleft()
            fate = self._fates.popleft() if self._fates else "well"
            if fate == "before":
                self._die()
                self.delivery.sweep()
                continue
            ok = self._write(rows)
            if fate == "untold":
                self._die()
                self.delivery.sweep()
            else:
                done("ok" if ok else "conflict", "")
        assert self.reader.rows(TWO_HOLD) == []
        assert all(held <= HELD_MAX for _, held in self.reader.rows(HELD))

    def _require_urgency(self, takes: list[Any]) -> None:
        """What is given first is the most urgent of what a member with room may have, in words of our own."""
        held = dict.fromkeys((f"u{n}" for n in range(AGENTS)), 0) | dict(self.reader.rows(HOLDS))
        members = {it[0] for it in self.reader.rows(MEMBERS, self.now)}
        room = {agent for agent in members if held[agent] < HELD_MAX}
        holders = dict(self.reader.rows("SELECT key, agent FROM inbox WHERE channel = 'c-queue' AND key IS NOT NULL"))
        waiting = self.reader.rows("SELECT position, key, own_rank, expires_at FROM queued ORDER BY position")
        urgency: dict[str, int] = {}
        for _, key, rank, _ in waiting:
            urgency[key] = min(rank, urgency.get(key, 9)) if key else 9
        found, seen = [], set()
        for position, key, rank, expires_at in waiting:
            over = expires_at is not None and expires_at <= self.now
            if key is not None and (key in seen or (over and key not in holders)):
                seen.add(key)
                continue
            if not over and (holders.get(key) in room if key in holders else room):
                seen.add(key)
                found.append((rank if key is None else urgency[key], position))
        agent, position = takes[0][1][1], takes[0][1][3]
        if agent in room:  # else the unit is void
            assert position == min(found)[1], (takes, found)

    def _unit(self, rows: list[Any], fate: Fate) -> bool:
        """A unit that somebody waits for: whether it happened."""
        if fate == "before":
            self._die()
            return False
        ok = self._write(rows)
        if fate == "untold":
            self._die()
        return ok


def _namespace(agent: int) -> str:
    return "guests" if agent == GUEST else "default"
