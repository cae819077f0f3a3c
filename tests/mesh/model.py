"""The mesh without hosts: its rooms and statements on a real store, and a model of what must come of them.

A unit of the gate ends in one of three ways, as an act says: nothing of it happened, and the gate is dead; it is
committed, nobody heard of it, and the gate is dead; or all is well. A dead gate forgets what it had in mind, and the
next one sweeps. Agents are rows; what they do is what the gate commits for them.
"""

import threading
import time
from collections import defaultdict, deque
from dataclasses import dataclass
from typing import Any, Literal

import orjson

from controlplane.effects.consuming import consumed
from controlplane.effects.reading import Reader
from controlplane.effects.turnref import TurnRef
from controlplane.mesh import membership
from controlplane.mesh.delivery import Delivery
from controlplane.mesh.publishing import channel_rows
from controlplane.store import statements as sql
from controlplane.store.batching import Job
from controlplane.store.direct import DirectWriter
from controlplane.store.retention import MESSAGES
from schemas.base import short_id
from schemas.posting import Placed

Fate = Literal["well", "before", "untold"]
AGENTS, KEYS = 3, ("a", "b", None)
LAG_MAX, HELD_MAX, ATTEMPTS_MAX, INBOX_MAX = 4, 2, 2, 8
TABLES = (
    "channel", "channel_message", "subscription", "membership", "queued", "delayed", "inbox", "turn", "agent",
    "dead_letter", "event",
)  # fmt: skip
QUEUE, NEWS = "queue", "news"
DONE = (
    "INSERT INTO turn (turn_id, agent, message_id, trigger, message, outcome, attempts, epoch, digest, started_at,"
    " finished_at, cpu_ns, entries) VALUES (?, ?, ?, 'message', ?, 'committed', 1, 0, 'd', 1.0, ?, 0, 0)"
)
END = "UPDATE turn SET finished_at = 2.0, outcome = ? WHERE turn_id = ? AND finished_at IS NULL"
TWO_HOLD = (
    "SELECT channel, key FROM inbox WHERE channel IS NOT NULL AND key IS NOT NULL GROUP BY channel, key"
    " HAVING COUNT(DISTINCT agent) > 1"
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


class Mesh:
    """One gate after the other, three agents, a queue and a broadcast."""

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
        self._made = 0
        self._write([(f"DELETE FROM {table}", (), -1) for table in TABLES])
        rows: list[Any] = []
        for n in range(AGENTS):
            put = "INSERT INTO agent (uid, namespace, name, generation, epoch, version, stopped, changed_at)"
            rows.append((put + " VALUES (?, 'default', ?, 1, 0, 0, 0, 1.0)", (f"u{n}", f"a{n}"), 1))
        for name, mode in ((QUEUE, "queue"), (NEWS, "broadcast")):
            put = "INSERT INTO channel (uid, namespace, name, next_position, retention_s, mode, backlog_max,"
            put += " attempts_max, in_flight_max) VALUES (?, 'default', ?, 1, 1.0, ?, ?, ?, ?)"
            rows.append((put, (f"c-{name}", name, mode, LAG_MAX, ATTEMPTS_MAX, HELD_MAX), 1))
        assert self._write(rows)
        self._start()

    # The gate

    def _start(self) -> None:
        self._pending.clear()
        self.delivery = Delivery(self.reader, self._commit, lambda _: None, time.time, INBOX_MAX)

    def _commit(self, unit: str, rows: Any, done: Any, lane: int) -> None:
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

    def _unit(self, rows: list[Any], fate: Fate) -> bool:
        """A unit that somebody waits for: whether it happened."""
        if fate == "before":
            self._die()
            return False
        ok = self._write(rows)
        if fate == "untold":
            self._die()
        return ok

    # Who acts

    def act(self, it: Act) -> None:
        getattr(self, "_" + it.verb)(it)
        self.delivery.sweep()
        self.settle()

    def _dies(self, it: Act) -> None:
        self._fates.append(it.fate)

    def _publish(self, it: Act) -> None:
        """Who does not hear that it was taken says it again."""
        self._made += 1
        made, how = f"m{self._made}", Placed(it.key, it.priority)
        body = {"id": made, "subject": f"default/{it.channel}", "data": self._made, "type": "steward.message"}
        for fate in (it.fate, "well"):
            rows = channel_rows("default", it.channel, made, orjson.dumps(body).decode(), how, time.time())
            self._unit(rows, fate)  # type: ignore[arg-type]
        (position,) = self.reader.rows(sql.CHANNEL_POSITION, "default", it.channel, made)[0]
        assert position == len(self.published[it.channel]) + 1
        self.published[it.channel][position] = (made, it.key)

    def _join(self, it: Act) -> None:
        member = membership.Member(f"u{it.agent}", f"a{it.agent}", "default", it.channel)
        for fate in (it.fate, "well"):
            self._unit(membership.joining(member, "now", membership.By("test"), time.time()), fate)  # type: ignore[arg-type]
        if it.agent not in self.members[it.channel]:
            self.members[it.channel][it.agent] = (len(self.published[it.channel]) + 1, [])

    def _leave(self, it: Act) -> None:
        member = membership.Member(f"u{it.agent}", f"a{it.agent}", "default", it.channel)
        ((position,),) = self.reader.rows(
            "SELECT COALESCE(MAX(position), -1) FROM subscription WHERE agent = ? AND channel = ?",
            f"u{it.agent}", f"c-{it.channel}",
        )  # fmt: skip
        for fate in (it.fate, "well"):
            self._unit(membership.left_by(member, membership.By("test"), time.time()), fate)  # type: ignore[arg-type]
        taken = self.reader.rows(
            "SELECT message_id FROM inbox WHERE agent = ? AND channel = ?", f"u{it.agent}", f"c-{it.channel}"
        )
        assert {row[0] for row in taken} <= {self.opened.get(it.agent)}, "it took along what it had not begun"
        was = self.members[it.channel].pop(it.agent, None)
        if was is not None:
            self.spans.append((it.channel, it.agent, was[0], len(self.published[it.channel]) + 1))
            if it.channel == NEWS:
                self.handled[it.agent].append({"left": position})

    def _open(self, it: Act) -> None:
        """A turn that is on record, and parks."""
        turn = None if it.agent in self.opened else self._next(it.agent)
        if turn is not None and self._unit([(DONE, (*_of(turn), None), 1)], it.fate):
            self.opened[it.agent] = turn.message_id

    def _handle(self, it: Act) -> None:
        self._end(it, "committed")

    def _spoil(self, it: Act) -> None:
        """An attempt that fails; the last of them gives the message up."""
        turn = self._next(it.agent)
        if turn is None or turn.queue is None:
            return
        if turn.attempts + 1 < ATTEMPTS_MAX:
            self._unit([(sql.ATTEMPT, (turn.agent, turn.message_id), 1)], it.fate)
        else:
            self._end(it, "failed")

    def _end(self, it: Act, outcome: str) -> None:
        turn = self._next(it.agent)
        if turn is None:
            return
        row = (END, (outcome, turn.turn_id), 1) if it.agent in self.opened else (DONE, (*_of(turn), 2.0), 1)
        if self._unit([row, *consumed(turn)], it.fate):
            self.opened.pop(it.agent, None)
            body = orjson.loads(turn.message)
            self.handled[it.agent].append(body)
            if turn.queue is not None:
                self.finished.append({"key": turn.key, "agent": it.agent, **body})

    def _retain(self, it: Act) -> None:
        """All that may go goes; what a member has not got stays, unless that lags by more than it may."""
        later = time.time() + 3600
        self._unit([(MESSAGES, (500, later, later, 500), -1)], it.fate)
        for (lag,) in self.reader.rows(
            "SELECT c.next_position - 1 - s.position FROM channel c JOIN subscription s ON s.channel = c.uid"
            " WHERE c.mode = 'broadcast' AND s.position + 1 < COALESCE((SELECT MIN(m.position) FROM channel_message m"
            " WHERE m.channel = c.uid), c.next_position)"
        ):
            assert lag > LAG_MAX
        assert (
            self.reader.rows(
                "SELECT q.position FROM queued q WHERE NOT EXISTS (SELECT 1 FROM channel_message m"
                " WHERE m.channel = q.channel AND m.position = q.position)"
            )
            == []
        )

    def _next(self, agent: int) -> TurnRef | None:
        """What the gate would have the agent handle, which is the first of the most urgent of its keys."""
        uid = f"u{agent}"
        if agent in self.opened:
            row = self.reader.one(sql.MESSAGE, uid, self.opened[agent])
            assert row is not None, "an open turn has lost its message"
            message_id, _, body, attempts, queue, key, _ = row
        else:
            row = self.reader.one(sql.NEXT_MESSAGE, uid, uid, uid)
            if row is None:
                return None
            message_id, _, body, attempts, _, queue, key, _ = row
            waiting = self.reader.rows("SELECT message_id, key, rank FROM inbox WHERE agent = ? ORDER BY seq", uid)
            assert message_id == _first(waiting)
        turn_id = short_id("turn", uid, message_id)
        about = (uid, "default", f"a{agent}", "h", 0, 0, turn_id, message_id, "message", body, attempts, "d", 1.0, 0)
        return TurnRef(*about, recorded=agent in self.opened, queue=queue, key=key)

    # What must have come of it

    def rest(self) -> None:
        """Everybody handles what is there, and somebody is a member of everything, until all is quiet."""
        self._fates.clear()
        self.act(Act("join", 0, QUEUE))
        for _ in range(500):
            self.delivery.sweep()
            self.settle()
            if not self.reader.rows("SELECT 1 FROM inbox LIMIT 1"):
                break
            for agent in range(AGENTS):
                self._handle(Act("handle", agent))
        assert self.reader.rows("SELECT agent, message_id FROM inbox") == []
        assert self.reader.rows("SELECT position FROM queued") == []

    def check(self) -> None:
        self._check_queue()
        self._check_news()
        self._check_members()

    def _check_queue(self) -> None:
        """Each once, by one agent; of a key, in the order of positions."""
        place = {made: position for position, (made, _) in self.published[QUEUE].items()}
        got = [it["id"] for it in self.finished]
        assert sorted(got, key=lambda it: place[it]) == list(place)
        for key in KEYS[:2]:
            of_key = [place[it["id"]] for it in self.finished if it["key"] == key]
            assert of_key == sorted(of_key), f"{key}: {of_key}"

    def _check_news(self) -> None:
        """A member has each message from its join to its leaving once, in order of its key, or a gap that names it."""
        place = {made: (position, key) for position, (made, key) in self.published[NEWS].items()}
        whole = len(place) + 1
        for agent in range(AGENTS):
            spans = [
                (since, until or whole)
                for name, who, since, until in self._all_spans(whole)
                if (name, who) == (NEWS, agent)
            ]
            found: list[tuple[int, str | None]] = []
            missed: set[int] = set()
            for body in self.handled[agent]:
                if body.get("type") == "steward.gap":
                    missed |= set(range(int(body["data"]["from"]), int(body["data"]["to"]) + 1))
                elif body.get("id") in place:
                    found.append(place[body["id"]])
            positions = [position for position, _ in found]
            assert len(positions) == len(set(positions)), "twice"
            wanted = {position for since, until in spans for position in range(since, until)}
            assert set(positions) <= wanted
            assert not set(positions) & missed
            left = self._not_got(agent)
            assert wanted <= set(positions) | missed | left, (wanted, positions, missed, left)
            for key in KEYS[:2]:
                of_key = [position for position, its in found if its == key]
                assert of_key == sorted(of_key)

    def _all_spans(self, whole: int) -> list[tuple[str, int, int, int | None]]:
        still = [(name, who, since, whole) for name, of in self.members.items() for who, (since, _) in of.items()]
        return [*self.spans, *still]

    def _not_got(self, agent: int) -> set[int]:
        """What was published while it was a member and had not come to its inbox when it left."""
        ends = [until for name, who, _, until in self.spans if (name, who) == (NEWS, agent)]
        lefts = [body["left"] for body in self.handled[agent] if "left" in body]
        return {at for last, until in zip(lefts, ends, strict=True) for at in range(last + 1, until or 0)}

    def _check_members(self) -> None:
        """Who was a member when a message was accepted has the answer that it had then."""
        for name in (QUEUE, NEWS):
            for position in self.published[name]:
                rows = self.reader.rows(
                    "SELECT agent FROM membership WHERE channel = ? AND joined_position <= ?"
                    " AND (left_position IS NULL OR left_position > ?) ORDER BY agent",
                    f"c-{name}", position, position,
                )  # fmt: skip
                whole = len(self.published[name]) + 1
                spans = [it for it in self._all_spans(whole) if it[0] == name]
                assert [it[0] for it in rows] == sorted(
                    f"u{who}" for _, who, since, until in spans if since <= position < (until or whole)
                )

    def close(self) -> None:
        self.delivery.end()
        self.reader.close()


def _of(turn: TurnRef) -> tuple[Any, ...]:
    return turn.turn_id, turn.agent, turn.message_id, turn.message


def _first(waiting: list[tuple[Any, ...]]) -> str:
    """The rule, in other words: of the most urgent message the key, and of that key the first."""
    urgent = [it for it in waiting if it[2] is not None]
    if not urgent:
        return str(waiting[0][0])
    most = min(urgent, key=lambda it: it[2])
    return str(most[0]) if most[1] is None else str(next(it[0] for it in waiting if it[1] == most[1]))
