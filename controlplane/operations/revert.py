"""The way back: a plan that restores what a change wrote, field by field (rule O5).

A field that stands as the change left it gets back what it was before; one that is back already is
left alone; one that somebody moved since makes the revert STALE_REVERT, with every such field named.
What the change did not write is not touched, and neither are agents' states, messages or facts.
What was created is deleted, what was deleted is created again; a secret gets back its old values by
their references, while they are kept. The result is a plan like any other, with its own claims.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
from sqlmodel import Session, col, select

from controlplane.operations.admission import Admitted
from controlplane.operations.planning import MISSING, Path, Write, differences
from controlplane.operations.proposing import Proposer
from controlplane.operations.snapshot import read_known
from controlplane.operations.visibility import absent_change, within
from controlplane.operations.world import Key, Known, Spec, Wanted
from controlplane.resources.problems import refuse
from controlplane.store.tables import ChangeRow, SecretValueRow
from schemas.base import canonical
from schemas.plan import Plan
from schemas.principal import Principal
from schemas.problem import Next, Refusal


@dataclass(frozen=True)
class Undo:
    """One write of a change, and what is there now."""

    write: Write
    uid: str
    current: Known


@dataclass(frozen=True)
class Reverting:
    """Proposes to take changes back."""

    proposer: Proposer

    async def propose(self, principal: Principal, change_id: str, now: float) -> Plan:
        """The plan that takes the change back; raises STALE_REVERT or NOT_REVERTIBLE."""

        undo = await self.proposer.store.read(lambda session: read_undo(session, change_id, principal))
        if undo is None:
            raise absent_change(change_id)
        if not undo:
            raise _refused("NOT_REVERTIBLE", f"change {change_id} wrote nothing", change_id)
        wanted, moved = take_back(undo)
        if moved:
            detail = f"what change {change_id} wrote was changed again: {', '.join(moved[:5])}"
            raise _refused("STALE_REVERT", detail, change_id, moved=moved)
        await self._require_values(wanted, change_id)
        return await self.proposer.propose(principal.name, Admitted(tuple(wanted)), now, reverts=change_id)

    async def _require_values(self, wanted: Sequence[Wanted], change_id: str) -> None:
        """Old values of secrets must still be kept."""
        refs = {it["ref"] for one in wanted if one.kind == "Secret" for it in one.spec.get("values", {}).values()}
        kept = await self.proposer.store.read(lambda session: _stored(session, refs))
        if refs - kept:
            raise _refused("NOT_REVERTIBLE", f"the values that change {change_id} replaced are gone", change_id)


def read_undo(session: Session, change_id: str, principal: Principal) -> list[Undo] | None:
    """A change's writes beside what is there now; None when the principal sees no such change."""
    seen = within(principal, col(ChangeRow.namespace))
    row = session.exec(select(ChangeRow).where(ChangeRow.change_id == change_id, *seen)).first()
    if row is None:
        return None
    if row.operation is not None:
        detail = f"change {change_id} was made by {row.operation}: what moved is moved again by another call"
        raise _refused("NOT_REVERTIBLE", detail, change_id, operation=row.operation)
    writes = [(it.pop("uid"), it) for it in orjson.loads(row.undo)]
    keys: list[Key] = [(it["kind"], it["namespace"], it["name"]) for _, it in writes]
    known = read_known(session, keys)
    return [Undo(Write(uid=uid, **it), uid, known[key]) for key, (uid, it) in zip(keys, writes, strict=True)]


def _stored(session: Session, refs: set[str]) -> set[str]:
    if not refs:
        return set()
    return set(session.exec(select(SecretValueRow.ref).where(col(SecretValueRow.ref).in_(refs))))


def take_back(undo: Sequence[Undo]) -> tuple[list[Wanted], list[str]]:
    """The decisions that restore what was, and the fields that stand in the way."""
    wanted: list[Wanted] = []
    moved: list[str] = []
    for it in undo:
        found, fields = _BACK[it.write.action](it)
        about = f"{it.write.kind} {it.write.namespace}/{it.write.name}"
        moved += [f"{about} {field}".rstrip() for field in fields]
        wanted += [found] if found is not None else []
    return wanted, moved


Back = tuple[Wanted | None, list[str]]


def _created(it: Undo) -> Back:
    """Delete it, if it is as it was created, or is gone already."""
    write, current = it.write, it.current
    same = canonical(current.spec) == canonical(write.spec) and dict(current.labels) == dict(write.labels)
    if current.live and (current.uid != it.uid or not same):
        return None, [""]
    return Wanted("delete", write.kind, write.namespace, write.name, must_exist=False), []


def _deleted(it: Undo) -> Back:
    """Create it again, if nobody has."""
    write, current = it.write, it.current
    if current.live or current.generation != write.generation:
        return None, [""]
    spec = write.before_spec or {}
    return Wanted("apply", write.kind, write.namespace, write.name, write.before_labels, spec), []


def _updated(it: Undo) -> Back:
    """The current resource with the written fields as they were."""
    write, current = it.write, it.current
    if current.uid != it.uid:
        return None, [""]
    spec, moved = _restored(current.spec, write.before_spec or {}, write.spec, ("spec",))
    labels, more = _restored(current.labels, write.before_labels, write.labels, ("metadata", "labels"))
    return Wanted("apply", write.kind, write.namespace, write.name, labels, spec), moved + more


_BACK = {"create": _created, "delete": _deleted, "update": _updated}


def _restored(current: Mapping[str, Any], before: Any, after: Any, root: Path) -> tuple[Spec, list[str]]:
    """A copy of what is there with every field that the change wrote set back, and the fields moved since."""
    restored = orjson.loads(canonical(dict(current)))
    moved: list[str] = []
    for path, old, new in differences(before, after):
        now = _get(restored, path)
        if _same(now, new):
            _put(restored, path, old)
        elif not _same(now, old):
            moved.append("/" + "/".join((*root, *path)))
    return restored, moved


def _same(one: Any, other: Any) -> bool:
    if one is MISSING or other is MISSING:
        return one is other
    return canonical(one) == canonical(other)


def _get(value: Any, path: Path) -> Any:
    for part in path:
        if not isinstance(value, Mapping) or part not in value:
            return MISSING
        value = value[part]
    return value


def _put(value: Any, path: Path, new: Any) -> None:
    """Only called where `_get` found the field as the change left it, so its parents are there."""
    for part in path[:-1]:
        value = value[part]
    if new is MISSING:
        value.pop(path[-1], None)
    else:
        value[path[-1]] = new


def _refused(reason: str, detail: str, change_id: str, **metadata: Any) -> Refusal:
    step = Next(operation="changes.get", arguments={"change_id": change_id}, why="shows the change")
    return refuse(reason, detail, field="/change_id", next=[step], change_id=change_id, **metadata)
