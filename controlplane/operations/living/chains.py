"""Chains, as they are shown: what a turn lies within, and what was used because of a message. Reads only."""

from typing import Any

import orjson
from sqlalchemy import func, select
from sqlalchemy.orm import aliased
from sqlmodel import Session, col

from controlplane.economy.meters import MICRO, What
from controlplane.economy.rating import RateCard, shown
from controlplane.operations.living.envelopes import moment
from controlplane.store.tables import AgentRow, ChainRow, InboxRow, TurnRow, UsageRow
from schemas.chain import ChainView


def below(chain_id: str) -> Any:
    """The ids of a chain and of all that lie within it, as a query."""
    found = select(col(ChainRow.chain_id)).where(col(ChainRow.chain_id) == chain_id).cte("below", recursive=True)
    inner = aliased(ChainRow)
    found = found.union(select(col(inner.chain_id)).where(col(inner.parent) == found.c.chain_id))
    return select(found.c.chain_id)


def of_open_turn(session: Session, agent: AgentRow, turn_id: str | None, card: RateCard) -> ChainView | None:
    """What the open turn of an agent lies within, or would by itself, if anything bounds it."""
    message = select(col(TurnRow.message)).where(col(TurnRow.turn_id) == turn_id)
    if turn_id is None:
        message = (
            select(col(InboxRow.body)).where(col(InboxRow.agent) == agent.uid).order_by(col(InboxRow.seq)).limit(1)
        )
    text = session.connection().execute(message).scalar()
    chain_id = (orjson.loads(text).get("chainid") if text else None) or agent.chain
    row = session.get(ChainRow, chain_id) if chain_id else None
    return None if row is None else _view(session, row, card)


def _view(session: Session, row: ChainRow, card: RateCard) -> ChainView:
    by = (col(UsageRow.effect), col(UsageRow.connection), col(UsageRow.meter))
    amount = func.sum(col(UsageRow.amount))
    query = select(*by, amount).where(col(UsageRow.chain).in_(below(row.chain_id))).group_by(*by)
    used = [(What(it[0], it[1]), it[2], int(it[3])) for it in session.connection().execute(query)]
    sums: dict[str, int] = {}
    for _, meter, millionths in used:
        sums[meter] = sums.get(meter, 0) + millionths
    return ChainView(
        chain_id=row.chain_id,
        parent=row.parent,
        opened_by=row.opened_by,
        on_behalf_of=row.onbehalfof,
        intent=intent_of(session, row),
        limits=orjson.loads(row.limits),
        used={meter: sums[meter] / MICRO for meter in sorted(sums)},
        money=shown(card.total(used)),
        at=moment(row.created_at),
    )


def intent_of(session: Session, row: ChainRow) -> str | None:
    """What the principal said that it is for, who began with the outermost chain that this one lies within."""
    while row.intent is None and row.parent is not None and (above := session.get(ChainRow, row.parent)) is not None:
        row = above
    return row.intent
