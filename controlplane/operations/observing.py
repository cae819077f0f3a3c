"""Reading what is observed of resources: their running side, in bulk, by indexes.

A page of agents costs the same few queries as one agent. A fleet is summed up in the database; only
agents with dead letters are looked at one by one, because only they may have failed to start.
Nothing is written, and what a principal may see was decided before.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import bindparam, text
from sqlmodel import Session

from controlplane.operations.conditions import Seen, start_message, start_turn
from controlplane.operations.world import Known

AT_ONCE = 400


def many(sql: str, *names: str) -> Any:
    return text(sql).bindparams(*(bindparam(name, expanding=True) for name in names))


AGENTS = many(
    "SELECT a.uid, a.generation AS reached, a.version, a.epoch, a.owner, a.placement, a.stopped, a.changed_at,"
    " (SELECT COUNT(*) FROM inbox i WHERE i.agent = a.uid) AS inbox"
    " FROM agent a WHERE a.uid IN :uids",
    "uids",
)
TURNS = many(
    "SELECT turn_id, agent, outcome, started_at, finished_at, problem FROM turn WHERE turn_id IN :turns", "turns"
)
OPEN_TURNS = many(
    "SELECT turn_id, agent, outcome, started_at, looked_for, decided, ends_by, differs FROM turn"
    " WHERE agent IN :uids AND finished_at IS NULL",
    "uids",
)
AWAITS = many(
    "SELECT turn_id, kind, target, since, until FROM awaiting"
    " WHERE agent IN :uids AND resolved_at IS NULL AND kind <> 'request'"
    " ORDER BY since, CASE WHEN kind = 'gather' THEN 0 ELSE 1 END",
    "uids",
)
WAITING = many(
    "SELECT agent, message_id FROM inbox WHERE agent IN :uids AND message_id IN :messages", "uids", "messages"
)
DEAD = many(
    "SELECT agent, message_id, reason, detail, at FROM dead_letter WHERE agent IN :uids AND message_id IN :messages",
    "uids",
    "messages",
)
CHANNELS = many("SELECT uid, next_position FROM channel WHERE uid IN :uids", "uids")
FIRST = text("SELECT MIN(position) AS first FROM channel_message WHERE channel = :uid")
QUEUED = text("SELECT COUNT(*) AS waiting FROM queued WHERE channel = :uid")
SUBSCRIBERS = many(
    "SELECT s.channel, a.namespace, a.name FROM subscription s JOIN agent a ON a.uid = s.agent"
    " WHERE s.channel IN :uids ORDER BY a.namespace, a.name",
    "uids",
)
FLEET = text(
    "SELECT COUNT(*) AS replicas, COALESCE(SUM(CASE WHEN r.template = :template AND a.generation = r.generation"
    " AND a.version > 0 AND (NOT EXISTS (SELECT 1 FROM inbox i WHERE i.agent = a.uid AND i.\"trigger\" = 'start')"
    " OR EXISTS (SELECT 1 FROM turn t WHERE t.agent = a.uid AND t.finished_at IS NULL AND t.decided = 'proved'"
    " AND t.looked_for = a.generation))"
    " THEN 1 ELSE 0 END), 0) AS ready,"
    " COALESCE(SUM(CASE WHEN r.template = :template THEN 1 ELSE 0 END), 0) AS upgraded,"
    " COALESCE(SUM(CASE WHEN EXISTS (SELECT 1 FROM dead_letter d WHERE d.agent = r.uid) THEN 1 ELSE 0 END), 0) AS dead"
    " FROM resource r LEFT JOIN agent a ON a.uid = r.uid WHERE r.owner = :uid AND r.deleted_at IS NULL"
)
SUSPECTS = text(
    "SELECT r.uid, r.generation FROM resource r JOIN agent a ON a.uid = r.uid"
    " WHERE r.owner = :uid AND r.deleted_at IS NULL AND r.template = :template"
    " AND a.generation = r.generation AND a.version > 0"
    " AND EXISTS (SELECT 1 FROM dead_letter d WHERE d.agent = a.uid)"
    " AND NOT EXISTS (SELECT 1 FROM inbox i WHERE i.agent = a.uid AND i.\"trigger\" = 'start')"
)
Rows = list[Mapping[str, Any]]


def rows(session: Session, query: Any, **values: Any) -> Rows:
    """The rows of a query as mappings."""
    return [dict(row) for row in session.connection().execute(query, values).mappings()]


def chunks(values: Sequence[Any], size: int = AT_ONCE) -> Iterable[Sequence[Any]]:
    return (values[start : start + size] for start in range(0, len(values), size))


def seen_agents(session: Session, agents: Sequence[Known]) -> dict[str, Seen]:
    """The records of agents, by the uid of their resource."""
    found: dict[str, Seen] = {}
    for chunk in chunks(agents):
        found |= _seen(session, chunk)
    return found


def _seen(session: Session, agents: Sequence[Known]) -> dict[str, Seen]:
    generations = {it.uid: it.generation for it in agents if it.uid is not None}
    uids = list(generations)
    alive = {row["uid"]: row for row in rows(session, AGENTS, uids=uids)}
    reached = {uid: row["reached"] for uid, row in alive.items()}
    starts = {
        row["agent"]: row
        for row in rows(session, TURNS, turns=[start_turn(uid, at) for uid, at in reached.items()] or [""])
    }
    running = {row["agent"]: row for row in rows(session, OPEN_TURNS, uids=uids)}
    awaits: dict[str, Mapping[str, Any]] = {}
    if any(row["outcome"] == "parked" for row in running.values()):
        awaits = {row["turn_id"]: row for row in reversed(rows(session, AWAITS, uids=list(running)))}
    waiting, dead = _unstarted(session, {uid: at for uid, at in reached.items() if uid not in starts})
    return {
        uid: Seen(
            generation=generation,
            start=starts.get(uid),
            start_waits=uid in waiting,
            start_dead=dead.get(uid),
            open_turn=running.get(uid),
            awaited=awaits.get(running[uid]["turn_id"]) if uid in running else None,
            **{**alive[uid], "stopped": bool(alive[uid]["stopped"])},
        )
        if uid in alive
        else Seen(generation)
        for uid, generation in generations.items()
    }


def _unstarted(session: Session, reached: Mapping[str, int]) -> tuple[set[str], dict[str, Mapping[str, Any]]]:
    """Of agents without a start turn: whose start message waits, and whose was given up."""
    if not reached:
        return set(), {}
    values = {"uids": list(reached), "messages": [start_message(uid, at) for uid, at in reached.items()]}
    return (
        {row["agent"] for row in rows(session, WAITING, **values)},
        {row["agent"]: row for row in rows(session, DEAD, **values)},
    )


class Replicas(NamedTuple):
    """How many agents a fleet has, how many are made from its template, how many of those are ready."""

    there: int
    upgraded: int
    ready: int


def replicas(session: Session, uid: str, template: str) -> Replicas:
    """The agents of a fleet, counted."""
    row = rows(session, FLEET, uid=uid, template=template)[0]
    found = rows(session, SUSPECTS, uid=uid, template=template) if row["dead"] else []
    suspects = {it["uid"]: it["generation"] for it in found}
    failed = 0
    for chunk in chunks(list(suspects)):
        turns = [start_turn(it, suspects[it]) for it in chunk]
        messages = [start_message(it, suspects[it]) for it in chunk]
        ended = {it["agent"] for it in rows(session, TURNS, turns=turns) if it["outcome"] == "failed"}
        failed += len(ended | {it["agent"] for it in rows(session, DEAD, uids=list(chunk), messages=messages)})
    return Replicas(row["replicas"], row["upgraded"], row["ready"] - failed)
