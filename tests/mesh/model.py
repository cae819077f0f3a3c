"""What is done to the mesh, and a model of what must come of it. Agents are rows; what they do is what the gate commits
for them, and how each unit ends is the act's to say: see `meshgate`.
"""

from typing import Any

import orjson

from controlplane.effects.consuming import consumed
from controlplane.effects.turnref import TurnRef, at_time
from controlplane.mesh import membership
from controlplane.mesh.making import made as made_channel
from controlplane.mesh.publishing import channel_rows, delayed
from controlplane.operations import vanishing
from controlplane.store import dead_letters, queues
from controlplane.store import statements as sql
from controlplane.store.retention import MESSAGES
from schemas.base import turn_of
from schemas.posting import Placed
from tests.mesh.meshgate import AGENTS as AGENTS
from tests.mesh.meshgate import ATTEMPTS_MAX, GUEST, KEYS, LAG_MAX, LATER_S, NEWS, QUEUE, TTL_S, Act, MeshGate
from tests.mesh.meshgate import BRIEF as BRIEF

DONE = (
    "INSERT INTO turn (turn_id, agent, message_id, trigger, message, outcome, attempts, epoch, digest, started_at,"
    " finished_at, cpu_ns, entries) VALUES (?, ?, ?, 'message', ?, 'committed', 1, 0, 'd', 1.0, ?, 0, 0)"
)
END = "UPDATE turn SET finished_at = 2.0, outcome = ? WHERE turn_id = ? AND finished_at IS NULL"
UNTOLD = ("stop", "wake")  # nobody tells the queues
OF_BRIEF = (
    "SELECT m.message_id FROM channel c JOIN channel_message m ON m.channel = c.uid WHERE c.name = 'brief'"
    " ORDER BY m.position"
)
GIVEN_UP = "SELECT data FROM event WHERE type = 'message.dead_lettered'"


