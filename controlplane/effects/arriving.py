"""What comes in over connections: heard by its protocol's listener, and once in a channel before anybody is told.

Whoever posts holds no token. Until its signature is taken it is told the same whatever there is, and the operator
is told of it once a minute at most. The connection's rate holds for what comes in, too, apart from what goes out:
what comes too fast is refused with a time, and not kept. What came once is known for a week.
"""

import logging
from collections.abc import Callable, Mapping
from typing import Any

import orjson

from controlplane.effects.connections import LANES_MAX, Lane
from controlplane.effects.node import MESSAGES, Node
from controlplane.effects.reading import Away
from controlplane.effects.turnref import at_time
from controlplane.mesh.dataschema import require_match
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
Answer = Callable[[dict[str, Any] | Problem], None]


class Arriving:
    """The way in of this gate's connections."""

    def __init__(self, node: Node, listeners: Mapping[str, Listener]) -> None:
        self._node = node
        self._listeners = listeners
        self._lanes: dict[str, Lane] = {}
        self._told: dict[str, float] = {}

    def posted(self, namespace: str, name: str, given: Posted, done: Answer) -> None:
        """Hear it; `done` gets `{message_id, duplicate}` once it is committed, or why it is not taken."""
        try:
            link, arrival = self._heard(namespace, name, given)
            self._require_rate(link)
            self.arrived(link, arrival, done)
        except Refusal as refusal:
            done(refusal.problem)
        except Away:  # told by the gate, for all calls alike
            raise
        except Exception:
            log.exception("what was posted to %s/%s broke its listener", namespace, name)
            done(problem("INTERNAL", "what was posted broke its listener; the log of the gate tells more"))

    def arrived(self, link: Link, arrival: Arrival, done: Answer) -> None:
        """Publish it, once; raises Refusal for what its channel does not take."""
        node, channel = self._node, (link.namespace, arrival.channel)
        now, made = node.clock(), short_id("msg", "arrival", link.uid, arrival.unique)
        found = node.reader.one(sql.CHANNEL_SPEC, *channel)
        if found is not None:
            self._require_taken(orjson.loads(found[0]), arrival, found[1], channel)
        text = envelope(link, arrival, made, now)
        rows: list[Any] = [(arrivals.ARRIVED, (link.uid, made, now), 1)]
        if found is None:
            rows += first_use(short_id("channel", made, now), *channel, f"{link.namespace}/{link.name}", now)
        *put, bump = channel_rows(*channel, made, text, Placed(arrival.partitionkey), now, node.delivery.room)
        rows += [*put, (*bump[:2], 1)]  # without a channel it does not count as come

        def published(outcome: str, detail: str) -> None:
            if outcome == "error":
                done(problem("NOT_READY", f"it is not kept: {detail}", retry_after_s=1.0))
                return
            try:
                known = outcome == "ok" or node.reader.one(arrivals.KNOWN, link.uid, made) is not None
                lost = None if known else self._not_kept(*channel)
            except Away:
                done(problem("NOT_READY", "the database went away; post it again", retry_after_s=1.0))
                return
            if lost is not None:
                done(lost)
                return
            node.delivery.published(*channel, made)
            done({"message_id": made, "duplicate": outcome == "conflict"})

        node.publish(rows, published, MESSAGES)

    def _not_kept(self, namespace: str, name: str) -> Problem:
        """Why there is no channel: no more are made, or it is declared and not set up, or was just taken down."""
        if self._node.reader.rows(channels.COUNT, namespace, CHANNELS_MAX)[0][0] >= CHANNELS_MAX:
            return too_many(namespace)
        return problem("NOT_READY", f"channel {namespace}/{name} is not set up; post it again", retry_after_s=1.0)

    def _require_taken(self, spec: dict[str, Any], arrival: Arrival, uid: str, channel: tuple[str, str]) -> None:
        if spec.get("dataschema") is not None:
            require_match(spec["dataschema"], arrival.data, *channel)
        if spec.get("mode") == "queue":
            full = self._node.delivery.queues.full(uid, "/".join(channel), spec["backlog_messages_max"])
            if full is not None:
                raise Refusal(full)

    def _heard(self, namespace: str, name: str, given: Posted) -> tuple[Link, Arrival]:
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

    def _require_rate(self, link: Link) -> None:
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
