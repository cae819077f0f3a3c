"""What routes did: counts, how far behind they are, their dead letters, what they used. From records; reads only.

A worker counts in its own state, which commits with what it counts, so no crash counts anything twice. The rest stands
where everything finds it: places in channels, dead letters, meters.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import orjson
from sqlmodel import Session

from controlplane.economy.meters import MICRO, hour_of
from controlplane.operations.conditions import moment
from controlplane.operations.observing import many, rows
from controlplane.operations.replays import replays
from controlplane.store import states
from schemas.polled import PollFailing
from schemas.replay import Replay

DAY_H = 24
WORKERS = many("SELECT uid, namespace, name, state, chunks FROM agent WHERE uid IN :uids", "uids")
PIECES = many("SELECT agent, hash, body FROM state_chunk WHERE agent IN :uids", "uids")
DEAD = many("SELECT agent, COUNT(*) AS dead FROM dead_letter WHERE agent IN :uids GROUP BY agent", "uids")
BEHIND = many(
    "SELECT s.agent, SUM(c.next_position - 1 - s.position) AS behind FROM subscription s"
    " JOIN channel c ON c.uid = s.channel WHERE s.agent IN :uids GROUP BY s.agent",
    "uids",
)
USED = many(
    "SELECT meter, SUM(amount) AS amount FROM used WHERE namespace = :namespace AND agent = :name AND hour > :hour"
    " GROUP BY meter"
)


@dataclass(frozen=True)
class Routed:
    """What one route's worker did; of one that is not there yet, nothing."""

    behind: int | None = None
    passed: int = 0
    filtered: int = 0
    retried: int = 0
    dead: int = 0
    last_at: datetime | None = None
    poll_failing: PollFailing | None = None
    meters: Mapping[str, float] = field(default_factory=dict)
    replay: Replay | None = None


def routed(session: Session, workers: Sequence[str], now: float) -> dict[str, Routed]:
    """What the workers of routes did, by their uids."""
    if not workers:
        return {}
    uids = list(workers)
    dead = {it["agent"]: int(it["dead"]) for it in rows(session, DEAD, uids=uids)}
    behind = {it["agent"]: max(0, int(it["behind"])) for it in rows(session, BEHIND, uids=uids)}
    again = replays(session, uids)
    found = rows(session, WORKERS, uids=uids)
    pieces = rows(session, PIECES, uids=uids) if any(it["chunks"] is not None for it in found) else []
    made: dict[str, Routed] = {}
    for it in found:
        uid, state = it["uid"], _state(it, pieces)
        counts: dict[str, Any] = {name: int(state.get(name, 0)) for name in ("passed", "filtered", "retried")}
        last_at = moment(state["last_at"]) if state.get("last_at") else None
        used = _used(session, it["namespace"], it["name"], now)
        failing = state.get("failing")
        poll = None if failing is None else PollFailing(**{**failing, "since": moment(failing["since"])})
        more: dict[str, Any] = {"last_at": last_at, "poll_failing": poll, "meters": used, "replay": again.get(uid)}
        made[uid] = Routed(behind.get(uid), dead=dead.get(uid, 0), **counts, **more)
    return made


def _state(row: Mapping[str, Any], pieces: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    text = row["state"]
    if row["chunks"] is not None:
        own = [(it["hash"], bytes(it["body"])) for it in pieces if it["agent"] == row["uid"]]
        text = states.whole(row["chunks"], own)
    found = orjson.loads(text or "{}")
    return found if isinstance(found, dict) else {}


def _used(session: Session, namespace: str, name: str, now: float) -> dict[str, float]:
    found = rows(session, USED, namespace=namespace, name=name, hour=hour_of(now) - DAY_H)
    return {it["meter"]: int(it["amount"]) / MICRO for it in sorted(found, key=lambda it: str(it["meter"]))}
