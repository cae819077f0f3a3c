"""Which scope a child is spawned in, and when that of a turn ends, as rows. Pure."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from controlplane.store import scopes as sql
from schemas.base import short_id

if TYPE_CHECKING:
    from controlplane.effects.turnref import Row, TurnRef


def within(turn: "TurnRef", body: dict[str, Any]) -> dict[str, str]:
    """How the envelopes of a child name its scope; empty where it has none. Of who lives in one, a child does, too."""
    kind = _kind(turn, body)
    return {} if kind is None else {"scope": _id(turn, kind)}


def given(turn: "TurnRef", body: dict[str, Any], uid: str, now: float) -> list["Row"]:
    """The rows that put a child into its scope."""
    kind = _kind(turn, body)
    if kind is None:
        return []
    scope = _id(turn, kind)
    opened = (scope, turn.agent, turn.namespace, turn.name, kind, now)
    return [(sql.OPEN, opened, -1), (sql.GIVE, (scope, uid), -1)]


def ended(turn: "TurnRef", kinds: Iterable[str], now: float) -> list["Row"]:
    """The row that ends the turn's scope, if it can have one: something was spawned now, or may have been before."""
    if not (turn.recorded or "spawn" in kinds):
        return []
    return [(sql.END, (now, _id(turn, "turn")), -1)]


def _kind(turn: "TurnRef", body: dict[str, Any]) -> str | None:
    return body.get("scope") or ("agent" if turn.scoped else None)


def _id(turn: "TurnRef", kind: str) -> str:
    return short_id("sc", kind, turn.turn_id if kind == "turn" else turn.agent)
