"""What comes in over connections: heard by its protocol's listener, and once in a channel before anybody is told.

Whoever posts holds no token. Until its signature is taken it is told the same whatever there is, and the operator
is told of it once a minute at most. The connection's rate holds for what comes in, too, apart from what goes out:
what comes too fast is refused with a time, and not kept. What came once is known for a week.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import orjson

from controlplane.effects.connections import LANES_MAX, Lane
from controlplane.effects.node import MESSAGES, Node
from controlplane.effects.reading import Away
from controlplane.effects.turnref import at_time
from controlplane.mesh.dataschema import STEPS_MAX, require_match
from controlplane.mesh.making import made as first_use
from controlplane.mesh.making import too_many
from controlplane.mesh.publishing import channel_rows
from controlplane.mesh.strict import parse_json_now
from controlplane.mesh.tracing import new_trace
from controlplane.resources.problems import problem, refuse
from controlplane.store import arrivals, channels
from controlplane.store import statements as sql
from schemas.base import short_id
from schemas.calls import DATA_BYTES_MAX
from schemas.channel import CHANNELS_MAX
from schemas.ports import Arrival, Link, Listener, Posted
from schemas.posting import Placed
from schemas.problem import Problem, Refusal

log = logging.getLogger("steward.gate")
TOLD_EVERY_S = 60.0
BURST_S = 1.0
STEPS_MIN = 10_000
Answer = Callable[[dict[str, Any] | Problem], None]
Done = Callable[[frozenset[str] | Problem], None]


class Arriving:
    """The way in of this gate's connections."""

    def __init__(self, node: Node, listeners: Mapping[str, Listener]) -> None:
        self._node = node
        self._listeners = listeners
        self._lanes: dict[str, Lane] = {}
        self._told: dict[str, float] = {}

    def posted(self, namespace: str, name: str, given: Posted, done: Answer) -> None:
        """Hear it; `done` gets what became of it once that is committed, or why it is not taken."""
        try:
            link, heard = self._heard(namespace, name, given)
            coming = [heard] if isinstance(heard, Arrival) else heard
            self._require_rate(link, len(coming))
            made = [short_id("msg", "arrival", link.uid, it.unique) for it in coming]
            told = _told_of_one if isinstance(heard, Arrival) else _told_of_batch
            first: dict[str, Arrival] = {}
            for message_id, it in zip(made, coming, strict=True):
                first.setdefault(message_id, it)
            self.arrived(link, first, lambda it: done(it if isinstance(it, Problem) else told(made, it)))
        except Refusal as refusal:
            done(refusal.problem)
        except Away:  # told by the gate, for all calls alike
            raise
        except Exception:
            log.exception("what was posted to %s/%s broke its listener", namespace, name)
            done(problem("INTERNAL", "what was posted broke its listener; the log of the gate tells more"))

    def arrived(
        self, link: Link, coming: Mapping[str, Arrival], done: Done, known: frozenset[str] = frozenset()
    ) -> None:
        """Publish all of it that is not `known`, each once, by the ids of the messages; raises Refusal for what a
        channel does not take. `done` gets the ids that had come before."""
        node, now = self._node, self._node.clock()
        fresh = {made: it for made, it in coming.items() if made not in known}
        channels_of = {(link.namespace, it.channel) for it in fresh.values()}
        if not fresh:
            done(known)
            return
        rows = self._rows(link, fresh, now)

        def published(outcome: str, detail: str) -> None:
            if outcome == "error":
                done(problem("NOT_READY", f"it is not kept: {detail}", retry_after_s=1.0))
                return
            if outcome == "ok":
                for made, it in fresh.items():
                    node.delivery.published(link.namespace, it.channel, made)
                done(known)
                return
            try:
                there = {made for made in fresh if node.reader.one(arrivals.KNOWN, link.uid, made) is not None}
                if there:  # the rest of it goes in without these
                    self.arrived(link, coming, done, known | there)
                else:
                    done(self._not_kept(channels_of))
            except Refusal as refusal:
                done(refusal.problem)
            except Away:
                done(problem("NOT_READY", "the database went away; post it again", retry_after_s=1.0))

        node.publish(rows, published, MESSAGES)

    def _rows(self, link: Link, fresh: Mapping[str, Arrival], now: float) -> list[Any]:
        """One unit: what came, and the messages that it becomes, in the order in which it stood."""
        specs = {name: self._node.reader.one(sql.CHANNEL_SPEC, link.namespace, name) for name in _channels(fresh)}
        rows: list[Any] = []
        for name in (it for it, found in specs.items() if found is None):
            by = f"{link.namespace}/{link.name}"
            rows += first_use(short_id("channel", *fresh, name, now), link.namespace, name, by, now)
        for made, arrival in fresh.items():
            channel = link.namespace, arrival.channel
            if (found := specs[arrival.channel]) is not None:
                try:
                    self._require_taken(orjson.loads(found[0]), arrival, found[1], channel, len(fresh))
                except Refusal as refusal:
                    raise _of(arrival, refusal) from None
            rows.append((arrivals.ARRIVED, (link.uid, made, now), 1))
            text = envelope(link, arrival, made, now)
            *put, bump = channel_rows(*channel, made, text, Placed(arrival.partitionkey), now, self._node.delivery.room)
            rows += [*put, (*bump[:2], 1)]  # without a channel it does not count as come
        return rows

    def _not_kept(self, among: set[tuple[str, str]]) -> Problem:
        """Why there is no channel: no more are made, or it is declared and not set up, or was just taken down."""
        namespace, name = min(among)
        if self._node.reader.rows(channels.COUNT, namespace, CHANNELS_MAX)[0][0] >= CHANNELS_MAX:
            return too_many(namespace)
        return problem("NOT_READY", f"channel {namespace}/{name} is not set up; post it again", retry_after_s=1.0)

    def _require_taken(
        self, spec: dict[str, Any], arrival: Arrival, uid: str, channel: tuple[str, str], together: int
    ) -> None:
        """What comes `together` shares the steps in which one may be judged."""
        if spec.get("dataschema") is not None:
            steps = max(STEPS_MAX // together, STEPS_MIN)
            require_match(spec["dataschema"], arrival.data, *channel, steps=steps)
        if spec.get("mode") == "queue":
            full = self._node.delivery.queues.full(uid, "/".join(channel), spec["backlog_messages_max"])
            if full is not None:
                raise Refusal(full)

    def _heard(self, namespace: str, name: str, given: Posted) -> tuple[Link, Arrival | list[Arrival]]:
        declared = self._node.connections.named(namespace, name)
        listener = self._listeners.get(declared.spec.protocol) if declared is not None else None
        if declared is None or listener is None or not listener.listens(declared):
            raise _not_taken()
        try:
            link = self._node.connections.link(declared)
            return link, listener.hears(link, given, parse_json_now)
        except Refusal as refusal:
            found = refusal.problem
            if found.reason not in ("UNAUTHENTICATED", "NOT_SET_UP"):
                raise
            self._tell(declared, found)
            raise _not_taken() from None

    def _require_rate(self, link: Link, many: int) -> None:
        """Each of them counts; there must be room when the first comes."""
        lane, now = self._lanes.get(link.uid), self._node.steady()
        if lane is None or lane.generation != link.generation:
            if len(self._lanes) >= LANES_MAX:
                self._lanes = {uid: it for uid, it in self._lanes.items() if it.free_at > now}
            lane = self._lanes[link.uid] = Lane(link, now)
        wait_s = lane.free_at - now
        if wait_s > BURST_S:
            most = link.spec.limits.calls_per_s_max
            detail = f"more comes to connection {link.name} than {most:g} a second (calls_per_s_max)"
            raise refuse("QUOTA", detail, retry_after_s=wait_s, limit="calls_per_s_max", max=most)
        for _ in range(many):
            lane.turn_at(now)

    def _tell(self, link: Link, found: Problem) -> None:
        """The operator, not whoever posted."""
        now = self._node.steady()
        if now - self._told.get(link.uid, now - TOLD_EVERY_S) < TOLD_EVERY_S:
            return
        if len(self._told) >= LANES_MAX:
            self._told.clear()
        self._told[link.uid] = now
        data = orjson.dumps({"reason": found.reason, "detail": found.detail}).decode()
        about = ("connection.refused", self._node.clock(), "Connection", link.namespace, link.name, None, None, data)
        self._node.trouble.tell((sql.EVENT, about, 1))


def _told_of_one(made: Sequence[str], known: frozenset[str]) -> dict[str, Any]:
    return {"message_id": made[0], "duplicate": made[0] in known}


def _told_of_batch(made: Sequence[str], known: frozenset[str]) -> dict[str, Any]:
    """What became of each, in the order of the batch; what stands in it twice has come with the first."""
    seen = set(known)
    messages = []
    for it in made:
        messages.append({"message_id": it, "duplicate": it in seen})
        seen.add(it)
    accepted = len(set(made) - known)
    return {"messages": messages, "accepted": accepted, "duplicates": len(made) - accepted}


def _of(arrival: Arrival, refusal: Refusal) -> Refusal:
    """The refusal, with what the event that it is about calls itself."""
    found = refusal.problem
    more = {} if arrival.origin is None else {"origin": arrival.origin}
    return Refusal(found.model_copy(update={"metadata": {**found.metadata, **more}}))


def _channels(fresh: Mapping[str, Arrival]) -> list[str]:
    return sorted({it.channel for it in fresh.values()})


def envelope(link: Link, arrival: Arrival, made: str, now: float) -> str:
    """The CloudEvent that an arrival becomes, as JSON."""
    body = {
        "specversion": "1.0",
        "id": made,
        "source": f"/{link.namespace}/connections/{link.name}",
        "type": arrival.type,
        "subject": f"{link.namespace}/{arrival.channel}",
        "time": at_time(now),
        "datacontenttype": "application/json",
        "data": arrival.data,
        "traceparent": arrival.traceparent or new_trace(),
        "partitionkey": arrival.partitionkey,
        "origin": arrival.origin,
        "taint": link.spec.trust,
    }
    try:
        text = orjson.dumps({name: value for name, value in body.items() if value is not None or name == "data"})
    except TypeError as error:
        raise refuse("INVALID_VALUE", f"the data can not be carried as JSON: {error}", field="/data") from None
    if len(text) > DATA_BYTES_MAX:
        detail = f"it has {len(text)} bytes, {DATA_BYTES_MAX} at most"
        raise refuse("TOO_LARGE", detail, bytes=len(text), bytes_max=DATA_BYTES_MAX)
    return text.decode()


def _not_taken() -> Refusal:
    return refuse("UNAUTHENTICATED", "nothing here takes what is posted with this signature")