class Mesh(MeshGate):
    """Three agents, one of them a guest, and what they do with a queue and a broadcast."""

    # Who acts

    def act(self, it: Act) -> None:
        getattr(self, "_" + it.verb)(it)
        if it.swept or it.verb in UNTOLD:
            self.delivery.sweep()
        self.settle()

    def _dies(self, it: Act) -> None:
        self._fates.append(it.fate)

    def _publish(self, it: Act) -> None:
        """Who does not hear that it was taken says it again."""
        expires_at = self.now + TTL_S if it.ttl and it.channel == QUEUE else 0.0
        made, text = self._message(it, **({"expires": at_time(expires_at)} if expires_at else {}))
        how = Placed(it.key, it.priority, expires_at=expires_at)
        for fate in (it.fate, "well"):
            self._unit(channel_rows("default", it.channel, made, text, how, self.now, self.delivery.room), fate)  # type: ignore[arg-type]
        self._is_published(it.channel, made, it.key)
        self.delivery.published("default", it.channel, made)

    def _message(self, it: Act, **more: Any) -> tuple[str, str]:
        self._made += 1
        body = {"id": f"m{self._made}", "subject": f"default/{it.channel}", "data": self._made, "partitionkey": it.key}
        return f"m{self._made}", orjson.dumps(
            {**body, "type": "steward.message", "priority": it.priority, **more}
        ).decode()

    def _is_published(self, channel: str, made: str, key: str | None) -> None:
        (position,) = self.reader.rows(sql.CHANNEL_POSITION, "default", channel, made)[0]
        assert position == len(self.published[channel]) + 1
        self.published[channel][position] = (made, key)

    def _delay(self, it: Act) -> None:
        """It waits for its time; who does not hear that it was taken says it again."""
        made, text = self._message(it)
        for fate in (it.fate, "well"):
            row = delayed("Channel", "default", it.channel, made, text, Placed(it.key, it.priority, self.now + 3600))
            self._unit([row], fate)  # type: ignore[arg-type]
        self.waiting[made] = (it.channel, it.key, it.priority)

    def _due(self, it: Act) -> None:
        """The time of the oldest has come, for a gate that may have died of it before."""
        for number, made, text in self.reader.rows(
            "SELECT id, message_id, body FROM delayed WHERE cancelled_at IS NULL ORDER BY id LIMIT 1"
        ):
            channel, key, priority = self.waiting[made]
            rows = channel_rows("default", channel, made, text, Placed(key, priority), self.now)
            taken = (queues.NO_LONGER_DELAYED, (number,), 1)
            if self._unit([*rows, taken], it.fate):
                assert not self._write([*rows, taken]), "it has taken its place twice"
                self._is_published(channel, made, key)
                assert not self._write([_cancel(channel, made, self.now)]), "it was cancelled in its place"
                del self.waiting[made]

    def _cancel(self, it: Act) -> None:
        """Some are cancelled, and take no place any more, sent again or not."""
        for made in list(self.waiting)[: 1 + it.agent]:
            channel, key, priority = self.waiting[made]
            if self._unit([_cancel(channel, made, self.now)], it.fate):
                again = delayed("Channel", "default", channel, made, "{}", Placed(key, priority, self.now))
                assert self._write([again])
                assert self.reader.rows(queues.DUE, self.now) == []
                del self.waiting[made]

    def _late(self, it: Act) -> None:
        """Time goes by: what no member has in time is given up."""
        self.now += LATER_S
        self.settle()

    def _stop(self, it: Act) -> None:
        self._unit([("UPDATE agent SET stopped = 1 WHERE uid = ?", (f"u{it.agent}",), 1)], "well")
        self.stopped.add(it.agent)

    def _wake(self, it: Act) -> None:
        self._unit([("UPDATE agent SET stopped = 0 WHERE uid = ?", (f"u{it.agent}",), 1)], "well")
        self.stopped.discard(it.agent)

    def _redrive(self, it: Act) -> None:
        """The oldest dead letter of the queue is a message again, once, under an id of its own."""
        for number, body in self.reader.rows("SELECT id, body FROM dead_letter ORDER BY id LIMIT 1"):
            self._made += 1
            made, known = f"m{self._made}", orjson.loads(body)
            known.pop("expires", None)
            text = orjson.dumps({**known, "id": made}).decode()
            how = Placed(known["partitionkey"], known["priority"])
            rows = [(dead_letters.TAKE, (number,), 1), *channel_rows("default", QUEUE, made, text, how, self.now)]
            if self._unit(rows, it.fate):
                assert not self._write(rows), "it was put back twice"
                self._is_published(QUEUE, made, how.key)

    def _revoke(self, it: Act) -> None:
        """The guest's invitations are over, and with them what it was a member of."""
        if self._unit([("UPDATE invitation SET revoked_at = 1.0 WHERE revoked_at IS NULL", (), -1)], it.fate):
            had = {name: self._position(GUEST, name) for name in (QUEUE, NEWS)}
            count = self.reader.rows("SELECT COUNT(*) FROM inbox WHERE agent = ?", f"u{GUEST}")
            self.delivery.sweep()
            self.settle()
            assert self.reader.rows("SELECT 1 FROM subscription WHERE agent = ?", f"u{GUEST}") == []
            assert self.reader.rows("SELECT COUNT(*) FROM inbox WHERE agent = ?", f"u{GUEST}") <= count
            for name, position in had.items():
                self._has_left(GUEST, name, position)

    def _use(self, it: Act) -> None:
        """Publish to a channel that is made by that, unless it is there; it begins anew each time."""
        made, text = self._message(it)
        for fate in (it.fate, "well"):
            uid = f"{BRIEF}-{made}"
            first = (
                []
                if self.reader.one(sql.CHANNEL, "default", BRIEF)
                else made_channel(uid, "default", BRIEF, "test", self.now)
            )
            self._unit(
                [*first, *channel_rows("default", BRIEF, made, text, Placed(it.key), self.now, self.delivery.room)],
                fate,
            )  # type: ignore[arg-type]
        self.brief.append(made)
        position = self.reader.one(sql.CHANNEL_POSITION, "default", BRIEF, made)
        assert position is not None
        rows = self.reader.rows(OF_BRIEF)
        assert [row[0] for row in rows] == self.brief[len(self.brief) - len(rows) :]
        self.delivery.published("default", BRIEF, made)

    def _vanish(self, it: Act) -> None:
        """It goes when it is empty, unused and without members, and wholly; else nothing of it does."""
        row = self.reader.one(sql.CHANNEL, "default", BRIEF)
        if row is None:
            return
        unit = vanishing._vanish(row[0], "default", BRIEF, self.now + 1, self.now).compiled(self._dialect)
        kept = bool(
            self.reader.rows(OF_BRIEF) or self.reader.rows("SELECT 1 FROM subscription WHERE channel = ?", row[0])
        )
        gone = self._unit([(text, params, expect) for text, params, expect in unit], it.fate)
        if it.fate != "before":
            assert gone is not kept
        for table, column in (("channel", "uid"), ("channel_message", "channel"), ("resource", "uid")):
            there = self.reader.rows(f"SELECT 1 FROM {table} WHERE {column} = ?", row[0])
            assert bool(there) is (not gone and (table != "channel_message" or bool(self.reader.rows(OF_BRIEF))))

    def _position(self, agent: int, channel: str) -> int:
        query = "SELECT COALESCE(MAX(position), -1) FROM subscription WHERE agent = ? AND channel = ?"
        return int(self.reader.rows(query, f"u{agent}", f"c-{channel}")[0][0])

    def _join(self, it: Act) -> None:
        member = membership.Member(f"u{it.agent}", f"a{it.agent}", "default", it.channel)
        invitation = self._invite(it.channel) if it.agent == GUEST else None
        for fate in (it.fate, "well"):
            rows = membership.joining(member, "now", membership.By("test"), self.now, 0, invitation)
            self._unit(rows, fate)  # type: ignore[arg-type]
        self.delivery.changed("default", it.channel)
        if it.agent not in self.members[it.channel]:
            self.members[it.channel][it.agent] = (len(self.published[it.channel]) + 1, [])

    def _invite(self, channel: str) -> str:
        self._invited += 1
        put = (
            "INSERT INTO invitation (invitation_id, kind, namespace, name, uid, to_namespace, to_agent, effects,"
            " principal, created_at, expires_at)"
            " VALUES (?, 'Channel', 'default', ?, ?, 'guests', '', ',read,', 'test', 1.0, ?)"
        )
        assert self._write([(put, (f"i{self._invited}", channel, f"c-{channel}", self.now + 1e6), 1)])
        return f"i{self._invited}"

    def _leave(self, it: Act) -> None:
        member = membership.Member(f"u{it.agent}", f"a{it.agent}", "default", it.channel)
        position = self._position(it.agent, it.channel)
        for fate in (it.fate, "well"):
            self._unit(membership.left_by(member, membership.By("test"), self.now), fate)  # type: ignore[arg-type]
        self._has_left(it.agent, it.channel, position)
        self.delivery.changed("default", it.channel)

    def _has_left(self, agent: int, channel: str, position: int) -> None:
        taken = self.reader.rows(
            "SELECT message_id FROM inbox WHERE agent = ? AND channel = ?", f"u{agent}", f"c-{channel}"
        )
        assert {row[0] for row in taken} <= {self.opened.get(agent)}, "it took along what it had not begun"
        was = self.members[channel].pop(agent, None)
        if was is not None:
            self.spans.append((channel, agent, was[0], len(self.published[channel]) + 1))
            if channel == NEWS:
                self.handled[agent].append({"left": position})

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
        rows = [row, *consumed(turn)]
        if outcome == "failed":
            about = (turn.agent, "default", turn.name, turn.message_id, turn.message, "HANDLER_ERROR", "")
            rows.append((sql.DEAD_LETTER, (*about, turn.turn_id, self.now, "queue", QUEUE), 1))
        if self._unit(rows, it.fate):
            self.opened.pop(it.agent, None)
            body = orjson.loads(turn.message)
            self.handled[it.agent].append(body)
            if turn.queue is not None:
                self.finished.append({"key": turn.key, "agent": it.agent, **body})
                self.delivery.queues.finished(turn.queue, turn.agent)

    def _retain(self, it: Act) -> None:
        """All that may go goes; what a member has not got stays, unless that lags by more than it may."""
        later = self.now + 3600
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
        turn_id = turn_of(uid, message_id)
        about = (uid, "default", f"a{agent}", "h", 0, 0, turn_id, message_id, "message", body, attempts, "d", 1.0, 0)
        return TurnRef(*about, recorded=agent in self.opened, queue=queue, key=key)

    # What must have come of it

    def rest(self) -> None:
        """Everybody handles what is there, and somebody is a member of everything, until all is quiet."""
        self._fates.clear()
        for agent in list(self.stopped):
            self._wake(Act("wake", agent))
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
        """Each once, by one agent, or given up as expired; of a key, in the order of positions."""
        place = {made: position for position, (made, _) in self.published[QUEUE].items()}
        expired = [row[0] for row in self.reader.rows(GIVEN_UP)]
        got = [it["id"] for it in self.finished] + [orjson.loads(it)["message_id"] for it in expired]
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


def _cancel(channel: str, made: str, now: float) -> Any:
    return queues.CANCEL_DELAYED, (now, "Channel", "default", channel, made), 1


def _of(turn: TurnRef) -> tuple[Any, ...]:
    return turn.turn_id, turn.agent, turn.message_id, turn.message


def _first(waiting: list[tuple[Any, ...]]) -> str:
    """The rule, in other words: of the most urgent message the key, and of that key the first."""
    urgent = [it for it in waiting if it[2] is not None]
    if not urgent:
        return str(waiting[0][0])
    most = min(urgent, key=lambda it: it[2])
    return str(most[0]) if most[1] is None else str(next(it[0] for it in waiting if it[1] == most[1]))
