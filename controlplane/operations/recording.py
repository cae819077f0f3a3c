"""The unit of a commit: everything that a plan decided, and that it was decided, in one transaction.

Every statement that rests on the read set says so in its condition, with the count of rows that it
must touch. If anything moved since the plan was made, nothing at all is written. Each record comes
with the event that speaks of it. Pure: what is written depends on the arguments alone.
"""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import orjson

from controlplane.mesh.membership import leaving
from controlplane.mesh.traits import put_traits, traits_of
from controlplane.operations.planning import Write
from controlplane.operations.proposing import Kept
from controlplane.operations.watches import channels_of
from controlplane.operations.world import Key, Spec
from controlplane.store import offers
from controlplane.store.packed import pack
from controlplane.store.unit import Unit
from schemas.base import canonical, short_id
from schemas.plan import Claim, OnMiss, ReadEntry
from schemas.resource import Target

RETIRED_S = 30 * 86_400.0  # how long a value that was replaced is kept, so that a revert can bring it back
_EVENTS = {"create": "resource.created", "update": "resource.updated", "delete": "resource.deleted"}

ONCE = "UPDATE plan SET change_id = ?, decisions = ? WHERE plan_id = ? AND change_id IS NULL AND expires_at > ?"
AS_READ = """UPDATE plan SET plan_id = plan_id WHERE plan_id = ? AND EXISTS (SELECT 1 FROM resource
WHERE kind = ? AND namespace = ? AND name = ? AND uid = ? AND generation = ? AND deleted_at IS NULL)"""
ABSENT = """UPDATE plan SET plan_id = plan_id WHERE plan_id = ? AND NOT EXISTS (SELECT 1 FROM resource
WHERE kind = ? AND namespace = ? AND name = ? AND (deleted_at IS NULL OR generation <> ?))"""
CREATE = """INSERT INTO resource
(kind, namespace, name, uid, labels, spec, revision, generation, created_at, updated_at, owner, ordinal, template)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (kind, namespace, name) DO NOTHING"""
REVIVE = """UPDATE resource SET uid = ?, labels = ?, spec = ?, revision = ?, generation = ?, created_at = ?,
updated_at = ?, owner = ?, ordinal = ?, template = ?, deleted_at = NULL
WHERE kind = ? AND namespace = ? AND name = ? AND deleted_at IS NOT NULL AND generation = ? AND revision = ?"""
UPDATE = """UPDATE resource SET labels = ?, spec = ?, revision = ?, generation = ?, updated_at = ?, template = ?
WHERE kind = ? AND namespace = ? AND name = ? AND deleted_at IS NULL AND uid = ? AND generation = ? AND revision = ?"""
DELETE = """UPDATE resource SET deleted_at = ?, revision = ?, updated_at = ?
WHERE kind = ? AND namespace = ? AND name = ? AND deleted_at IS NULL AND uid = ? AND generation = ? AND revision = ?"""
UNLABEL = "DELETE FROM label WHERE kind = ? AND namespace = ? AND name = ? AND key = ? AND value = ?"
LABEL = "INSERT INTO label (kind, namespace, name, key, value) VALUES (?, ?, ?, ?, ?)"
CODE = "INSERT INTO code (digest, files, bytes, created_at) VALUES (?, ?, ?, ?) ON CONFLICT (digest) DO NOTHING"
REACH = """INSERT INTO code_reach (digest, namespace) VALUES (?, ?) ON CONFLICT (digest, namespace) DO NOTHING"""
NOTHING = pack("")  # what is decided no more: it is done, and kept with the change
BIND = "UPDATE secret_value SET bound_to = ?, expires_at = NULL WHERE ref = ?"
RETIRE = "UPDATE secret_value SET expires_at = ? WHERE ref = ? AND expires_at IS NULL"
CHANGE = """INSERT INTO change (change_id, plan_id, principal, namespace, on_miss, committed_at, steps, undo, reverts,
operation, batch) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"""
TARGET = "INSERT INTO change_target (change_id, kind, namespace, name, generation) VALUES (?, ?, ?, ?, ?)"
CLAIM = "INSERT INTO claim (change_id, claim_id, body, due_at, binding) VALUES (?, ?, ?, ?, ?)"
VERDICT = """UPDATE claim SET verdict = ?, observed = ?, verified_at = ?
WHERE change_id = ? AND claim_id = ? AND verdict IS NULL"""
SUPERSEDE = "UPDATE change SET superseded_by = ?, done_at = ? WHERE change_id = ? AND done_at IS NULL"
DONE = "UPDATE change SET done_at = ? WHERE change_id = ? AND done_at IS NULL"
REVERTED = "UPDATE change SET reverted_by = ? WHERE change_id = ?"


