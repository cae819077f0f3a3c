"""Replays as they are answered: how far routes have read their sources again, from records. Reads only.

A place that goes forward says how much is left. Of a poll, whose place is its worker's own state, the turn of the
message that told it to is all that can be seen.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlmodel import Session

from controlplane.operations.conditions import moment
from controlplane.operations.observing import many, rows
from schemas.base import turn_of
from schemas.replay import Gap, Replay

REPLAYS = many(
    "SELECT r.*, s.position AS read_to, c.next_position, w.position AS looked_to FROM replay r"
    " LEFT JOIN subscription s ON s.agent = r.agent AND s.channel = r.source"
    " LEFT JOIN channel c ON c.uid = s.channel"
    " LEFT JOIN feedback_watch w ON w.agent = r.agent AND w.watch = r.source WHERE r.agent IN :uids",
    "uids",
)
TURNS = many("SELECT turn_id, outcome FROM turn WHERE turn_id IN :turns AND finished_at IS NOT NULL", "turns")


def replays(session: Session, agents: Sequence[str]) -> dict[str, Replay]:
    """The last replay of each of these agents, if it had one."""
    found = rows(session, REPLAYS, uids=list(agents)) if agents else []
    turns = {it["agent"]: turn_of(it["agent"], it["message_id"]) for it in found if it["message_id"]}
    ended = rows(session, TURNS, turns=list(turns.values())) if turns else []
    outcomes = {it["turn_id"]: it["outcome"] for it in ended}
    return {it["agent"]: _view(it, outcomes.get(turns.get(it["agent"], ""))) for it in found}


def seen_replays(session: Session, agents: Sequence[str]) -> dict[str, dict[str, Any]]:
    """The same, as a probe shows it."""
    return {uid: it.model_dump(mode="json") for uid, it in replays(session, agents).items()}


def _view(row: Mapping[str, Any], outcome: str | None) -> Replay:
    state, total = _state(row, outcome), None
    left = None
    if row["next_position"] is not None:
        first = max(row["position"], row["gap_last"] or 0)
        total = max(0, row["until_position"] - first)
        left = max(0, min(total, row["until_position"] - row["read_to"])) if state == "running" else 0
    return Replay(
        replay_id=row["replay_id"],
        keys=row["keys"],
        state=state,
        asked_at=moment(row["asked_at"]),
        principal=row["principal"],
        total=total,
        left=left,
        gap=None if row["gap_first"] is None else Gap(first=str(row["gap_first"]), last=str(row["gap_last"])),
        change_id=row["change_id"],
    )


def _state(row: Mapping[str, Any], outcome: str | None) -> Any:
    """What became of it; one whose place is gone, or behind, because the source was another meanwhile, is over."""
    if row["ended_at"] is not None:
        return row["outcome"]
    if row["message_id"] is not None:
        return {"committed": "done", None: "running"}.get(outcome, "cancelled")
    place = row["looked_to"] if row["read_to"] is None else row["read_to"]
    return "running" if place is not None and place < row["until_position"] else "cancelled"
