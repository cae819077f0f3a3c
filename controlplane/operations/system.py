"""The installation as it is: `system.status` for programs, `system.brief` for a reader with little room.

Counts come from the store in one read, with what a principal may not see left out before counting;
processes come from whoever supervises them. A problem that is known is said here, in words.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Boolean, ColumnElement, literal_column
from sqlmodel import Session, col, func, select

from controlplane.operations.asked import open_questions
from controlplane.operations.incidents import lately
from controlplane.operations.visibility import within
from controlplane.store.moving import CLOSED_PREFIX
from controlplane.store.store import Store
from controlplane.store.tables import AgentRow, ChangeRow, DeadLetterRow, EventRow, HostRow, Meta
from schemas.ports import Handler
from schemas.principal import Call, Principal
from schemas.records import Brief, Incident, ProcessView, SystemStatus


@dataclass(frozen=True)
class Facts:
    """What only the supervising process knows."""

    installation: str
    version: str
    ready: bool
    gate: str
    ray: str
    ray_dashboard: str | None
    confinement: str
    processes: list[ProcessView]
    problems: list[str]


@dataclass(frozen=True)
class Counts:
    agents: dict[str, int]
    open_changes: int
    dead_letters: int
    questions: int
    hosts: int
    cursor: int
    closed: list[str]


STOPPED = literal_column("stopped = 1", Boolean)  # spelt as its partial index is


def _seen(principal: Principal, namespace: Any) -> list[ColumnElement[bool]]:
    """The condition that leaves out what the principal may not see."""
    return [] if "*" in principal.namespaces else [col(namespace).in_(principal.namespaces)]


def count(session: Session, principal: Principal) -> Counts:
    """All counts of one moment."""
    agents = select(func.count()).select_from(AgentRow).where(*_seen(principal, AgentRow.namespace))
    total, awake, stopped = (  # each by an index of its own
        session.exec(agents.where(*which)).one() for which in ((), (col(AgentRow.owner).is_not(None),), (STOPPED,))
    )
    changes = (
        select(func.count())
        .select_from(ChangeRow)
        .where(col(ChangeRow.done_at).is_(None), *within(principal, col(ChangeRow.namespace)))
    )
    letters = select(func.count()).select_from(DeadLetterRow).where(*_seen(principal, DeadLetterRow.namespace))
    hosts = (
        select(func.count())
        .select_from(HostRow)
        .where(col(HostRow.ended_at).is_(None), *_seen(principal, HostRow.namespace))
    )
    cursor = select(func.max(EventRow.cursor)).where(*_seen(principal, EventRow.namespace))
    return Counts(
        {"total": total, "awake": awake, "suspended": total - awake - stopped, "stopped": stopped},
        session.exec(changes).one(),
        session.exec(letters).one(),
        open_questions(session, principal),
        session.exec(hosts).one(),
        session.exec(cursor).one() or 0,
        [key.removeprefix(CLOSED_PREFIX) for key in session.exec(select(Meta.key).where(_CLOSED))],
    )


_CLOSED = col(Meta.key).startswith(CLOSED_PREFIX, autoescape=True)


def _problems(counts: Counts, facts: Facts) -> list[str]:
    drained = [f"Node {it} is drained and takes no agents; nodes.drain with undo ends that." for it in counts.closed]
    return [*facts.problems, *drained]


def _processes(principal: Principal, found: list[ProcessView]) -> list[ProcessView]:
    """What a process takes of memory grows with all namespaces, so it is told to who reaches all."""
    if "*" in principal.namespaces:
        return found
    return [it.model_copy(update={"rss_bytes": None}) for it in found]


def in_words(counts: Counts, facts: Facts) -> str:
    """The brief's sentences."""
    agents = counts.agents
    parts = [
        f"{agents['total']} agents: {agents['awake']} awake, {agents['suspended']} suspended at no cost, "
        f"{agents['stopped']} stopped.",
        f"{counts.open_changes} changes are open, {counts.dead_letters} messages are in the dead letters.",
        *([f"{counts.questions} questions of agents wait for a person."] if counts.questions else []),
        "Messages are durably accepted." if facts.ready else "Messages are NOT accepted.",
        *_problems(counts, facts),
    ]
    return " ".join(parts)


def handlers(store: Store, facts: Callable[[], Facts], seal: Callable[[int], str]) -> Mapping[str, Handler]:
    """`system.status` and `system.brief`; `seal` makes the cursor of a position in the feedback log."""

    async def status(call: Call, _: Any) -> SystemStatus:
        def look(session: Session) -> tuple[Counts, list[Incident]]:
            return count(session, call.principal), lately(session, call.principal)

        (counts, recent), known = await store.read(look), facts()
        return SystemStatus(
            installation=known.installation,
            version=known.version,
            ready=known.ready,
            database=store.dialect,
            gate=known.gate,
            ray=known.ray,
            ray_dashboard=known.ray_dashboard,
            confinement=known.confinement,
            hosts=counts.hosts,
            agents=counts.agents,
            open_changes=counts.open_changes,
            dead_letters=counts.dead_letters,
            processes=_processes(call.principal, known.processes),
            problems=_problems(counts, known),
            recent=recent,
            as_of=datetime.fromtimestamp(call.now, UTC),
        )

    async def brief(call: Call, _: Any) -> Brief:
        counts, known = await store.read(lambda session: count(session, call.principal)), facts()
        return Brief(
            text=in_words(counts, known),
            agents=counts.agents,
            open_changes=counts.open_changes,
            dead_letters=counts.dead_letters,
            questions=counts.questions,
            cursor=seal(counts.cursor),
            as_of=datetime.fromtimestamp(call.now, UTC),
        )

    return {"system.status": status, "system.brief": brief}
