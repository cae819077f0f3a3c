"""`turns.list` and `turns.get`: what agents did, from the records of their turns.

A turn of a namespace that the caller does not reach is answered exactly like one that is not there.
Pages follow (start, id), newest first, so that turns which begin meanwhile shift nothing. Reads only.
"""

from typing import Any

import orjson
from sqlmodel import Session, col, func, or_, select

from controlplane.operations.living import paging
from controlplane.operations.living.envelopes import moment
from controlplane.operations.living.lookup import find_agent
from controlplane.operations.visibility import within
from controlplane.resources.agents import TurnList
from controlplane.resources.problems import refuse
from controlplane.store.store import Store
from controlplane.store.tables import AgentRow, JournalRow, ResourceRow, TurnRow
from schemas.ports import Handler
from schemas.principal import Call, Principal
from schemas.problem import Next, Refusal
from schemas.records import JournalEntry, TurnInput, TurnListInput, TurnSummary, TurnView

Address = tuple[str, str]


def handlers(store: Store) -> dict[str, Handler]:
    """The handlers of `turns.list` and `turns.get`."""

    async def list_turns(call: Call, given: TurnListInput) -> TurnList:
        after = None if given.page is None else paging.decode(given.page, (float, str))
        found = await find_agent(store, given.namespace, given.name)
        rows = await store.read(lambda session: _page(session, found.uid, after, given.limit + 1))
        shown = rows[: given.limit]
        more = len(rows) > given.limit
        return TurnList(
            items=[TurnSummary(**_summary(row, (given.namespace, given.name))) for row in shown],
            next_page=paging.encode([shown[-1].started_at, shown[-1].turn_id]) if more else None,
        )

    async def get_turn(call: Call, given: TurnInput) -> TurnView:
        read = await store.read(lambda session: _turn(session, given.turn_id, call.principal))
        if read is None:
            raise absent_turn(given.turn_id)
        row, address, journal = read
        return TurnView(
            **_summary(row, address), message=orjson.loads(row.message), journal=[_entry(entry) for entry in journal]
        )

    return {"turns.list": list_turns, "turns.get": get_turn}


def _page(session: Session, agent: str, after: list[Any] | None, limit: int) -> list[TurnRow]:
    query = select(TurnRow).where(TurnRow.agent == agent)
    if after is not None:
        started_at, turn_id = after
        earlier = col(TurnRow.started_at) < started_at
        query = query.where(or_(earlier, (col(TurnRow.started_at) == started_at) & (col(TurnRow.turn_id) < turn_id)))
    order = (col(TurnRow.started_at).desc(), col(TurnRow.turn_id).desc())
    return list(session.exec(query.order_by(*order).limit(limit)))


def _turn(session: Session, turn_id: str, principal: Principal) -> tuple[TurnRow, Address, list[JournalRow]] | None:
    """A turn with its agent's address, also of an agent that was deleted, and its journal."""
    namespace = func.coalesce(AgentRow.namespace, ResourceRow.namespace)
    query = (
        select(TurnRow, namespace, func.coalesce(AgentRow.name, ResourceRow.name))
        .join(AgentRow, col(AgentRow.uid) == col(TurnRow.agent), isouter=True)
        .join(ResourceRow, col(ResourceRow.uid) == col(TurnRow.agent), isouter=True)
        .where(TurnRow.turn_id == turn_id, namespace.is_not(None), *within(principal, namespace))
    )
    found = session.exec(query).first()
    if found is None:
        return None
    row, address = found[0], (found[1], found[2])
    journal = session.exec(
        select(JournalRow)
        .where(JournalRow.turn_id == turn_id)
        .order_by(col(JournalRow.branch), col(JournalRow.position))
    )
    return row, address, list(journal)


def agent_of_turn(session: Session, turn_id: str, principal: Principal) -> str | None:
    """The uid of the turn's agent; None where the caller sees no such turn."""
    found = _turn(session, turn_id, principal)
    return None if found is None else found[0].agent


def _summary(row: TurnRow, address: Address) -> dict[str, Any]:
    return {
        "turn_id": row.turn_id,
        "namespace": address[0],
        "name": address[1],
        "message_id": row.message_id,
        "trigger": row.trigger,
        "outcome": row.outcome,
        "attempts": row.attempts,
        "epoch": row.epoch,
        "started_at": moment(row.started_at),
        "finished_at": None if row.finished_at is None else moment(row.finished_at),
        "cpu_s": row.cpu_ns / 1e9,
        "state_digest": row.state_digest,
        "problem": None if row.problem is None else orjson.loads(row.problem),
        "digest": row.digest,
        "upgrade": _upgrade(row),
    }


def _upgrade(row: TurnRow) -> dict[str, Any] | None:
    if row.decided is None:
        return None
    return {
        "generation": row.looked_for,
        "decided": row.decided,
        "ends_by": None if row.ends_by is None else moment(row.ends_by),
        "problem": None if row.differs is None else orjson.loads(row.differs),
    }


def _entry(row: JournalRow) -> JournalEntry:
    return JournalEntry(
        branch=row.branch,
        position=row.position,
        kind=row.kind,
        body=orjson.loads(row.body),
        verdict=None if row.verdict is None else orjson.loads(row.verdict),
        outcome=row.outcome,
        result=None if not row.result else orjson.loads(row.result),
        recorded_at=moment(row.recorded_at),
        finished_at=None if row.finished_at is None else moment(row.finished_at),
        send_by=None if row.send_by is None else moment(row.send_by),
    )


def absent_turn(turn_id: str) -> Refusal:
    """There is no such turn, or none that the caller sees."""
    return refuse(
        "NOT_FOUND",
        f"there is no turn {turn_id}",
        field="/turn_id",
        next=[Next(operation="agents.list", why="shows the agents, whose turns turns.list shows")],
        kind="Turn",
        turn_id=turn_id,
    )
