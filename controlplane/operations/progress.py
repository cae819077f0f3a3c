"""How far a change is: which of its steps are so, and what is left to do for those that are not.

A step is a postcondition, seen in records: an agent's row at the declared generation, a channel's
row, a fleet's agents, or that nothing is left. What is to be done follows from what is recorded, not
from what was done before; so it is the same after any crash, and for a resource that no change
speaks of (the sweep). Reads only.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import orjson
from sqlalchemy import text
from sqlmodel import Session

from controlplane.operations.observing import many, rows
from controlplane.operations.scaling import Piece, piece_of
from controlplane.operations.snapshot import known_of, of_fleet, read_known, read_owners
from controlplane.operations.watches import channels_of
from controlplane.operations.workers import fleet_spec
from controlplane.operations.world import Key, Known
from controlplane.store.packed import unpack
from schemas.resource import Kind

WINDOW = 1_000  # names that one look of a sweep goes through
FLEETS_AT_ONCE = 50
BEFORE_FLEETS = "fleet"  # sorts before every uid of a fleet
OPEN = text(
    "SELECT change_id, principal, committed_at, steps, undo, operation, batch FROM change WHERE done_at IS NULL"
    " AND (committed_at > :after OR (committed_at = :after AND change_id > :last))"
    " ORDER BY committed_at, change_id LIMIT :many"
)
AGENT_AT = text("SELECT uid, generation FROM agent WHERE namespace = :namespace AND name = :name")
CHANNEL_AT = text(
    "SELECT uid, retention_s, ephemeral, backlog_max AS backlog_messages_max, attempts_max, in_flight_max FROM channel"
    " WHERE namespace = :namespace AND name = :name"
)
CHANNEL_GOES_BY = ("retention_s", "ephemeral", "backlog_messages_max", "attempts_max", "in_flight_max")
CHANNELS_NAMED = many("SELECT uid FROM channel WHERE namespace = :namespace AND name IN :names", "names")
WATCHING = text(
    "SELECT r.* FROM resource r JOIN agent a ON a.uid = r.uid WHERE r.kind = 'Agent' AND r.deleted_at IS NULL"
    " AND r.ordinal IS NULL AND r.namespace = :namespace AND r.spec LIKE :text UNION ALL"
    " SELECT r.* FROM resource f JOIN resource r ON r.owner = f.uid AND r.deleted_at IS NULL"
    " JOIN agent a ON a.uid = r.uid WHERE f.kind = 'Fleet' AND f.deleted_at IS NULL AND f.namespace = :namespace"
    " AND f.spec LIKE :text UNION ALL"
    " SELECT r.* FROM resource f JOIN resource r ON r.owner = f.uid AND r.deleted_at IS NULL"
    " JOIN agent a ON a.uid = r.uid WHERE f.kind = 'Route' AND f.deleted_at IS NULL AND f.namespace = :namespace"
    " AND f.spec LIKE :text"
)
STILL_THERE = many("SELECT uid FROM agent WHERE uid IN :uids", "uids")
# A sweep's windows: so many names in their order, with what is not as declared among them.
DECLARED = text(
    "SELECT r.namespace, r.name, CASE WHEN a.uid IS NULL OR a.generation < r.generation THEN 1 ELSE 0 END AS behind"
    " FROM (SELECT namespace, name, uid, generation FROM resource WHERE kind = 'Agent' AND deleted_at IS NULL"
    " AND (namespace, name) > (:namespace, :name) ORDER BY namespace, name LIMIT :many) r"
    " LEFT JOIN agent a ON a.uid = r.uid ORDER BY r.namespace, r.name"
)
RUNNING = text(
    "SELECT a.namespace, a.name, CASE WHEN r.uid IS NULL THEN 1 ELSE 0 END AS behind"
    " FROM (SELECT namespace, name, uid FROM agent WHERE (namespace, name) > (:namespace, :name)"
    " ORDER BY namespace, name LIMIT :many) a"
    " LEFT JOIN resource r ON r.uid = a.uid AND r.deleted_at IS NULL ORDER BY a.namespace, a.name"
)
CHANNELS_DECLARED = text(  # without a bound of attempts it is of before there were bounds: none of them is set
    "SELECT r.namespace, r.name, CASE WHEN c.uid IS NULL OR c.attempts_max IS NULL THEN 1 ELSE 0 END AS behind"
    " FROM (SELECT namespace, name, uid FROM resource WHERE kind = 'Channel' AND deleted_at IS NULL"
    " AND (namespace, name) > (:namespace, :name) ORDER BY namespace, name LIMIT :many) r"
    " LEFT JOIN channel c ON c.uid = r.uid ORDER BY r.namespace, r.name"
)
CHANNELS_RUNNING = text(
    "SELECT c.namespace, c.name, CASE WHEN r.uid IS NULL THEN 1 ELSE 0 END AS behind"
    " FROM (SELECT namespace, name, uid FROM channel WHERE (namespace, name) > (:namespace, :name)"
    " ORDER BY namespace, name LIMIT :many) c"
    " LEFT JOIN resource r ON r.uid = c.uid AND r.deleted_at IS NULL ORDER BY c.namespace, c.name"
)
FLEETS = text(
    "SELECT namespace, name, 1 AS behind FROM resource WHERE kind = 'Fleet' AND deleted_at IS NULL"
    " AND (namespace, name) > (:namespace, :name) ORDER BY namespace, name LIMIT :many"
)
ROUTES = text(
    "SELECT namespace, name, 1 AS behind FROM resource WHERE kind = 'Route' AND deleted_at IS NULL"
    " AND (namespace, name) > (:namespace, :name) ORDER BY namespace, name LIMIT :many"
)
OWNER = text("SELECT MIN(owner) AS owner FROM resource WHERE deleted_at IS NULL AND owner > :after")
Verb = Literal["start", "reach", "remove", "set_up", "retain", "take_down", "scale"]


@dataclass(frozen=True)
class Work:
    """One thing to do: `uid` is the running side that it is done to, `known` what is declared."""

    verb: Verb
    uid: str
    known: Known
    piece: Piece | None = None


@dataclass(frozen=True)
class OpenSteps:
    """An open change, and its writes (with the uid they left); of an operation, what the gate is to do instead."""

    change_id: str
    principal: str
    committed_at: float
    steps: list[bool]
    stored: str
    undo: bytes
    operation: str | None
    batch: int

    @property
    def writes(self) -> Sequence[dict[str, Any]]:
        found: list[dict[str, Any]] = orjson.loads(unpack(self.undo))
        return found


def open_changes(session: Session, after: tuple[float, str], most: int) -> list[OpenSteps]:
    """Open changes in the order of their commit, after one of them."""
    found = rows(session, OPEN, after=after[0], last=after[1], many=most)
    return [
        OpenSteps(
            it["change_id"],
            it["principal"],
            it["committed_at"],
            orjson.loads(it["steps"]),
            it["steps"],
            it["undo"],
            it["operation"],
            it["batch"] or 1,
        )
        for it in found
    ]


def look(session: Session, key: Key, uid: str | None = None, full: Mapping[str, int] | None = None) -> list[Work]:
    """What is to be done for a name, nothing when all is as declared; `uid` is a fleet that may be gone.

    `full` is up to where fleets were seen to be full a moment ago, by their uid.
    """
    kind, namespace, name = key
    known = read_known(session, [key]).get(key) or Known(kind, namespace, name)
    if kind == "Agent":
        return _agent(session, known)
    if kind == "Channel":
        return _channel(session, known)
    if kind == "Route":
        return _route(session, known, uid, full or {})
    if kind == "Fleet":
        return _fleet(session, known, uid, full or {})
    return []


def _agent(session: Session, known: Known) -> list[Work]:
    found = rows(session, AGENT_AT, namespace=known.namespace, name=known.name)
    there = found[0] if found else None
    if there is not None and there["uid"] != known.uid:
        return [Work("remove", there["uid"], known)]
    if known.uid is None:
        return []
    if there is None:
        return [Work("start", known.uid, known)]
    return [Work("reach", known.uid, known)] if there["generation"] < known.generation else []


def _channel(session: Session, known: Known) -> list[Work]:
    found = rows(session, CHANNEL_AT, namespace=known.namespace, name=known.name)
    there = found[0] if found else None
    if there is not None and there["uid"] != known.uid:
        return [Work("take_down", there["uid"], known)]
    if known.uid is None:
        return []
    if there is None:
        return [Work("set_up", known.uid, known)]
    as_wanted = all(there[it] == known.spec.get(it, there[it]) for it in CHANNEL_GOES_BY)
    return [] if as_wanted else [Work("retain", known.uid, known)]


def _route(session: Session, known: Known, uid: str | None, full: Mapping[str, int]) -> list[Work]:
    """A route is a fleet of one."""
    spec = fleet_spec(known.namespace, known.name, known.spec) if known.live else {}
    return _fleet(session, replace(known, spec=spec), uid, full)


def _fleet(session: Session, known: Known, uid: str | None, full: Mapping[str, int]) -> list[Work]:
    work = []
    if known.uid is not None:
        piece = piece_of(session, known.uid, known, known.spec["replicas"], full.get(known.uid, 0))
        work.append(Work("scale", known.uid, known, piece))
    if uid is not None and uid != known.uid:
        work.append(Work("scale", uid, known, piece_of(session, uid, known, 0)))
    return [it for it in work if it.piece is not None and not it.piece.settled]


def still_there(session: Session, uids: Sequence[str]) -> set[str]:
    """Which of these agents have a running side."""
    return {row["uid"] for row in rows(session, STILL_THERE, uids=list(uids))} if uids else set()


def watching(session: Session, channel: Known) -> list[tuple[str, dict[str, Any]]]:
    """Agents whose spec watches the channel, by uid: single ones, and those of fleets that watch it."""
    found = rows(session, WATCHING, namespace=channel.namespace, text=f'%"channel":"{channel.name}"%')
    known = [known_of(row) for row in found]
    return [(it.uid or "", it.spec) for it in known]


def watched(session: Session, agent: Known) -> list[str]:
    """The uids of channels that the agent's spec watches from the beginning."""
    names = [it["channel"] for it in channels_of(agent.spec["watches"]) if it["start"] == "beginning"]
    return [it["uid"] for it in rows(session, CHANNELS_NAMED, namespace=agent.namespace, names=names)]