class Member(NamedTuple):
    """What a fleet's agent belongs to: the fleet's uid, its place in it, the mark of the template it is made from."""

    owner: str | None
    ordinal: int | None
    template: str | None


SINGLE = Member(None, None, None)


@dataclass(frozen=True)
class OpenChange:
    """A change that is not done, with its claims that have no verdict."""

    change_id: str
    subject: Target
    claims: tuple[Claim, ...]


@dataclass(frozen=True)
class Commit:
    """Who commits what, when."""

    kept: Kept
    principal: str
    on_miss: OnMiss
    now: float

    @property
    def change_id(self) -> str:
        return short_id("chg", self.kept.plan.plan_id)

    def uid(self, write: Write) -> str:
        """The uid after the write; a new name gets one that no other commit makes."""
        if write.uid is not None:
            return write.uid
        return short_id(write.kind.lower(), self.kept.plan.plan_id, write.namespace, write.name)


def commit_unit(commit: Commit, ended: Iterable[OpenChange]) -> Unit:
    """The compare-and-set of a plan; `ended` are the older changes that it supersedes."""
    plan = commit.kept.plan
    unit = Unit().raw(ONCE, [commit.change_id, NOTHING, plan.plan_id, commit.now], expect=1)
    _require_read_set(unit, plan.plan_id, plan.read_set, commit.kept.writes)
    for digest, files in commit.kept.code.items():
        size = sum(len(text.encode()) for text in files.values())
        unit.raw(CODE, [digest, canonical(files).decode(), size, commit.now])
    for digest, namespace in sorted({(it.code, it.namespace) for it in commit.kept.wanted if it.code is not None}):
        unit.raw(REACH, [digest, namespace])
    for write in commit.kept.writes:
        _write(unit, commit, write)
    _record(unit, commit)
    for change in ended:
        end_change(unit, change, commit.change_id, plan.reverts, commit.now)
    if plan.reverts is not None:
        unit.raw(REVERTED, [commit.change_id, plan.reverts], expect=1)
        for subject in _subjects(commit):
            data = {"reverted_by": commit.change_id}
            tell(unit, "change.reverted", subject, plan.reverts, commit.now, data, commit.principal)
    return unit


def _require_read_set(unit: Unit, plan_id: str, read_set: Sequence[ReadEntry], writes: Sequence[Write]) -> None:
    """What is read and not written must still be as it was; writes say it themselves."""
    written = {(it.kind, it.namespace, it.name) for it in writes}
    for it in read_set:
        if (it.kind, it.namespace, it.name) in written:
            continue
        if it.uid is None:
            unit.raw(ABSENT, [plan_id, it.kind, it.namespace, it.name, it.generation], expect=1)
        else:
            unit.raw(AS_READ, [plan_id, it.kind, it.namespace, it.name, it.uid, it.generation], expect=1)


def _write(unit: Unit, commit: Commit, write: Write) -> None:
    uid = commit.uid(write)
    put_resource(unit, write, uid, commit.now)
    if write.kind == "Secret":
        _bind(unit, write, uid, commit.now)
    unit.event(
        _EVENTS[write.action],
        kind=write.kind,
        namespace=write.namespace,
        name=write.name,
        now=commit.now,
        principal=commit.principal,
        change_id=commit.change_id,
        data={"generation": write.generation, "revision": write.base_revision + 1, "uid": uid},
    )


def put_resource(unit: Unit, write: Write, uid: str, now: float, member: Member = SINGLE) -> None:
    """The statements that bring one resource and its labels from what was read to what is wanted."""
    key = [write.kind, write.namespace, write.name]
    labels, spec = canonical(dict(write.labels)).decode(), canonical(write.spec).decode()
    base, revision = [write.base_generation, write.base_revision], write.base_revision + 1
    if write.action == "delete":
        unit.raw(DELETE, [now, revision, now, *key, write.uid, *base], expect=1)
    elif write.action == "update":
        after = (labels, spec, revision, write.generation, now, member.template)
        unit.raw(UPDATE, [*after, *key, write.uid, *base], expect=1)
    elif write.base_revision:  # a tombstone keeps the generation of the name
        unit.raw(REVIVE, [uid, labels, spec, revision, write.generation, now, now, *member, *key, *base], expect=1)
    else:
        unit.raw(CREATE, [*key, uid, labels, spec, revision, write.generation, now, now, *member], expect=1)
    if write.kind == "Agent" and write.action == "update" and write.before_spec is not None:
        for channel in _channels(write.before_spec) - _channels(write.spec):
            unit.rows(leaving(uid, write.namespace, channel, now))
    if write.kind == "Agent":
        kept = None if write.action == "delete" else write.spec
        put_traits(unit, write.namespace, write.name, traits_of(write.before_spec), traits_of(kept))
    if write.kind == "Connection" and write.action == "delete":
        unit.raw(offers.FORGET, [uid])
    before = {} if write.action == "create" else dict(write.before_labels)
    if before != dict(write.labels):
        for label, value in before.items():
            unit.raw(UNLABEL, [*key, label, value])
        for label, value in write.labels.items():
            unit.raw(LABEL, [*key, label, value], expect=1)


