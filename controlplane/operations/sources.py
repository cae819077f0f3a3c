"""How much a route's source brought, hour by hour: messages, events, or rows. Reads only, and no more than so many.

An hour is known if it is whole, and if back to it no more was to be looked at than is left of a bound. Only what the
route would be given is counted: of the feedback log the events of its namespace that it watches. What a poll brought
stands in the turns of its worker: each row is a message of the worker to itself.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from sqlalchemy import text
from sqlmodel import Session

from controlplane.mesh.events import UNASKED
from controlplane.operations.hourly import EVENT_AT, HOUR_S, HOURS_MAX, hours, last_before
from controlplane.operations.observing import rows
from controlplane.operations.workers import worker_name
from schemas.base import short_id

LOOKED_MAX = 20_000  # events and turns, for all that is asked together
EVENTS = text(
    "SELECT (SELECT MIN(cursor) FROM event WHERE namespace = :namespace) AS first,"
    " (SELECT MAX(cursor) FROM event WHERE namespace = :namespace) AS last"
)
OLDEST_EVENT = text("SELECT time AS at FROM event ORDER BY cursor LIMIT 1")  # retention takes them in this order
EVENTS_COUNTED = (
    "SELECT COUNT(*) AS seen, SUM({came}) AS came FROM"
    " (SELECT type, kind, name, principal, turn_id FROM event WHERE namespace = :namespace AND cursor > :begin"
    " AND cursor <= :end ORDER BY cursor LIMIT :most) e"
)
_NOT_OWN = (  # as `mesh.events` delivers them
    "NOT (e.kind = 'Agent' AND e.name = :worker) AND COALESCE(e.principal, '') <> :address AND NOT EXISTS"
    " (SELECT 1 FROM turn t JOIN agent a ON a.uid = t.agent"
    " WHERE t.turn_id = e.turn_id AND a.namespace = :namespace AND a.name = :worker)"
)
POLLED = text(
    "SELECT a.uid, r.created_at, r.updated_at,"
    """ CASE WHEN a.state LIKE '%"failing":{%' THEN 1 ELSE 0 END AS fails"""  # no text of a row can read like it
    " FROM resource r JOIN agent a ON a.namespace = r.namespace"
    " AND a.name = :worker JOIN resource w ON w.uid = a.uid AND w.owner = r.uid"
    " WHERE r.kind = 'Route' AND r.namespace = :namespace AND r.name = :name AND r.deleted_at IS NULL"
)
OLDEST_TURN = text("SELECT t.trigger, t.finished_at FROM turn t WHERE t.agent = :agent ORDER BY t.started_at LIMIT 1")
# An envelope of ours begins with its source; its data follows the content type. A row is an object, never a word.
ROWS_COUNTED = text(
    "SELECT COUNT(*) AS seen, SUM(CASE WHEN e.trigger = 'message' AND e.head LIKE :own AND e.head NOT LIKE :word"
    " THEN 1 ELSE 0 END) AS came FROM (SELECT t.trigger, SUBSTR(t.message, 1, 600) AS head FROM turn t"
    " WHERE t.agent = :agent AND t.started_at > :begin AND t.started_at <= :end ORDER BY t.started_at LIMIT :most) e"
)
WORD = '%"datacontenttype":"application/json","data":"%'
Count = Callable[[float, float, int], Mapping[str, Any]]


@dataclass
class Bound:
    """How many events and turns may still be looked at."""

    left: int = LOOKED_MAX


def source_name(source: Mapping[str, Any]) -> str:
    """A name for what a source reads: a channel's own; of events and polls one that the same source has again."""
    if "channel" in source:
        return str(source["channel"])
    if "events" in source:
        return short_id("events", source["events"])
    poll = source["poll"]
    return short_id("poll", *(poll[it] for it in ("connection", "statement", "cursor", "id")))


