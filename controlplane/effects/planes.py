"""What planes ask of the gate: write, publish, control. Only who knows the installation's key may.

A publish to a suspended agent acquires it in the same group commit as the message, so that waking
costs one commit. Each call is answered once, after its transaction ended.
"""

import asyncio
import contextlib
import hmac
import logging
import re
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec
import orjson

from controlplane.effects import controls, questions
from controlplane.effects.chaining import opening
from controlplane.effects.handing import WAITING_MAX
from controlplane.effects.node import MESSAGES, TURNS, Node
from controlplane.effects.reading import Away
from controlplane.effects.slots import Slot
from controlplane.effects.surviving import survived
from controlplane.effects.wireio import Wire
from controlplane.mesh.making import made
from controlplane.mesh.publishing import channel_rows, delayed, expiring
from controlplane.mesh.rooms import RETRY_AFTER_S, Rooms
from controlplane.resources.problems import problem
from controlplane.store import invitations, queues
from controlplane.store import statements as sql
from controlplane.store.kept import kept
from schemas.base import turn_of
from schemas.frames import Control, Done, Moved, Opened, PlaneHello, Post, Publish, PublishChannel, Write
from schemas.ports import Posted
from schemas.posting import Placed
from schemas.problem import Problem

log = logging.getLogger("steward.gate")
READERS_MAX = 16  # of a channel with more members, those are given a publication when it is committed
ROOMS_MAX = 1_000  # agents; of a suspended one nothing stays for long
_LABEL = re.compile(r"^(INSERT INTO|DELETE FROM) label ")
_WAKING = ("inbox", "subscription", "timer", "awaiting", "invitation")


