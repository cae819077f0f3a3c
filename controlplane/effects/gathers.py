"""What a gathering becomes: an await behind its members, counted by whatever resolves one of them.

Pure. A member's await, and so the question that asks for it, is named by the gathering it belongs to: whoever
answers needs to know nothing else.
"""

from collections.abc import Iterable
from typing import Any

import orjson

from controlplane.store import gathers as sql
from schemas.base import short_id

Row = tuple[str, tuple[Any, ...], int]
_PREFIX = "gather"


def gathering_id(turn_id: str, branch: str, position: int) -> str:
    return short_id(_PREFIX, turn_id, branch, position, near=turn_id)


def member_id(turn_id: str, branch: str, group: int, position: int) -> str:
    """The id of a member's await, and of the question that it waits on."""
    return f"{gathering_id(turn_id, branch, group)}.{position}"


def gathering_of(await_id: str) -> str | None:
    """The gathering that an await is a member of."""
    group, dot, _ = await_id.partition(".")
    return group if dot and group.startswith(f"{_PREFIX}_") else None


def counted(await_id: str, now: float) -> list[Row]:
    """The gathering of an await that was just resolved, if it is one's member."""
    group = gathering_of(await_id)
    return [] if group is None else settled(group, now)


def settled(group: str, now: float) -> list[Row]:
    """Resolve a gathering if enough of its members are; then close the rest, and say so in the journal."""
    return [
        (sql.SETTLE, (now, group), -1),
        (sql.CLOSE, (now, group, group, group, group), -1),
        (sql.JOURNAL, (now, group, group, group, group), -1),
    ]


def came(rows: Iterable[tuple[int, str | None, str | None, float | None]]) -> str:
    """What the members of a resolved gathering came to, for a turn that is parked in its host."""
    found = [(position, outcome, orjson.Fragment(result or "null"), at) for position, outcome, result, at in rows]
    return orjson.dumps([it for it in found if it[1] not in (None, "cancelled")]).decode()