def _channels(spec: Spec) -> set[str]:
    return {watch["channel"] for watch in channels_of(spec["watches"])}


def _bind(unit: Unit, write: Write, uid: str, now: float) -> None:
    """Values that are in use stay; values that are not can still be brought back for a while."""
    before = {it["ref"] for it in (write.before_spec or {}).get("values", {}).values()}
    after = {it["ref"] for it in write.spec.get("values", {}).values()}
    for ref in sorted(after):
        unit.raw(BIND, [uid, ref], expect=1)
    for ref in sorted(before - after):
        unit.raw(RETIRE, [now + RETIRED_S, ref])


def _record(unit: Unit, commit: Commit) -> None:
    """The change, its targets, its claims."""
    plan, change_id = commit.kept.plan, commit.change_id
    undo = [{**asdict(write), "uid": commit.uid(write)} for write in commit.kept.writes]
    steps = orjson.dumps([False] * len(plan.steps)).decode()
    written: dict[Key, int] = {(it.kind, it.namespace, it.name): it.generation for it in commit.kept.writes}
    unit.raw(
        CHANGE,
        [
            change_id,
            plan.plan_id,
            commit.principal,
            plan.namespace,
            commit.on_miss,
            commit.now,
            steps,
            pack(orjson.dumps(undo).decode()),
            plan.reverts,
            None,
            None,
        ],
        expect=1,
    )
    read: dict[Key, int] = {(it.kind, it.namespace, it.name): it.generation for it in plan.read_set}
    for it in commit.kept.wanted:
        unit.raw(TARGET, [change_id, *it.key, written.get(it.key, read[it.key])], expect=1)
    for claim in plan.claims:
        due_at = commit.now + claim.verify_within_s
        text = pack(claim.model_dump_json())
        unit.raw(CLAIM, [change_id, claim.claim_id, text, due_at, int(claim.binding)], expect=1)
    for subject in _subjects(commit):
        counts = {
            "plan_id": plan.plan_id,
            "steps": sum(it.target.namespace == subject.namespace for it in plan.steps),
            "claims": sum(it.subject.namespace == subject.namespace for it in plan.claims),
        }
        tell(unit, "change.committed", subject, change_id, commit.now, counts, commit.principal)


def _subjects(commit: Commit) -> list[Target]:
    """Of each namespace of the plan, the first thing it wants there: an event tells of that namespace alone."""
    return list({it.namespace: it.ref for it in reversed(commit.kept.wanted)}.values())


def tell(
    unit: Unit,
    event: str,
    subject: Target,
    change_id: str,
    now: float,
    data: dict[str, Any],
    principal: str | None = None,
) -> None:
    """An event that speaks of a change."""
    unit.event(
        event,
        kind=subject.kind,
        namespace=subject.namespace,
        name=subject.name,
        now=now,
        principal=principal,
        change_id=change_id,
        data=data,
    )


def end_change(unit: Unit, change: OpenChange, by: str, reverts: str | None, now: float) -> None:
    """Older changes of the same targets end; what they claimed can not be verified any more."""
    for claim in change.claims:
        judge(unit, change.change_id, claim, "unverifiable", None, now)
    if change.change_id == reverts and not change.claims:  # every claim has its verdict: that stands
        unit.raw(DONE, [now, change.change_id], expect=1)
        tell(unit, "change.done", change.subject, change.change_id, now, {})
    else:
        unit.raw(SUPERSEDE, [by, now, change.change_id], expect=1)
        tell(unit, "change.superseded", change.subject, change.change_id, now, {"superseded_by": by})


def judge(unit: Unit, change_id: str, claim: Claim, verdict: str, observed: Any, now: float) -> None:
    """The one verdict of a claim, and its event."""
    text = orjson.dumps(observed).decode()
    unit.raw(VERDICT, [verdict, text, now, change_id, claim.claim_id], expect=1)
    data = {
        "claim_id": claim.claim_id,
        "verdict": verdict,
        "measure": claim.measure,
        "expected": claim.expected.value,
        "observed": observed,
    }
    tell(unit, "claim.verified", claim.subject, change_id, now, data)