class Planes:
    """The connected planes."""

    def __init__(self, node: Node, key: str) -> None:
        self._node = node
        self._key = key
        self._planes: set[Wire] = set()
        self._answered: list[str] = []
        self._roused = self._happened = False
        self.rooms = Rooms(ROOMS_MAX)
        self._arrived: list[tuple[Wire, Publish, Slot]] = []
        self._putting: Counter[str] = Counter()  # messages on their way to the inbox of an agent

    def hello(self, wire: Wire, frame: PlaneHello) -> bool:
        if not hmac.compare_digest(frame.key.encode(), self._key.encode()):
            return False
        self._planes.add(wire)
        if self._node.trouble.words:
            wire.send(Moved([], self._node.trouble.words))
        return True

    def lost(self, wire: Wire) -> None:
        self._planes.discard(wire)

    def holds(self, wire: Wire) -> bool:
        return wire in self._planes

    def answered(self, await_id: str) -> None:
        """An operator's question has its answer."""
        self._answered.append(await_id)
        self._roused = True

    def rouse(self, *, happened: bool = True) -> None:
        """Something was committed that planes may want to read, an event among it unless it is said otherwise."""
        self._roused = True
        self._happened = self._happened or happened

    def moved(self) -> None:
        """After a batch was committed: planes may look."""
        if not self._roused:
            return
        told, self._answered, self._roused = self._answered, [], False
        if self._happened:
            self._happened = False
            self._node.events.kick()
        for plane in self._planes:
            plane.send(Moved(told, self._node.trouble.words))

    def tell(self, trouble: str) -> None:
        """What keeps the gate from writing, or that nothing does any more."""
        for plane in self._planes:
            plane.send(Moved([], trouble))

    # Calls

    def write(self, wire: Wire, frame: Write) -> None:
        rows = [(kept(it.sql), it.params, it.expect) for it in frame.statements]

        def written(outcome: str, detail: str) -> None:
            if outcome == "ok":
                self.rouse()
                if any("resource" in it.sql for it in frame.statements):
                    self._node.budgeting.moved()
                for of_agent in _labelled(frame):
                    self._node.budgeting.relabelled(*of_agent)
                if any(word in it.sql for it in frame.statements for word in _WAKING):
                    self._node.sweep_soon()
            _answer(wire, frame.call, outcome, detail, {})

        self._node.commit("write", rows, written, MESSAGES)

    def publish(self, wire: Wire, frame: Publish) -> None:
        """To an agent, with all that came in this tick: what is stored of them is read in one round trip."""
        slot = self._node.slots.named(frame.namespace, frame.name)
        if slot is None:
            detail = f"there is no agent {frame.namespace}/{frame.name}"
            _refuse(wire, frame.call, problem("NOT_FOUND", detail, namespace=frame.namespace, name=frame.name))
        elif frame.placed.due_at:
            self._delay(wire, frame)
        else:
            if not self._arrived:
                asyncio.get_running_loop().call_soon(self._take_in)
            self._arrived.append((wire, frame, slot))

    def _take_in(self) -> None:
        arrived, self._arrived = self._arrived, []
        counted = [self.rooms.counts(slot.uid) for _, _, slot in arrived]
        asked = [self._looked_for(*it, all_=all_) for it, all_ in zip(arrived, counted, strict=True)]
        try:
            found = self._node.reader.each(sql.ARRIVING, asked)
        except Away as away:
            log.warning("the database is away: %s", away)
            for wire, frame, _ in arrived:
                _answer(wire, frame.call, "error", "NOT_READY: the database is away", {})
            return
        for it, (stored,), all_ in zip(arrived, found, counted, strict=True):
            try:
                if not survived(partial(self._put_in, *it, stored, counted=all_), "a message to an agent"):
                    _answer(
                        it[0], it[1].call, "error", "IN_DOUBT: it may be taken in; the log of the gate tells more", {}
                    )
            except Away as away:
                _answer(it[0], it[1].call, "error", f"NOT_READY: the database is away: {away}", {})

    def _looked_for(self, _: Wire, frame: Publish, slot: Slot, *, all_: bool) -> tuple[Any, ...]:
        most = self._node.bounds.inbox_messages_max if all_ else 1
        turn_id = turn_of(slot.uid, frame.message_id)
        return slot.uid, frame.message_id, turn_id, slot.uid, most, slot.uid

    def _put_in(self, wire: Wire, frame: Publish, slot: Slot, stored: tuple[Any, ...], *, counted: bool) -> None:
        """Commit the message; `stored` says whether it is known, how many its agent has, and of an open turn."""
        node, now, uid, body = self._node, self._node.clock(), slot.uid, frame.body.decode()
        if not node.slots.holds(slot):  # an operator came in between
            self.publish(wire, frame)
            return
        turn_id = turn_of(uid, frame.message_id)
        known, waiting, open_ = bool(stored[0]), int(stored[1]), bool(stored[2])
        full = None if known else self.full(uid, slot.address, waiting if counted else None)
        if full is not None:
            _refuse(wire, frame.call, full)
            node.ownership.pump(slot)
            return
        alone = not (known or waiting or open_ or self._putting[uid])
        self._putting[uid] += 1
        rows: list[Any] = [put(uid, frame.message_id, body, frame.placed, now, turn_id)]
        if frame.chain:
            rows.insert(0, self._opening(frame, now))
        until = frame.ask_until and frame.ask_until + node.clock.ahead()  # the plane goes by the machine's clock
        if until:
            rows.append((sql.AWAIT_OPERATOR, (frame.message_id, slot.address, uid, now, until), -1))
            rows += expiring(frame.message_id, frame.placed)

        def published(outcome: str, detail: str) -> None:
            self._put(uid)
            busy = told(outcome == "ok")
            _answer(wire, frame.call, outcome, detail, {"message_id": frame.message_id, "duplicate": known})
            if until:
                node.timers.arm(min(until, frame.placed.expires_at or until))
            if uid in busy:
                return
            if alone and outcome == "ok" and node.slots.holds(slot):
                node.ownership.come(slot, (turn_id, frame.message_id, body))
            else:
                node.ownership.ring(uid)

        at_once = alone and frame.placed.plain and not frame.chain
        with contextlib.suppress(Away):
            if at_once and node.committer.waiting + 2 < WAITING_MAX:  # its acquisition stands before its message then
                node.ownership.acquire_at_once(slot)
        node.commit("publish", rows, published, MESSAGES)
        told = node.handing.published([uid] if at_once else [], frame.message_id, body, MESSAGES)
        with contextlib.suppress(Away):
            if alone:
                node.ownership.acquire_ahead(slot)

    def _delay(self, wire: Wire, frame: Publish | PublishChannel) -> None:
        """A message that waits for its time."""
        node, to, how = self._node, (frame.namespace, frame.name), frame.placed
        kind = "Agent" if isinstance(frame, Publish) else "Channel"
        known = node.delaying.holds(kind, *to, frame.message_id)
        if not known and (full := node.delaying.full(kind, *to)) is not None:
            _refuse(wire, frame.call, full)
            return
        now, rows = node.clock(), [delayed(kind, *to, frame.message_id, frame.body.decode(), how)]
        if isinstance(frame, PublishChannel) and frame.first_use:
            rows = [*made(frame.first_use, *to, frame.principal, now), *rows]
        if isinstance(frame, Publish) and frame.chain:
            rows.insert(0, self._opening(frame, now))

        def told(outcome: str, detail: str) -> None:
            body = {"message_id": frame.message_id, "duplicate": known, "position": None}
            _answer(wire, frame.call, outcome, detail, body)
            node.timers.arm(how.due_at)

        node.commit("delayed", rows, told, MESSAGES)

    def _opening(self, frame: Publish, now: float) -> Any:
        said, by = msgspec.json.decode(frame.chain, type=Opened), frame.principal
        return opening(frame.message_id, frame.namespace, None, by, by, said.intent, said.limits, now)

    def _put(self, uid: str) -> None:
        """A message is no longer on its way to the inbox."""
        self._putting[uid] -= 1
        if not self._putting[uid]:
            del self._putting[uid]

    def full(self, uid: str, address: str, waiting: int | None = None) -> Problem | None:
        """Why an inbox takes no more; each None is room for one message. `waiting`, where it was counted just now."""
        most = self._node.bounds.inbox_messages_max

        def count() -> int:  # what is on its way takes room, too
            stored = int(self._node.reader.rows(sql.BACKLOG, uid, most)[0][0]) if waiting is None else waiting
            return stored + self._putting[uid]

        if not self.rooms.full(uid, most, count):
            return None
        detail = f"the inbox of {address} holds {most} messages, which is the most"
        return problem("BACKLOG_FULL", detail, retry_after_s=RETRY_AFTER_S, agent=address, messages=most)

    def freed(self, uid: str) -> None:
        """A message has left the inbox of an agent."""
        self.rooms.freed(uid)
        self._node.delivery.freed(uid)

    def publish_channel(self, wire: Wire, frame: PublishChannel) -> None:
        node = self._node
        channel, now = (frame.namespace, frame.name), node.clock()
        found = node.reader.one(sql.CHANNEL, *channel)
        if found is None and not frame.first_use:
            detail = f"there is no channel {frame.namespace}/{frame.name}"
            _refuse(wire, frame.call, problem("NOT_FOUND", detail, namespace=frame.namespace, name=frame.name))
            return
        if frame.placed.due_at:
            self._delay(wire, frame)
            return
        queue = found is not None and found[2] == "queue"
        if found and queue and (full := node.delivery.queues.full(found[0], "/".join(channel), found[3])) is not None:
            known = node.reader.one(sql.CHANNEL_POSITION, *channel, frame.message_id)
            if known is None:
                _refuse(wire, frame.call, full)
                return
        rows: list[Any] = [] if found else made(frame.first_use, *channel, frame.principal, now)
        if frame.invitation:
            rows.insert(0, (invitations.STANDS, (frame.invitation, now, *channel), 1))
        body = frame.body.decode()
        rows += channel_rows(*channel, frame.message_id, body, frame.placed, now, node.delivery.room)
        readers = [] if queue or not found else self._readers(found, frame)

        def published(outcome: str, detail: str) -> None:
            busy = told(outcome == "ok")
            try:
                position = node.delivery.published(*channel, frame.message_id, busy)
            except Away as away:  # who publishes says it again under the same id; the sweep delivers
                _answer(wire, frame.call, "error", f"IN_DOUBT: it may be published; the database went away: {away}", {})
                return
            if position is None and outcome == "ok" and found and frame.first_use:  # it has vanished meanwhile
                self.publish_channel(wire, frame)
                return
            said = {"message_id": frame.message_id, "position": position or 0}
            gone = detail or "NOT_FOUND: the channel is gone"
            if frame.invitation and position is not None and outcome == "conflict":  # taken in before that was over
                outcome = "ok"
            _answer(wire, frame.call, outcome if position else "error", gone, said)

        lane = TURNS if readers else MESSAGES  # then nothing that turns publish goes before it
        node.publish(rows, published, lane)
        told = node.handing.published(readers, frame.message_id, body, lane)

    def _readers(self, channel: tuple[Any, ...], frame: PublishChannel) -> list[str]:
        """The members that can begin with it at once; nobody, where it is there, or another one on its way, or where
        the channel says how often it is tried."""
        if self._node.publishing[frame.namespace, frame.name]:
            return []
        if channel[4] not in (None, self._node.bounds.turn_attempts_max):
            return []
        found = self._node.delivery.ready(channel[0], channel[1], READERS_MAX)
        if not any(self._node.slots.get(it) for it in found):
            return []
        known = self._node.reader.one(sql.CHANNEL_POSITION, frame.namespace, frame.name, frame.message_id)
        return found if known is None else []

    def post(self, wire: Wire, frame: Post) -> None:
        self._node.arriving.posted(frame.namespace, frame.name, Posted(frame.headers, frame.body), _done(wire, frame))

    def control(self, wire: Wire, frame: Control) -> None:
        done = _done(wire, frame)
        if frame.verb == "answer":
            questions.answer(self._node, frame, done)
        else:
            controls.control(self._node, frame, done)


