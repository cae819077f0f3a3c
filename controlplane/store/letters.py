"""Dead letters that are too old, and what is told of them: nothing is dropped in silence.

A letter of the message that a living agent started with stays as long as that agent, as its turn does: its
condition `Ready` rests on both.
"""

from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import delete, text
from sqlmodel import Session, col

from controlplane.store.tables import DeadLetterRow
from controlplane.store.unit import Unit

# In the order of their numbers, which is about that of coming.
OLDEST = """SELECT d.id, d.namespace, d.name, d.at, EXISTS (SELECT 1 FROM turn t JOIN agent a ON a.uid = t.agent
WHERE t.turn_id = d.turn_id AND t.trigger = 'start') AS needed
FROM dead_letter d WHERE d.id > :after ORDER BY d.id LIMIT :many"""
KIND = "DeadLetter"


class Letter(NamedTuple):
    """A dead letter, when it was put aside, and whether a living agent rests on it."""

    id: int
    namespace: str
    name: str
    at: float
    needed: bool


def oldest(session: Session, after: int, many: int) -> list[Letter]:
    """Of those with a higher number, the first so many."""
    rows = session.connection().execute(text(OLDEST), {"after": after, "many": many})
    return [Letter(number, namespace, name, at, bool(needed)) for number, namespace, name, at, needed in rows]


def forget(gone: Sequence[Letter], now: float) -> Unit:
    """Take letters away, and say of each agent or channel how many, and from when to when they were put aside."""
    unit = Unit().run(delete(DeadLetterRow).where(col(DeadLetterRow.id).in_([it.id for it in gone])))
    times: dict[tuple[str, str], list[float]] = {}
    for it in gone:
        times.setdefault((it.namespace, it.name), []).append(it.at)
    for (namespace, name), found in times.items():
        data = {"messages": len(found), "first_at": min(found), "last_at": max(found)}
        unit.event("dead_letters.expired", kind=KIND, namespace=namespace, name=name, now=now, data=data)
    return unit
