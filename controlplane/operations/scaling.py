"""A fleet's agents: which are too many, which are missing, which differ from the template.

The fleet's spec and the places of its agents decide, by an index of place and template: what is as it
shall be is counted, never read. How many are done at once is bounded, and each call says whether more
is left. A piece is one unit: declared agents, their rows and start messages together. An agent of
another that has a name of the fleet's is left alone: the fleet is not ready then, and its condition
tells. Nothing here keeps any state.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

from sqlalchemy import text
from sqlmodel import Session

from controlplane.operations import rollouts
from controlplane.operations.observing import many, rows
from controlplane.operations.planning import Action, Write
from controlplane.operations.recording import Member, put_resource
from controlplane.operations.snapshot import of_fleet, read_known, read_owners
from controlplane.operations.starting import reach_generation, start_agents
from controlplane.operations.world import Key, Known, Spec
from controlplane.store.unit import Unit
from schemas.base import canonical, short_id
from schemas.resource import Kind

AT_ONCE = 200
EXTRA = text(
    "SELECT name, ordinal FROM resource WHERE owner = :uid AND deleted_at IS NULL AND template = :template"
    " AND ordinal >= :replicas LIMIT :many"
)
ANY = text("SELECT name, ordinal FROM resource WHERE owner = :uid AND deleted_at IS NULL LIMIT :many")
BEFORE = text(
    "SELECT name, ordinal FROM resource WHERE owner = :uid AND deleted_at IS NULL AND template < :template LIMIT :many"
)
AFTER = text(
    "SELECT name, ordinal FROM resource WHERE owner = :uid AND deleted_at IS NULL AND template > :template LIMIT :many"
)
TAKEN = text(
    "SELECT COUNT(*) AS many, MAX(ordinal) AS last FROM resource WHERE owner = :uid AND deleted_at IS NULL"
    " AND template = :template AND ordinal >= :first AND ordinal < :replicas"
)
ORDINALS = text(
    "SELECT ordinal FROM resource WHERE owner = :uid AND deleted_at IS NULL AND template = :template"
    " AND ordinal < :replicas"
)
LEFT_UNDER = many(
    "SELECT a.uid, a.name FROM agent a LEFT JOIN resource r ON r.uid = a.uid AND r.deleted_at IS NULL"
    " WHERE a.namespace = :namespace AND a.name IN :names AND r.uid IS NULL",
    "names",
)
LEFT_BEHIND = text(
    "SELECT a.uid, a.name FROM resource r CROSS JOIN agent a WHERE a.uid = r.uid"
    " AND r.owner = :uid AND r.deleted_at IS NOT NULL LIMIT :many"
)


@dataclass(frozen=True)
class Piece:
    """A bounded piece of work on one fleet; `gone` are running sides (uid, name) whose resource is gone.

    `full` says up to where the fleet's places were seen to be taken, for who looks again soon.
    """

    fleet: str
    namespace: str
    name: str
    spec: Spec
    template: str = ""
    create: tuple[Write, ...] = ()
    update: tuple[Write, ...] = ()
    delete: tuple[Write, ...] = ()
    gone: tuple[tuple[str, str], ...] = ()
    blocked: tuple[str, ...] = ()
    more: bool = False
    full: int = 0
    stop: rollouts.Stop | None = None
    generation: int = 0
    kind: Kind = "Fleet"

    @property
    def writes(self) -> tuple[Write, ...]:
        return self.create + self.update + self.delete

    @property
    def settled(self) -> bool:
        return not (self.writes or self.gone or self.blocked or self.more)


def piece_of(session: Session, uid: str, fleet: Known, replicas: int, full: int = 0) -> Piece:
    """The next piece for a fleet of this uid; a deleted fleet has no replicas.

    Places below `full` were taken a moment ago: they are counted again only when all above are taken too.
    """
    template = rollouts.mark(fleet.spec) if replicas else ""
    extra, different = _unwanted(session, uid, template, replicas)
    deletes, rest = extra[:AT_ONCE], AT_ONCE - len(extra[:AT_ONCE])
    rollout = rollouts.rollout(session, uid, fleet, template) if different else None
    updates = different[: rest if rollout is None else min(rest, rollout.room)]
    whole = Places(uid, template, replicas)
    absent, missing, full = (0, [], 0) if different else _missing(session, whole, full, rest)
    creates = [f"{fleet.name}-{ordinal}" for ordinal in missing]
    gone = tuple((row["uid"], row["name"]) for row in rows(session, LEFT_BEHIND, uid=uid, many=AT_ONCE))
    names: list[Key] = [("Agent", fleet.namespace, name) for name in (*deletes, *updates, *creates)]
    known = read_known(session, names)
    at = {key[2]: known.get(key) or Known(*key) for key in names}
    gone += _left_under(session, fleet.namespace, [name for name in creates if at[name].revision])
    orphans, blocked = _in_the_way(session, [at[name] for name in creates])
    taken = set(orphans) | set(blocked)
    return Piece(
        uid,
        fleet.namespace,
        fleet.name,
        fleet.spec["template"]["spec"] if replicas else {"watches": []},
        template=template,
        create=tuple(_create(at[name], fleet) for name in creates if name not in taken),
        update=tuple(_update(at[name], fleet) for name in updates),
        delete=tuple(_delete(at[name]) for name in (*deletes, *orphans)),
        gone=gone,
        blocked=blocked,
        more=len(extra) + len(different) + absent > AT_ONCE or len(gone) == AT_ONCE or len(updates) < len(different),
        full=full,
        stop=None if rollout is None else rollout.stop,
        generation=fleet.generation,
        kind=fleet.kind,
    )


def _unwanted(session: Session, uid: str, template: str, replicas: int) -> tuple[list[str], list[str]]:
    """Some agents beyond the last place, and some that are not made from the template; by the index alone."""
    most = AT_ONCE + 1
    if not replicas:
        return [row["name"] for row in rows(session, ANY, uid=uid, many=most)], []
    beyond = rows(session, EXTRA, uid=uid, template=template, replicas=replicas, many=most)
    others = [it for query in (BEFORE, AFTER) for it in rows(session, query, uid=uid, template=template, many=most)]
    extra = [row["name"] for row in beyond] + [row["name"] for row in others if row["ordinal"] >= replicas]
    return extra, [row["name"] for row in others if row["ordinal"] < replicas]


class Places(NamedTuple):
    """The places of a fleet's agents that are made from its template."""

    uid: str
    template: str
    replicas: int


