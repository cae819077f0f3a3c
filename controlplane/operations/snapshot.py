"""Reading the world that a decision is made on: one snapshot, by names and indexes.

Only what the decisions name is read, in one session, so that the read set, the memberships and the
code belong to one moment. Nothing is decided here, and nothing is written.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import orjson
from sqlalchemy import text
from sqlmodel import Session, col, func, select

from controlplane.operations.circles import agents_of, read_heard, read_talks, watched
from controlplane.operations.hourly import HOUR_S
from controlplane.operations.loops import leads
from controlplane.operations.observing import chunks, many, rows
from controlplane.operations.planning import reads
from controlplane.operations.routing import edges
from controlplane.operations.sources import Bound, brought, fails, source_name
from controlplane.operations.using import connections_of
from controlplane.operations.watches import channels_of
from controlplane.operations.world import Key, Known, Members, Wanted, World, fleet_of
from controlplane.store.schedules import Schedule, many_between
from controlplane.store.tables import CodeReachRow, CodeRow, ResourceRow
from schemas.resource import Kind, Ref

Code = Mapping[str, Mapping[str, str]]
Specs = Mapping[str, Sequence[tuple[str, Mapping[str, Any]]]]  # of routes with their names, by namespace
KNOWN = many("SELECT * FROM resource WHERE kind = :kind AND namespace = :namespace AND name IN :names", "names")
OWNERS = many("SELECT uid, kind, namespace, name FROM resource WHERE uid IN :uids AND deleted_at IS NULL", "uids")
EVERYWHERE = ("*",)
# Names are ordered by bytes, where "." follows "-".
SINGLE = text("""SELECT name FROM resource WHERE kind = 'Agent' AND deleted_at IS NULL AND ordinal IS NULL
AND namespace = :namespace AND name > :first AND name < :last""")

NAMING = text(
    "SELECT kind, name, spec FROM resource WHERE kind = 'Agent' AND deleted_at IS NULL AND ordinal IS NULL"
    " AND namespace = :namespace AND spec LIKE :text UNION ALL"
    " SELECT kind, name, spec FROM resource WHERE kind = 'Fleet' AND deleted_at IS NULL"
    " AND namespace = :namespace AND spec LIKE :text UNION ALL"
    " SELECT kind, name, spec FROM resource WHERE kind = 'Route' AND deleted_at IS NULL"
    " AND namespace = :namespace AND spec LIKE :text"
)
ROUTES = text(
    "SELECT name, spec FROM resource WHERE kind = 'Route' AND deleted_at IS NULL AND namespace = :namespace"
    " ORDER BY name LIMIT :many"
)
ROUTES_MAX = 5_000  # of one namespace are looked at for circles
DIVERGED = many("SELECT namespace, digest, kind FROM divergence WHERE digest IN :digests ORDER BY kind", "digests")
SENDERS = text(
    "SELECT name, spec FROM resource WHERE kind = 'Connection' AND deleted_at IS NULL"
    " AND namespace = :namespace AND spec LIKE :text"
)


def read_world(
    session: Session, wanted: Sequence[Wanted], code: Code, reach: Sequence[str] = EVERYWHERE, now: float | None = None
) -> World:
    """All that the decisions may know; stored code only as far as `reach` goes; traffic up to `now`, if it is given."""
    known = read_known(session, reads(wanted))
    routes = [it for it in wanted if it.kind == "Route" and it.action == "apply"]
    looked_at = routes if now is not None else [it for it in routes if edges(it.name, it.spec)]
    circling = {it.namespace for it in routes} | _speaking(session, wanted) if now is not None else set()
    specs = {name: _specs(session, name) for name in sorted({*circling, *(it.namespace for it in looked_at)})}
    ways = {name: tuple(leads(*it) for it in specs[name]) for name in sorted(circling)}
    owners = read_owners(session, {it.owner for it in known.values() if it.owner})
    digests = {it.agent_spec["code"]["digest"] for it in wanted if it.agent_spec is not None}
    return World(
        known,
        {**_code(session, digests - code.keys(), reach), **code},
        owners,
        tuple(_members(session, wanted, specs)),
        _agents(session, {it.namespace for it in wanted}) if digests else {},
        _traffic(session, routes, specs, now) if now is not None else {},
        _firings(routes, now) if now is not None else {},
        ways,
        _diverged(session, digests) if now is not None else {},
        {name: read_heard(session, name, there, wanted) for name, there in ways.items()},
        _failing(session, routes, specs) if now is not None else {},
    )


def read_known(session: Session, keys: Iterable[Key]) -> dict[Key, Known]:
    """What is recorded under each of these names; names without a record are left out."""
    names: dict[tuple[Kind, str], list[str]] = defaultdict(list)
    for key in keys:
        names[key[0], key[1]].append(key[2])
    found: dict[Key, Known] = {}
    for (kind, namespace), wanted in names.items():
        for chunk in chunks(wanted):
            listed = rows(session, KNOWN, kind=kind, namespace=namespace, names=chunk)
            found |= {it.key: it for it in map(known_of, listed)}
    return found


def known_of(row: Mapping[str, Any]) -> Known:
    """A row of the resource table as the pure stages see it."""
    live = row["deleted_at"] is None
    return Known(
        kind=row["kind"],
        namespace=row["namespace"],
        name=row["name"],
        uid=row["uid"] if live else None,
        generation=row["generation"],
        revision=row["revision"],
        labels=orjson.loads(row["labels"]),
        spec=orjson.loads(row["spec"]) if live else {},
        owner=row["owner"] if live else None,
        created_at=row["created_at"],
    )


def read_owners(session: Session, uids: Iterable[str]) -> dict[str, Ref]:
    """Which resource each uid is."""
    found: dict[str, Ref] = {}
    for chunk in chunks(list(uids)):
        for row in rows(session, OWNERS, uids=chunk):
            found[row["uid"]] = Ref(kind=row["kind"], namespace=row["namespace"], name=row["name"])
    return found


def _code(session: Session, digests: Iterable[str], reach: Sequence[str]) -> dict[str, Mapping[str, str]]:
    wanted = list(digests)
    if not wanted:
        return {}
    query = select(CodeRow.digest, CodeRow.files).where(col(CodeRow.digest).in_(wanted))
    if "*" not in reach:
        of = select(CodeReachRow.digest).where(
            col(CodeReachRow.digest) == col(CodeRow.digest), col(CodeReachRow.namespace).in_(reach)
        )
        query = query.where(of.exists())
    return {digest: orjson.loads(files) for digest, files in session.exec(query)}


def _agents(session: Session, namespaces: Iterable[str]) -> dict[str, int]:
    query = select(ResourceRow.namespace, func.count()).where(
        ResourceRow.kind == "Agent",
        col(ResourceRow.namespace).in_(sorted(namespaces)),
        col(ResourceRow.deleted_at).is_(None),
    )
    return dict(session.exec(query.group_by(col(ResourceRow.namespace))).all())


def _members(session: Session, wanted: Sequence[Wanted], specs: Specs) -> Iterable[Members]:
    for it in wanted:
        if it.kind == "Route" and it.action == "apply" and edges(it.name, it.spec):
            found = sorted(edge for one in specs[it.namespace] for edge in edges(*one))
            yield Members("routes", it.namespace, "", tuple(found))
        if it.kind in ("Fleet", "Route") and it.action == "apply":
            names = siblings(session, it.namespace, it.name)
            yield Members("siblings", it.namespace, it.name, names)
        if it.kind == "Channel" and it.action == "delete":
            yield Members("watchers", it.namespace, it.name, watchers(session, it.namespace, it.name))
        if it.kind == "Secret" and it.action == "delete":
            yield Members("senders", it.namespace, it.name, senders(session, it.namespace, it.name))
        if it.kind == "Connection" and it.action == "delete":
            yield Members("users", it.namespace, it.name, users(session, it.namespace, it.name))


def senders(session: Session, namespace: str, secret: str) -> tuple[str, ...]:
    """The connections that send a value of the secret."""
    found = rows(session, SENDERS, namespace=namespace, text=f'%"name":"{secret}"%')
    named = ((it["name"], orjson.loads(it["spec"])["secret"]) for it in found)
    return tuple(sorted(name for name, sent in named if sent is not None and sent["name"] == secret))


def users(session: Session, namespace: str, connection: str) -> tuple[str, ...]:
    """What uses the connection by its spec, as kind/name; a fleet stands for its agents."""
    found = rows(session, NAMING, namespace=namespace, text=f'%"connection":"{connection}"%')
    named = ((it["kind"], it["name"], orjson.loads(it["spec"])) for it in found)
    return tuple(sorted(f"{kind}/{name}" for kind, name, spec in named if connection in connections_of(kind, spec)))


def _specs(session: Session, namespace: str) -> list[tuple[str, Mapping[str, Any]]]:
    """The routes of a namespace, with their specs."""
    return [
        (it["name"], orjson.loads(it["spec"])) for it in rows(session, ROUTES, namespace=namespace, many=ROUTES_MAX)
    ]


def _traffic(
    session: Session, routes: Sequence[Wanted], specs: Specs, now: float
) -> dict[tuple[str, str], tuple[int, ...]]:
    """What the sources of routes brought in each of the last hours; a poll is known by a route that has it."""
    found: dict[tuple[str, str], tuple[int, ...]] = {}
    bound = Bound()
    for it in routes:
        source = it.spec["source"]
        place = it.namespace, source_name(source)
        if "poll" not in source:
            found[place] = brought(session, it.namespace, it.name, source, now, bound)
        elif place not in found:
            route = _asks(it, specs)
            found[place] = brought(session, it.namespace, route, source, now, bound) if route is not None else ()
    return found


def _failing(session: Session, routes: Sequence[Wanted], specs: Specs) -> dict[tuple[str, str], str]:
    """The polls that fail at this moment, each by a route that has it."""
    polls = [(it, _asks(it, specs)) for it in routes if "poll" in it.spec["source"]]
    return {
        (it.namespace, source_name(it.spec["source"])): route
        for it, route in polls
        if route is not None and fails(session, it.namespace, route)
    }


def _asks(it: Wanted, specs: Specs) -> str | None:
    """A route that asks the same as this one by now; itself, if it does."""
    wanted = source_name(it.spec["source"])
    same = [name for name, spec in specs[it.namespace] if source_name(spec["source"]) == wanted]
    return it.name if it.name in same else next(iter(same), None)


def _speaking(session: Session, wanted: Sequence[Wanted]) -> set[str]:
    """Of agents that shall watch channels, and were heard before: their namespaces."""
    found: set[str] = set()
    for it in wanted:
        if it.namespace not in found and watched(it) and read_talks(session, it.namespace, agents_of(it), 1):
            found.add(it.namespace)
    return found


def _firings(routes: Sequence[Wanted], now: float) -> dict[str, int]:
    """How often the schedules of polls are due in the next hour."""
    crons = {it.spec["source"]["poll"]["cron"] for it in routes if "poll" in it.spec["source"]}
    return {cron: many_between(Schedule(cron=cron), now, now + HOUR_S) for cron in sorted(crons)}


def _diverged(session: Session, digests: Iterable[str]) -> dict[tuple[str, str], list[str]]:
    """Which of this code differed in a replay, by namespace, and what differed first."""
    found: dict[tuple[str, str], list[str]] = defaultdict(list)
    for chunk in chunks(list(digests)):
        for row in rows(session, DIVERGED, digests=chunk):
            found[row["namespace"], row["digest"]].append(row["kind"])
    return dict(found)


def siblings(session: Session, namespace: str, fleet: str) -> tuple[str, ...]:
    """Live agents that are named as the fleet's would be, and belong to no fleet."""
    found = rows(session, SINGLE, namespace=namespace, first=f"{fleet}-", last=f"{fleet}.")
    named = ((row["name"], fleet_of(row["name"])) for row in found)
    return tuple(sorted(name for name, place in named if place is not None and place[0] == fleet))


def of_fleet(owner: str | None) -> bool:
    """Whether an owner's uid is a fleet's or a route's; what such an owner left behind is about to go."""
    return owner is not None and owner.startswith(("fleet_", "route_"))


def watchers(session: Session, namespace: str, channel: str) -> tuple[str, ...]:
    """What watches the channel by its spec, as kind/name; a fleet stands for its agents."""
    found = rows(session, NAMING, namespace=namespace, text=f'%"channel":"{channel}"%')
    named = ((it["kind"], it["name"], orjson.loads(it["spec"])) for it in found)
    return tuple(sorted(f"{kind}/{name}" for kind, name, spec in named if _watches(kind, spec, channel)))


def _watches(kind: str, spec: Mapping[str, Any], channel: str) -> bool:
    if kind == "Route":
        ends = (spec["source"], spec["sink"], spec["reply"])
        return any(it is not None and it.get("channel") == channel for it in ends)
    agents = spec if kind == "Agent" else spec["template"]["spec"]
    return any(watch["channel"] == channel for watch in channels_of(agents["watches"]))
