"""What units write into the feedback log of an agent. Pure."""

from typing import Any

from controlplane.effects.turnref import Row, TurnRef
from controlplane.store import statements as sql
from schemas.base import canonical


def event(kind: str, turn: TurnRef, data: dict[str, Any], now: float, principal: str | None = None) -> Row:
    """A feedback event about the turn's agent."""
    text = canonical(data).decode()
    return sql.EVENT, (kind, now, "Agent", turn.namespace, turn.name, principal, turn.turn_id or None, text), 1


def agent_event(
    kind: str, namespace: str, name: str, principal: str | None, now: float, data: dict[str, Any] | None = None
) -> Row:
    """A feedback event about what an operator did to an agent."""
    return sql.EVENT, (kind, now, "Agent", namespace, name, principal, None, canonical(data or {}).decode()), 1