@dataclass(frozen=True)
class Window:
    """Where a sweep is with one kind of thing: after this name."""

    kind: Kind
    query: Any
    many: int
    after: tuple[str, str] = ("", "")


@dataclass(frozen=True)
class Sweep:
    """How far a sweep is; `done` when it has been everywhere."""

    windows: tuple[Window, ...] = (
        Window("Channel", CHANNELS_RUNNING, WINDOW),
        Window("Channel", CHANNELS_DECLARED, WINDOW),
        Window("Agent", RUNNING, WINDOW),
        Window("Agent", DECLARED, WINDOW),
        Window("Fleet", FLEETS, FLEETS_AT_ONCE),
        Window("Route", ROUTES, FLEETS_AT_ONCE),
    )
    owner: str | None = BEFORE_FLEETS

    @property
    def done(self) -> bool:
        return not self.windows and self.owner is None


def behind(session: Session, sweep: Sweep) -> tuple[list[tuple[Key, str | None]], Sweep]:
    """Names in the next windows where what is there is not what is declared, and where the sweep is then."""
    found: list[tuple[Key, str | None]] = []
    left = []
    for it in sweep.windows:
        listed = rows(session, it.query, namespace=it.after[0], name=it.after[1], many=it.many)
        found += [((it.kind, row["namespace"], row["name"]), None) for row in listed if row["behind"]]
        if len(listed) == it.many:
            left.append(replace(it, after=(listed[-1]["namespace"], listed[-1]["name"])))
    orphans, owner = _orphans(session, sweep.owner)
    return found + orphans, Sweep(tuple(left), owner)


def _orphans(session: Session, after: str | None) -> tuple[list[tuple[Key, str | None]], str | None]:
    """Fleets that are gone and have agents, from owner to owner over the index."""
    found: list[tuple[Key, str | None]] = []
    for _ in range(FLEETS_AT_ONCE):
        after = rows(session, OWNER, after=after)[0]["owner"] if after is not None else None
        if after is None or not of_fleet(after):
            return found, None
        if not read_owners(session, [after]):
            found.append((_fleet_key(session, after), after))
    return found, after


def _fleet_key(session: Session, uid: str) -> Key:
    """The name of a fleet that is gone: its agents still say where it was."""
    query = text("SELECT namespace, name FROM resource WHERE owner = :uid AND deleted_at IS NULL LIMIT 1")
    child = rows(session, query, uid=uid)[0]
    return ("Route" if uid.startswith("route_") else "Fleet"), child["namespace"], child["name"].rpartition("-")[0]