def _done(wire: Wire, frame: Control | Post) -> Callable[[dict[str, Any] | Problem], None]:
    """What answers a call, once."""

    def done(body: dict[str, Any] | Problem) -> None:
        if isinstance(body, Problem):
            _refuse(wire, frame.call, body)
        else:
            wire.send(Done(frame.call, "ok", orjson.dumps({"ok": True, **body})))

    return done


def _labelled(frame: Write) -> set[tuple[str, str]]:
    """The agents whose labels it changes, by namespace and name, which lead such statements after the kind."""
    of_label = (it.params for it in frame.statements if _LABEL.search(it.sql))
    return {(str(it[1]), str(it[2])) for it in of_label if it[0] == "Agent"}


def put(
    uid: str, message_id: str, body: str, how: Placed, now: float, turn_id: str
) -> tuple[str, tuple[Any, ...], int]:
    """A message into an inbox, unless its turn is over."""
    if how.plain:
        return sql.PUT, (uid, message_id, "message", body, now, turn_id), -1
    return queues.PUT_PLACED, (uid, message_id, "message", body, now, how.key, how.rank, turn_id), -1


def _answer(wire: Wire, call: int, outcome: str, detail: str, body: dict[str, Any]) -> None:
    if outcome == "error":
        wire.send(Done(call, "error", detail.encode()))
    else:
        wire.send(Done(call, outcome, orjson.dumps(body)))


def _refuse(wire: Wire, call: int, found: Problem) -> None:
    wire.send(Done(call, "refused", found.model_dump_json().encode()))
