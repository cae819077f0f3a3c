"""Who fits what is asked for exactly: queries by the keys of labels and traits, never over all agents.

A query starts from the rarest kind of thing that is asked for (a meaning, a capability, a label), whose key
is in the order of names; what else is asked for is looked up for each. Whoever asks sees some namespaces;
that is a condition of each query, before anything is compared or counted (rule G13).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import orjson
from sqlalchemy import ColumnElement, and_, exists, tuple_
from sqlalchemy import select as core_select
from sqlalchemy.orm import aliased
from sqlmodel import Session, col, select

from controlplane.mesh.traits import CAPABILITY, MEANING
from controlplane.store.tables import AgentRow, LabelRow, MeaningRow, ResourceRow, TraitRow
from schemas.capability import Capability
from schemas.discovery import FoundAgent

AT_ONCE = 400
AFTER_NAMES = "~"  # after every name that begins the same


class Key(NamedTuple):
    """Whom a name is of: an agent here, or one elsewhere that is known by it."""

    namespace: str
    name: str
    elsewhere: bool = False


class Mark(NamedTuple):
    """A text that agents of a namespace mean."""

    namespace: str
    value: str


@dataclass(frozen=True)
class Asked:
    """What must be so; `namespaces` are those that may be seen, None: all."""

    namespaces: tuple[str, ...] | None = None
    name: str | None = None
    labels: dict[str, str] = field(default_factory=dict)
    capability: str | None = None


class Row(NamedTuple):
    """A live agent."""

    namespace: str
    name: str
    labels: str
    spec: str
    owner: str | None
    stopped: int | None


def names(session: Session, asked: Asked, limit: int, mark: Mark | None = None) -> list[Key]:
    """Names of those who fit, in their order; with `mark`, of those who mean that."""
    first, conditions = _from(asked, mark)
    query: Any = core_select(first.namespace, first.name).where(*conditions)
    ordered = query.order_by(first.namespace, first.name).limit(limit)
    return [Key(*row) for row in session.connection().execute(ordered)]


def marks(session: Session, asked: Asked, limit: int) -> list[Mark]:
    """The different texts that the agents of these namespaces mean, whatever else is asked for."""
    query: Any = core_select(col(TraitRow.namespace), col(TraitRow.value)).where(col(TraitRow.kind) == MEANING)
    if asked.namespaces is not None:
        query = query.where(col(TraitRow.namespace).in_(asked.namespaces))
    return [Mark(*row) for row in session.connection().execute(query.distinct().limit(limit))]


def vectors(session: Session, found: Sequence[Mark]) -> dict[Mark, bytes]:
    """Those that are known by now."""
    known: dict[Mark, bytes] = {}
    for some in batched(found):
        query = select(MeaningRow).where(tuple_(col(MeaningRow.namespace), col(MeaningRow.mark)).in_(some))
        known |= {Mark(row.namespace, row.mark): bytes(row.vector) for row in session.exec(query)}
    return known


def one_of(session: Session, mark: Mark) -> str | None:
    """The spec of one agent that means this."""
    found = rows(session, names(session, Asked((mark.namespace,)), 1, mark))
    return found[0].spec if found else None


def rows(session: Session, keys: Sequence[Key]) -> list[Row]:
    """The agents of these names that live, in their order."""
    shown = (col(it) for it in (ResourceRow.namespace, ResourceRow.name, ResourceRow.labels, ResourceRow.spec))
    query: Any = (
        core_select(*shown, col(AgentRow.owner), col(AgentRow.stopped))
        .join(AgentRow, col(AgentRow.uid) == col(ResourceRow.uid), isouter=True)
        .where(col(ResourceRow.kind) == "Agent", col(ResourceRow.deleted_at).is_(None))
    )
    named = tuple_(col(ResourceRow.namespace), col(ResourceRow.name))
    found: dict[Key, Row] = {}
    for some in batched(keys):
        answered = session.connection().execute(query.where(named.in_(some)))
        found |= {Key(row[0], row[1]): Row(*row) for row in answered}
    return [found[key] for key in keys if key in found]


def view(row: Row, found_by: str, score: float | None) -> FoundAgent:
    """An agent as it is answered."""
    spec = orjson.loads(row.spec)
    found: Any = {"found_by": found_by, "score": score}
    return FoundAgent(
        namespace=row.namespace,
        name=row.name,
        labels=orjson.loads(row.labels),
        purpose=(spec.get("mandate") or {}).get("purpose") or "",
        capabilities=[
            Capability(name=it) if isinstance(it, str) else Capability(**it) for it in spec.get("capabilities") or []
        ],
        state="stopped" if row.stopped else "suspended" if row.owner is None else "awake",
        address=f"{row.namespace}/{row.name}",
        **found,
    )


def batched(keys: Sequence[Key | Mark]) -> Iterator[list[tuple[str, str]]]:
    """Some at a time: a statement takes only so many values."""
    for at in range(0, len(keys), AT_ONCE):
        yield [(it[0], it[1]) for it in keys[at : at + AT_ONCE]]


def _from(asked: Asked, mark: Mark | None) -> tuple[Any, list[ColumnElement[bool]]]:
    """Where a query starts, and what must be so."""
    labels = sorted(asked.labels.items())
    capability = asked.capability
    first: Any
    if mark is not None:
        first, conditions = _trait(MEANING, mark.value)
        conditions.append(first.namespace == mark.namespace)
    elif capability is not None:
        first, conditions = _trait(CAPABILITY, capability)
        capability = None
    elif labels:
        first = aliased(LabelRow)
        key, value = labels.pop(0)
        conditions = [first.kind == "Agent", first.key == key, first.value == value]
    else:
        first = aliased(ResourceRow)
        conditions = [first.kind == "Agent", first.deleted_at.is_(None)]
    if asked.namespaces is not None:
        conditions.append(first.namespace.in_(asked.namespaces))
    if asked.name is not None:
        conditions += [first.name >= asked.name, first.name < asked.name + AFTER_NAMES]
    conditions += [_labelled(first, *it) for it in labels]
    if capability is not None:
        trait, same = _trait(CAPABILITY, capability)
        conditions.append(exists().where(*same, trait.namespace == first.namespace, trait.name == first.name))
    return first, conditions


def _trait(kind: str, value: str) -> tuple[Any, list[ColumnElement[bool]]]:
    trait: Any = aliased(TraitRow)
    return trait, [trait.kind == kind, trait.value == value]


def _labelled(first: Any, key: str, value: str) -> ColumnElement[bool]:
    label: Any = aliased(LabelRow)
    same = and_(label.kind == "Agent", label.key == key, label.value == value)
    return exists().where(same, label.namespace == first.namespace, label.name == first.name)