def brought(
    session: Session,
    namespace: str,
    route: str,
    source: Mapping[str, Any],
    now: float,
    bound: Bound,
    most: int = HOURS_MAX,
) -> tuple[int, ...]:
    """What the source of a route brought in each of the last hours that are known, the newest first."""
    if "channel" in source:
        return hours(session, namespace, source["channel"], now, most)
    worker = worker_name(route)
    if "events" in source:
        since = rows(session, OLDEST_EVENT)
        ends = _ends(since[0]["at"] if since else None, now, most)
        places, count = _events(session, namespace, worker, source["events"], ends)
    else:
        agent, since_when = _polling(session, namespace, route)
        places = _ends(since_when, now, most)
        count = _rows(session, agent, f"/{namespace}/agents/{worker}")
    return _counted(places, count, bound)


def _events(
    session: Session, namespace: str, worker: str, wanted: Mapping[str, Any], ends: Sequence[float]
) -> tuple[Sequence[float], Count]:
    """The places in the log where hours end, and what counts the events between two."""
    condition, values = _matching(wanted)
    query = text(EVENTS_COUNTED.format(came=f"CASE WHEN {condition} THEN 1 ELSE 0 END"))
    given = values | {"namespace": namespace}
    if not wanted["own"]:
        given |= {"worker": worker, "address": f"{namespace}/{worker}"}
    found = rows(session, EVENTS, namespace=namespace)[0]
    first, last = found["first"] or 1, found["last"] or 0
    places = [last_before(session, EVENT_AT, namespace, first, last, end) for end in ends]
    return places, lambda begin, end, many: rows(session, query, begin=begin, end=end, most=many, **given)[0]


def _matching(wanted: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The condition under which an event is what a watch waits for, and its values."""
    whole = {f"type{n}": it for n, it in enumerate(wanted["types"]) if not it.endswith(".*")}
    begun = {f"type{n}": it[:-1] for n, it in enumerate(wanted["types"]) if it.endswith(".*")}
    values = {**whole, **begun}
    types = [f"e.type = :{name}" for name in whole]
    types += [f"SUBSTR(e.type, 1, {len(prefix)}) = :{name}" for name, prefix in begun.items()]
    conditions = [f"({' OR '.join(types)})" if types else f"e.type <> '{UNASKED}'"]
    for name in ("kind", "name"):
        if wanted[name] is not None:
            values[name] = wanted[name]
            conditions.append(f"e.{name} = :{name}")
    if not wanted["own"]:
        conditions.append(_NOT_OWN)
    return " AND ".join(conditions), values


def fails(session: Session, namespace: str, route: str) -> bool:
    """Whether the poll of a route fails at this moment."""
    found = rows(session, POLLED, namespace=namespace, name=route, worker=worker_name(route))
    return bool(found) and bool(found[0]["fails"])


def _polling(session: Session, namespace: str, route: str) -> tuple[str, float | None]:
    """The worker of a route, and since when its turns are on record, and the route is as it is; of one that asks in
    vain nothing is known."""
    found = rows(session, POLLED, namespace=namespace, name=route, worker=worker_name(route))
    if found and found[0]["fails"]:
        return "", None
    oldest = rows(session, OLDEST_TURN, agent=found[0]["uid"]) if found else []
    if not oldest:
        return "", None
    it = found[0]
    since = it["created_at"] if oldest[0]["trigger"] == "start" else oldest[0]["finished_at"]
    return it["uid"], None if since is None else max(since, it["updated_at"])


def _rows(session: Session, agent: str, address: str) -> Count:
    """What counts the rows that a worker took up."""
    own = f'%"source":"{address}","type":"steward.message"%'

    def count(begin: float, end: float, many: int) -> Mapping[str, Any]:
        return rows(session, ROWS_COUNTED, agent=agent, begin=begin, end=end, most=many, own=own, word=WORD)[0]

    return count


def _ends(since: float | None, now: float, most: int) -> list[float]:
    """Where the hours end that are whole since then, the newest first, and where the oldest of them begins."""
    known = min(most, int(max(0.0, now - since) // HOUR_S)) if since is not None else 0
    return [now - n * HOUR_S for n in range(known + 1)]


def _counted(ends: Sequence[float], count: Count, bound: Bound) -> tuple[int, ...]:
    """What came between these, as long as there is not more to look at than is left."""
    found = []
    for end, begin in pairwise(ends):
        told = count(begin, end, bound.left + 1)
        bound.left -= min(told["seen"], bound.left)
        if not bound.left:
            break
        found.append(int(told["came"] or 0))
    return tuple(found)
