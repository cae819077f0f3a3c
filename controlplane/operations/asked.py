"""How many questions wait for a person: of the open ones alone, by their partial index. Reads only."""

from sqlmodel import Session, col, func, select

from controlplane.operations.visibility import within
from controlplane.store.tables import AgentRow, AwaitRow
from schemas.principal import Principal


def open_questions(session: Session, principal: Principal) -> int:
    """Of the agents that the principal sees."""
    query = (
        select(func.count())
        .select_from(AwaitRow)
        .join(AgentRow, col(AgentRow.uid) == col(AwaitRow.agent))
        .where(AwaitRow.kind == "question", col(AwaitRow.resolved_at).is_(None))
        .where(*within(principal, AgentRow.namespace))
    )
    return session.exec(query).one()
