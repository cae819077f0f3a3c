"""Looking inside an agent: its committed state, and everything that it waits on or gave up.

One read of the records gives one moment; only `why_awake` is asked of the gate, because it is in
no record. When the gate does not answer, that is what is said. Reads only.
"""

from typing import Any

import orjson
from sqlmodel import Session, col, func, select

from controlplane.operations.living.envelopes import moment
from controlplane.operations.living.lookup import absent, find_agent
from controlplane.store.store import Store
from controlplane.store.tables import AgentRow, AwaitRow, DeadLetterRow, InboxRow, TimerRow, TurnRow
from schemas.calls import DeadLetter, Inspection, Named, TimerView, WaitingOn
from schemas.ports import GatePort, Handler
from schemas.principal import Call
from schemas.problem import Refusal

SHOWN_MAX = 100  # of each list, the newest
GATE_AWAY = "held by its host; the gate does not answer why"


def handlers(store: Store, gate: GatePort) -> dict[str, Handler]:
    """The handler of `agents.inspect`."""

    async def inspect(call: Call, given: Named) -> Inspection:
        found = await find_agent(store, given.namespace, given.name)
        seen = await store.read(lambda session: _inside(session, found.uid))
        if seen is None:  # it was removed in between
            raise absent("Agent", given.namespace, given.name, "/name")
        may_wake = seen["inbox"] and not found.stopped  # it may be waiting for a host
        why = await _why_awake(gate, found.uid) if seen["host"] or may_wake else None
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


def _inside(session: Session, uid: str) -> dict[str, Any] | None:
    row = session.exec(select(AgentRow).where(AgentRow.uid == uid)).first()
    if row is None:
        return None
    open_turn = session.exec(
        select(TurnRow.turn_id).where(TurnRow.agent == uid, col(TurnRow.finished_at).is_(None))
    ).first()
    return {
        "uid": uid,
        "state": None if row.state is None else orjson.loads(row.state),
        "state_bytes": len((row.state or "").encode()),
        "state_digest": row.state_digest,
        "epoch": row.epoch,
        "host": row.owner,
        "turns": row.version,
        "inbox": session.exec(select(func.count(col(InboxRow.seq))).where(InboxRow.agent == uid)).one(),
        "running": open_turn,
        "waiting_on": _waiting_on(session, uid),
        "timers": _timers(session, uid),
        "dead_letters": _dead_letters(session, uid),
    }


def _waiting_on(session: Session, uid: str) -> list[WaitingOn]:
    rows = session.exec(
        select(AwaitRow)
        .where(AwaitRow.agent == uid, col(AwaitRow.resolved_at).is_(None))
        .order_by(col(AwaitRow.since).desc())
        .limit(SHOWN_MAX)
    )
    return [
        WaitingOn(await_id=row.await_id, kind=row.kind, on=row.target, since=moment(row.since), until=moment(row.until))
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