def _missing(session: Session, places: Places, first: int, most: int) -> tuple[int, list[int], int]:
    """How many places are empty, some of them, and below which all are taken; without gaps nothing is read through."""
    taken = rows(session, TAKEN, **places._asdict(), first=first)[0]
    absent = places.replicas - first - taken["many"]
    if first and absent <= 0:
        return _missing(session, places, 0, most)
    following = first if taken["last"] is None else taken["last"] + 1
    if following == first + taken["many"]:
        return absent, list(range(following, min(places.replicas, following + most))), following
    there = {row["ordinal"] for row in rows(session, ORDINALS, **places._asdict())}
    return absent, list(islice((it for it in range(places.replicas) if it not in there), most)), 0


def _in_the_way(session: Session, names: Sequence[Known]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Live agents under names that are to be created: left by a fleet that is gone, or of another."""
    live = [it for it in names if it.live]
    owners = read_owners(session, {it.owner for it in live if it.owner})
    orphans = tuple(it.name for it in live if of_fleet(it.owner) and it.owner not in owners)
    return orphans, tuple(it.name for it in live if it.name not in orphans)


def _left_under(session: Session, namespace: str, names: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """Running sides under these names whose resource is gone."""
    found = rows(session, LEFT_UNDER, namespace=namespace, names=names) if names else []
    return tuple((row["uid"], row["name"]) for row in found)


def _create(known: Known, fleet: Known) -> Write:
    template = fleet.spec["template"]
    return _write("create", known, known.generation + 1, template)


def _update(known: Known, fleet: Known) -> Write:
    template = fleet.spec["template"]
    moves = canonical(known.spec) != canonical(template["spec"])
    return _write("update", known, known.generation + moves, template)


def _delete(known: Known) -> Write:
    return _write("delete", known, known.generation, {"labels": {}, "spec": {}})


def _write(action: Action, known: Known, generation: int, template: Spec) -> Write:
    return Write(
        action=action,
        kind="Agent",
        namespace=known.namespace,
        name=known.name,
        uid=known.uid,
        base_generation=known.generation,
        base_revision=known.revision,
        generation=generation,
        labels=template["labels"],
        spec=template["spec"],
        before_labels=known.labels if known.live else {},
        before_spec=known.spec if known.live else None,
    )


def unit_of(piece: Piece, now: float) -> tuple[Unit, list[str]]:
    """The unit of a piece, and the agents that it gives a start message."""
    unit = Unit()
    born: list[tuple[str, Known]] = []
    moved: list[tuple[str, Known]] = []
    for write in piece.writes:
        uid = write.uid or short_id("agent", piece.fleet, write.name, write.generation)
        put_resource(unit, write, uid, now, Member(piece.fleet, int(write.name.rpartition("-")[2]), piece.template))
        after = Known("Agent", write.namespace, write.name, uid, write.generation, spec=write.spec)
        if write.action == "create":
            born.append((uid, after))
        elif write.action == "update" and write.generation != write.base_generation:
            moved.append((uid, after))
    start_agents(unit, born, now)
    reach_generation(unit, moved, now)
    if piece.stop is not None and not piece.stop.told:
        rollouts.tell(
            unit, rollouts.Address(piece.fleet, piece.namespace, piece.name, piece.generation), piece.stop, now
        )
    if piece.template == "":
        rollouts.forget(unit, piece.fleet)
    if piece.writes:
        unit.event(
            f"{piece.kind.lower()}.scaled",
            kind=piece.kind,
            namespace=piece.namespace,
            name=piece.name,
            now=now,
            data={"created": len(piece.create), "updated": len(piece.update), "deleted": len(piece.delete)},
        )
    return unit, [uid for uid, _ in (*born, *moved)]
