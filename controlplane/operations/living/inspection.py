"""Looking inside an agent: its committed state, and everything that it waits on or gave up.

One read of the records gives one moment; only `why_awake` is asked of the gate, because it is in
no record. When the gate does not answer, that is what is said. Reads only.
"""

from typing import Any

import orjson
from sqlmodel import Session, col, func, select

from controlplane.economy.rating import RateCard
from controlplane.operations.living import chains
from controlplane.operations.living.envelopes import moment
from controlplane.operations.living.lookup import absent, find_agent
from controlplane.store import states
from controlplane.store.store import Store
from controlplane.store.tables import (
    AgentRow,
    AwaitRow,
    DeadLetterRow,
    DivergenceRow,
    InboxRow,
    ResourceRow,
    StateChunkRow,
    TimerRow,
    TurnRow,
    WorkspaceFileRow,
)
from schemas.calls import DeadLetter, Inspection, Named, TimerView, WaitingOn, WorkspaceFile
from schemas.divergence import Divergence
from schemas.ports import GatePort, Handler
from schemas.principal import Call
from schemas.problem import Problem, Refusal
from schemas.question import FOREVER

SHOWN_MAX = 100  # of each list, the newest
GATE_AWAY = "held by its host; the gate does not answer why"


def handlers(store: Store, gate: GatePort, card: RateCard | None = None) -> dict[str, Handler]:
    """The handler of `agents.inspect`."""

    async def inspect(call: Call, given: Named) -> Inspection:
        found = await find_agent(store, given.namespace, given.name)
        seen = await store.read(lambda session: _inside(session, found.uid, card or RateCard()))
        if seen is None:  # it was removed in between
            raise absent("Agent", given.namespace, given.name, "/name")
        busy = seen["host"] or (seen["inbox"] and not found.stopped)  # it may be waiting for a host
        why = await _why_awake(gate, found.uid) if busy else None
        return Inspection(namespace=given.namespace, name=given.name, why_awake=why, **seen)

    return {"agents.inspect": inspect}


async def _why_awake(gate: GatePort, agent: str) -> str | None:
    try:
        answer = await gate.control("look", agent, {})
    except Refusal as refusal:
        if refusal.problem.reason != "NOT_READY":
            raise
        return GATE_AWAY
    why: str | None = answer.get("why_awake")
    return why


def _inside(session: Session, uid: str, card: RateCard) -> dict[str, Any] | None:
    row = session.exec(select(AgentRow).where(AgentRow.uid == uid)).first()
    if row is None:
        return None
    open_turn = session.exec(
        select(TurnRow.turn_id).where(TurnRow.agent == uid, col(TurnRow.finished_at).is_(None))
    ).first()
    state = _state(session, row)
    return {
        "uid": uid,
        "state": None if state is None else orjson.loads(state),
        "state_bytes": len((state or "").encode()),
        "state_digest": row.state_digest,
        "state_version": row.state_version,
        **_workspace(session, uid),
        "epoch": row.epoch,
        "host": row.owner,
        "turns": row.version,
        "inbox": session.exec(select(func.count(col(InboxRow.seq))).where(InboxRow.agent == uid)).one(),
        "running": open_turn,
        "chain": chains.of_open_turn(session, row, open_turn, card),
        "waiting_on": _waiting_on(session, uid),
        "timers": _timers(session, uid),
        "dead_letters": _dead_letters(session, uid),
        "divergences": _divergences(session, row),
    }


def _state(session: Session, row: AgentRow) -> str | None:
    """The committed state, whole, from the snapshot that the row is of."""
    if row.chunks is None:
        return row.state
    found = session.exec(select(StateChunkRow.hash, StateChunkRow.body).where(StateChunkRow.agent == row.uid))
    return states.whole(row.chunks, [(name, bytes(body)) for name, body in found])


def _workspace(session: Session, uid: str) -> dict[str, Any]:
    total = select(func.coalesce(func.sum(col(WorkspaceFileRow.size)), 0)).where(WorkspaceFileRow.agent == uid)
    columns = (WorkspaceFileRow.path, WorkspaceFileRow.size, WorkspaceFileRow.digest, WorkspaceFileRow.executable)
    files = session.exec(
        select(*columns).where(WorkspaceFileRow.agent == uid).order_by(col(WorkspaceFileRow.path)).limit(SHOWN_MAX)
    )
    found = [
        WorkspaceFile(path=path, bytes=size, digest=digest, executable=bool(executable))
        for path, size, digest, executable in files
    ]
    return {"workspace": found, "workspace_bytes": int(session.exec(total).one())}


def _waiting_on(session: Session, uid: str) -> list[WaitingOn]:
    rows = session.exec(
        select(AwaitRow)
        .where(AwaitRow.agent == uid, col(AwaitRow.resolved_at).is_(None))
        .order_by(col(AwaitRow.since).desc())
        .limit(SHOWN_MAX)
    )
    return [
        WaitingOn(
            await_id=row.await_id,
            kind=row.kind,
            on=row.target,
            since=moment(row.since),
            until=None if row.until >= FOREVER else moment(row.until),
        )
        for row in rows
    ]


def _timers(session: Session, uid: str) -> list[TimerView]:
    rows = session.exec(select(TimerRow).where(TimerRow.agent == uid).order_by(col(TimerRow.due_at)).limit(SHOWN_MAX))
    return [_timer(row) for row in rows]


def _timer(row: TimerRow) -> TimerView:
    repeats = row.every_s is not None or row.cron is not None
    return TimerView(
        name=row.name,
        due_at=moment(row.due_at),
        every_s=row.every_s,
        cron=row.cron,
        zone=row.zone,
        missed=row.missed if repeats else None,
        behind=row.behind,
    )


def _dead_letters(session: Session, uid: str) -> list[DeadLetter]:
    rows = session.exec(
        select(DeadLetterRow).where(DeadLetterRow.agent == uid).order_by(col(DeadLetterRow.id).desc()).limit(SHOWN_MAX)
    )
    return [
        DeadLetter(message_id=row.message_id, reason=row.reason, detail=row.detail, at=moment(row.at)) for row in rows
    ]


def _divergences(session: Session, row: AgentRow) -> list[Divergence]:
    """What was found of the code that its next turn runs on, by anybody's turns in its namespace."""
    spec = session.exec(select(ResourceRow.spec).where(ResourceRow.uid == row.uid)).first()
    digest = orjson.loads(spec)["code"]["digest"] if spec is not None else ""
    found = session.exec(
        select(DivergenceRow)
        .where(DivergenceRow.namespace == row.namespace, DivergenceRow.digest == digest)
        .order_by(col(DivergenceRow.at))
    )
    return [
        Divergence.model_validate(
            {
                "digest": it.digest,
                "first": it.kind,
                "agent": it.agent,
                "turn_id": it.turn_id,
                "at": moment(it.at),
                "problem": Problem.model_validate_json(it.problem),
            }
        )
        for it in found
    ]
