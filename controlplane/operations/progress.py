"""How far a change is: which of its steps are so, and what is left to do for those that are not.

A step is a postcondition, seen in records: an agent's row at the declared generation, a channel's
row, a fleet's agents, or that nothing is left. What is to be done follows from what is recorded, not
from what was done before; so it is the same after any crash, and for a resource that no change
speaks of (the sweep). Reads only.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import orjson
from sqlalchemy import text
from sqlmodel import Session

from controlplane.operations.observing import many, rows
from controlplane.operations.scaling import Piece, piece_of
from controlplane.operations.snapshot import known_of, read_known
from controlplane.operations.world import Key, Known
from controlplane.store.tables import ResourceRow
from schemas.resource import Kind

AT_ONCE = 200
OPEN = text(
    "SELECT change_id, committed_at, steps, undo FROM change WHERE done_at IS NULL"
    " AND (committed_at > :after OR (committed_at = :after AND change_id > :last))"
    " ORDER BY committed_at, change_id LIMIT :many"
)
AGENT_AT = text("SELECT uid, generation FROM agent WHERE namespace = :namespace AND name = :name")
CHANNEL_AT = text("SELECT uid, retention_s FROM channel WHERE namespace = :namespace AND name = :name")
CHANNELS_NAMED = many("SELECT uid FROM channel WHERE namespace = :namespace AND name IN :names", "names")
AGENTS_BEHIND = text(
    "SELECT r.name, r.namespace FROM resource r LEFT JOIN agent a ON a.uid = r.uid"
    " WHERE r.kind = 'Agent' AND r.deleted_at IS NULL AND (a.uid IS NULL OR a.generation < r.generation) LIMIT :many"
)
AGENTS_LEFT = text(
    "SELECT a.namespace, a.name FROM agent a LEFT JOIN resource r ON r.uid = a.uid AND r.deleted_at IS NULL"
    " WHERE r.uid IS NULL LIMIT :many"
)
CHANNELS_BEHIND = text(
    "SELECT r.name, r.namespace FROM resource r LEFT JOIN channel c ON c.uid = r.uid"
    " WHERE r.kind = 'Channel' AND r.deleted_at IS NULL AND c.uid IS NULL LIMIT :many"
)
CHANNELS_LEFT = text(
    "SELECT c.namespace, c.name FROM channel c LEFT JOIN resource r ON r.uid = c.uid AND r.deleted_at IS NULL"
    " WHERE r.uid IS NULL LIMIT :many"
)
FLEETS = text("SELECT namespace, name FROM resource WHERE kind = 'Fleet' AND deleted_at IS NULL")
ORPHANS = text(
    "SELECT DISTINCT c.owner FROM resource c LEFT JOIN resource f ON f.uid = c.owner AND f.deleted_at IS NULL"
    " WHERE c.owner LIKE 'fleet\\_%' ESCAPE '\\' AND c.deleted_at IS NULL AND f.uid IS NULL LIMIT :many"
)
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
    """An open change, and its writes (with the uid they left)."""

    change_id: str
    committed_at: float
    steps: list[bool]
    stored: str
    writes: Sequence[dict[str, Any]]


def open_changes(session: Session, after: tuple[float, str], most: int) -> list[OpenSteps]:
    """Open changes in the order of their commit, after one of them."""
    found = rows(session, OPEN, after=after[0], last=after[1], many=most)
    return [
        OpenSteps(it["change_id"], it["committed_at"], orjson.loads(it["steps"]), it["steps"], orjson.loads(it["undo"]))
        for it in found
    ]


def look(session: Session, key: Key, uid: str | None = None) -> list[Work]:
    """What is to be done for a name, nothing when all is as declared; `uid` is a fleet that may be gone."""
    kind, namespace, name = key
    known = read_known(session, [key]).get(key) or Known(kind, namespace, name)
    if kind == "Agent":
        return _agent(session, known)
    if kind == "Channel":
        return _channel(session, known)
    if kind == "Fleet":
        return _fleet(session, known, uid)
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
    return [Work("retain", known.uid, known)] if there["retention_s"] != known.spec["retention_s"] else []


def _fleet(session: Session, known: Known, uid: str | None) -> list[Work]:
    work = []
    if known.uid is not None:
        work.append(Work("scale", known.uid, known, piece_of(session, known.uid, known, known.spec["replicas"])))
    if uid is not None and uid != known.uid:
        work.append(Work("scale", uid, known, piece_of(session, uid, known, 0)))
    return [it for it in work if it.piece is not None and not it.piece.settled]


def watching(session: Session, channel: Known) -> list[tuple[str, dict[str, Any]]]:
    """Agents whose spec watches the channel, by uid."""
    query = text(
        "SELECT r.* FROM resource r JOIN agent a ON a.uid = r.uid"
        " WHERE r.kind = 'Agent' AND r.namespace = :namespace AND r.deleted_at IS NULL AND r.spec LIKE :text"
    )
    found = rows(session, query, namespace=channel.namespace, text=f'%"channel":"{channel.name}"%')
    known = [known_of(ResourceRow(**row)) for row in found]
    return [(it.uid or "", it.spec) for it in known]


def watched(session: Session, agent: Known) -> list[str]:
    """The uids of channels that the agent's spec watches from the beginning."""
    names = [it["channel"] for it in agent.spec["watches"] if it["start"] == "beginning"]
    return [it["uid"] for it in rows(session, CHANNELS_NAMED, namespace=agent.namespace, names=names)]


def behind(session: Session) -> list[tuple[Key, str | None]]:
    """Names, whatever change they belong to, where what is there is not what is declared; at most some of each."""
    kinds: tuple[tuple[Kind, Any], ...] = (
        ("Channel", CHANNELS_LEFT),
        ("Channel", CHANNELS_BEHIND),
        ("Agent", AGENTS_LEFT),
        ("Agent", AGENTS_BEHIND),
    )
    found: list[tuple[Key, str | None]] = []
    for kind, query in kinds:
        found += [((kind, it["namespace"], it["name"]), None) for it in rows(session, query, many=AT_ONCE)]
    found += [(("Fleet", it["namespace"], it["name"]), None) for it in rows(session, FLEETS)]
    for it in rows(session, ORPHANS, many=AT_ONCE):
        found.append((_fleet_key(session, it["owner"]), it["owner"]))
    return found


def _fleet_key(session: Session, uid: str) -> Key:
    """The name of a fleet that is gone: its agents still say where it was."""
    query = text("SELECT namespace, name FROM resource WHERE owner = :uid LIMIT 1")
    child = rows(session, query, uid=uid)[0]
    return "Fleet", child["namespace"], child["name"].rpartition("-")[0]
