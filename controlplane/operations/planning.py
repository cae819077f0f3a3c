"""Planning: decisions and a snapshot become a plan, sealed by its digests.

The same decisions on the same snapshot are the same plan, to the byte, but for the times on it: its
id is a digest of principal, namespace, decisions and read set (rules O1, O2). The read set holds
every name that decided something: what is written, channels that are watched, fleets that a name
could belong to. Each write also carries the revision it goes on from, so that nobody's labels are
lost either. Steps come in the order in which things rest on each other. Pure.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from controlplane.mesh.making import SPEC
from controlplane.operations.prediction import claims, probe
from controlplane.operations.routing import keys_read
from controlplane.operations.watches import channels_of
from controlplane.operations.world import Key, Known, Spec, Wanted, World, fleet_of
from schemas.base import canonical, digest, short_id
from schemas.plan import FieldChange, Plan, PlanNote, ReadEntry, Step, Undo, Wait
from schemas.resource import Kind, Ref

_ORDER = {"Budget": 0, "Secret": 0, "Connection": 1, "Channel": 2, "Agent": 3, "Fleet": 4, "Route": 5}
SET = {"set": True}
Path = tuple[str, ...]
Action = Literal["create", "update", "delete"]


@dataclass(frozen=True)
class Write:
    """What a commit writes for one step, and what it replaces (`before` is None for a new name)."""

    action: Action
    kind: Kind
    namespace: str
    name: str
    uid: str | None
    base_generation: int
    base_revision: int
    generation: int
    labels: Mapping[str, str]
    spec: Spec
    before_labels: Mapping[str, str]
    before_spec: Spec | None


@dataclass(frozen=True)
class Planned:
    """A plan, and what belongs to it that is never shown."""

    plan: Plan
    wanted: tuple[Wanted, ...]
    writes: tuple[Write, ...]
    members: tuple[dict[str, Any], ...]
    code: Mapping[str, Mapping[str, str]]


def make_plan(
    principal: str,
    wanted: Sequence[Wanted],
    code: Mapping[str, Mapping[str, str]],
    world: World,
    now: float,
    ttl_s: float,
    reverts: str | None = None,
    notes: Sequence[PlanNote] = (),
) -> Planned:
    """The plan of checked decisions, and of what they imply."""
    wanted = [*(it for it in wanted if not it.implied), *_first_used(wanted, world)]
    writes = _writes(wanted, world)
    steps = [_step(index, write) for index, write in enumerate(writes)]
    read_set = [_entry(world.at(*key)) for key in reads(wanted)]
    members = tuple(asdict(it) for it in world.members)
    decisions = {
        "wanted": [_decision(it) for it in wanted],
        "revisions": [write.base_revision for write in writes],
        "members": members,
        "reverts": reverts,
    }
    namespace = ",".join(sorted({it.namespace for it in wanted}))
    claimed = claims(wanted, world)
    sealed = digest([principal, namespace, decisions, [it.model_dump(mode="json") for it in read_set]])
    plan = Plan(
        plan_id=short_id("plan", sealed),
        principal=principal,
        namespace=namespace,
        as_of=datetime.fromtimestamp(now, UTC),
        expires_at=datetime.fromtimestamp(now + ttl_s, UTC),
        digest=sealed,
        claims_digest=digest([it.model_dump(mode="json") for it in claimed]),
        read_set=read_set,
        steps=steps,
        claims=claimed,
        waits_on=list(_waits(wanted, world)),
        reverts=reverts,
        notes=list(notes),
    )
    needed = {it.agent_spec["code"]["digest"] for it in wanted if it.agent_spec is not None}
    return Planned(plan, tuple(wanted), writes, members, {key: code[key] for key in sorted(needed & code.keys())})


def _first_used(wanted: Sequence[Wanted], world: World) -> Iterator[Wanted]:
    """Channels that are watched, and are neither there nor wanted: a watch is a first use."""
    named = {it.key for it in wanted if not it.implied}
    for key in reads([it for it in wanted if not it.implied]):
        if key[0] == "Channel" and key not in named and not world.at(*key).live:
            kind, namespace, name = key
            yield Wanted("apply", kind, namespace, name, spec=SPEC.model_dump(mode="json"), implied=True)


def reads(wanted: Sequence[Wanted]) -> list[Any]:
    """Every name that the decisions rest on: what is wanted first, in its order."""
    keys: dict[Key, None] = {it.key: None for it in wanted}
    others: set[Key] = set()
    for it in wanted:
        if (spec := it.agent_spec) is not None:
            others |= {("Channel", it.namespace, watch["channel"]) for watch in channels_of(spec["watches"])}
        if it.kind == "Route" and it.action == "apply":
            others |= keys_read(it)
        if it.kind == "Connection" and it.action == "apply" and it.spec["secret"] is not None:
            others.add(("Secret", it.namespace, it.spec["secret"]["name"]))
        if it.kind == "Agent" and (place := fleet_of(it.name)) is not None:
            others.add(("Fleet", it.namespace, place[0]))
    return [*keys, *sorted(others - keys.keys())]


def _decision(it: Wanted) -> dict[str, Any]:
    return {
        "action": it.action,
        "kind": it.kind,
        "namespace": it.namespace,
        "name": it.name,
        "labels": dict(it.labels),
        "spec": it.spec,
    }


def _entry(known: Known) -> ReadEntry:
    return ReadEntry(
        kind=known.kind, namespace=known.namespace, name=known.name, uid=known.uid, generation=known.generation
    )


def _writes(wanted: Sequence[Wanted], world: World) -> tuple[Write, ...]:
    ordered = sorted(wanted, key=lambda it: (it.action == "delete", _ORDER[it.kind]))
    found = (_write(it, world.at(it.kind, it.namespace, it.name)) for it in ordered)
    return tuple(write for write in found if write is not None)


def _write(it: Wanted, current: Known) -> Write | None:
    """What must be written so that the decision is so; None when it is."""
    spec = _resolved(it, current)
    labels = dict(it.labels)
    same_spec = current.live and canonical(spec) == canonical(current.spec)
    action: Action
    if it.action == "delete" and not current.live:
        return None
    if it.action == "delete":
        action, generation = "delete", current.generation
    elif not current.live:
        action, generation = "create", current.generation + 1
    elif same_spec and labels == dict(current.labels):
        return None
    else:
        action, generation = "update", current.generation + (not same_spec)
    return Write(
        action=action,
        kind=it.kind,
        namespace=it.namespace,
        name=it.name,
        uid=current.uid,
        base_generation=current.generation,
        base_revision=current.revision,
        generation=generation,
        labels=labels,
        spec=spec,
        before_labels=dict(current.labels) if current.live else {},
        before_spec=current.spec if current.live else None,
    )


def _resolved(it: Wanted, current: Known) -> Spec:
    """The spec to be stored: values to be kept become the references that are stored."""
    if it.kind != "Secret" or it.action == "delete":
        return it.spec
    stored = current.spec.get("values", {})
    return {"values": {key: stored[key] if "kept" in value else value for key, value in it.spec["values"].items()}}


def _step(index: int, write: Write) -> Step:
    target = Ref(kind=write.kind, namespace=write.namespace, name=write.name)
    shown = Wanted(write.action, target.kind, write.namespace, write.name)
    return Step(
        index=index,
        action=write.action,
        target=target,
        changes=list(_changes(write)),
        undo=_undo(write),
        probe=probe(shown),
    )


def _undo(write: Write) -> Undo:
    """Declared fields come back exactly; states, messages and inboxes that go with an agent or a channel do not."""
    if write.action == "delete":
        return "exact" if write.kind in ("Secret", "Connection", "Budget") else "compensate"
    fewer = write.kind == "Fleet" and write.before_spec and write.spec["replicas"] < write.before_spec["replicas"]
    return "compensate" if fewer else "exact"


def _changes(write: Write) -> Iterator[FieldChange]:
    if write.action == "create":
        yield FieldChange(path="/spec", before=None, after=masked(write.kind, write.spec))
        if write.labels:
            yield FieldChange(path="/metadata/labels", before=None, after=dict(write.labels))
    elif write.action == "delete":
        yield FieldChange(path="", before={"spec": masked(write.kind, write.before_spec)}, after=None)
    else:
        for root, before, after in (
            (("spec",), write.before_spec, write.spec),
            (("metadata", "labels"), write.before_labels, write.labels),
        ):
            for path, old, new in differences(before, after, root):
                yield FieldChange(path=_pointer(path), before=masked(write.kind, old), after=masked(write.kind, new))


class Missing:
    """Stands for a field that is not there, which is not the same as null."""


MISSING = Missing()


def differences(before: Any, after: Any, path: Path = ()) -> Iterator[tuple[Path, Any, Any]]:
    """The smallest fields that differ; lists are one field."""
    if isinstance(before, Mapping) and isinstance(after, Mapping) and not _is_reference(before):
        for key in sorted({*before, *after}):
            yield from differences(before.get(key, MISSING), after.get(key, MISSING), (*path, key))
    elif before is MISSING or after is MISSING or canonical(before) != canonical(after):
        yield path, before, after


def _is_reference(value: Mapping[str, Any]) -> bool:
    return value.keys() == {"ref", "mac"}


def masked(kind: str, value: Any) -> Any:
    """A value as a plan may show it: of a secret, that it is set."""
    if value is MISSING:
        return None
    if kind == "Secret" and isinstance(value, Mapping):
        return dict(SET) if _is_reference(value) else {key: masked(kind, inner) for key, inner in value.items()}
    return value


def _pointer(path: Path) -> str:
    return "".join("/" + part.replace("~", "~0").replace("/", "~1") for part in path)


def _waits(wanted: Sequence[Wanted], world: World) -> Iterator[Wait]:
    """What connections and routes name, and is neither there nor wanted; channels are made by their first use."""
    made = {it.key for it in wanted}
    for key in reads(wanted):
        if key[0] in ("Secret", "Connection", "Agent") and key not in made and not world.at(*key).live:
            ref, word = world.at(*key).ref, key[0].lower()
            message = f"{word} {ref.namespace}/{ref.name} is not there"
            yield Wait(reason=f"{word.upper()}_ABSENT", message=message, subject=ref)


def moved(entries: Sequence[ReadEntry], world: World) -> list[tuple[ReadEntry, int]]:
    """What of a read set is no longer as it was, with the generation it has now."""
    found = []
    for entry in entries:
        current = world.at(entry.kind, entry.namespace, entry.name)
        if (current.uid, current.generation) != (entry.uid, entry.generation):
            found.append((entry, current.generation))
    return found
