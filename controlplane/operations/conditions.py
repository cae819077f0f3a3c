"""Conditions: what is observed of a resource, derived from records at reading time, never stored.

An agent is Ready for its declared generation when the turn of that generation's start message has
committed, or when a turn that was parked before was proved on its code. Where retention took the
start's turn away, its absence from the inbox and from the dead letters says the same. Idle means that
Active is false; only a stop makes Stopped true. Pure.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import orjson

from schemas.base import rfc3339, short_id, turn_of
from schemas.question import FOREVER
from schemas.resource import Condition


@dataclass(frozen=True)
class Seen:
    """The records of one agent that its conditions rest on; `uid` is None while it has no running side."""

    generation: int
    uid: str | None = None
    reached: int = 0
    version: int = 0
    epoch: int = 0
    owner: str | None = None
    placement: str | None = None
    stopped: bool = False
    changed_at: float = 0.0
    inbox: int = 0
    start: Mapping[str, Any] | None = None  # the turn of the start message
    start_waits: bool = False  # the start message is in the inbox
    start_dead: Mapping[str, Any] | None = None  # its dead letter
    open_turn: Mapping[str, Any] | None = None
    awaited: Mapping[str, Any] | None = None


def start_message(uid: str, generation: int) -> str:
    """The id of the message with which a generation of an agent starts."""
    return short_id("msg", "start", uid, generation)


def start_turn(uid: str, generation: int) -> str:
    """The id of the turn that handles it."""
    return turn_of(uid, start_message(uid, generation))


def of_agent(seen: Seen) -> list[Condition]:
    """The four conditions of an agent, in their fixed order."""
    return [_ready(seen), _active(seen), _parked(seen), _stopped(seen)]


def ready_once(generation: int, since: float, *, set_up: bool = True) -> Condition:
    """Ready of what has no life of its own: set up, or not yet."""
    return Condition(
        type="Ready",
        status="true" if set_up else "unknown",
        reason="SetUp" if set_up else "Starting",
        message="" if set_up else "not set up yet",
        observed_generation=generation if set_up else max(generation - 1, 0),
        since=moment(since),
    )


def moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def _condition(seen: Seen, kind: str, status: Any, reason: str, since: float | None, message: str = "") -> Condition:
    return Condition(
        type=kind,
        status=status,
        reason=reason,
        message=message,
        observed_generation=seen.reached,
        since=None if since is None else moment(since),
    )


def _ready(seen: Seen) -> Condition:
    if seen.uid is None:
        return _condition(seen, "Ready", "unknown", "Starting", None, "not set up yet")
    if seen.reached < seen.generation:
        detail = f"still on generation {seen.reached}"
        return _condition(seen, "Ready", "unknown", "Starting", seen.changed_at, detail)
    if seen.start is not None and seen.start["outcome"] == "committed":
        return _condition(seen, "Ready", "true", "Started", seen.start["finished_at"])
    if seen.start is not None and seen.start["outcome"] == "failed":
        problem = orjson.loads(seen.start["problem"] or b"{}")
        reason, message = problem.get("reason", "Failed"), problem.get("detail", "the first turn failed")
        return _condition(seen, "Ready", "false", reason, seen.start["finished_at"], message)
    if seen.start_dead is not None:
        dead = seen.start_dead
        return _condition(seen, "Ready", "false", dead["reason"], dead["at"], dead["detail"])
    if seen.start is not None or seen.start_waits or seen.version == 0:
        if (held := _held_up(seen)) is not None:
            return held
        detail = "its first turn has not ended yet"
        if seen.stopped:
            detail = "stopped before its first turn has ended"
        return _condition(seen, "Ready", "unknown", "Starting", seen.changed_at, detail)
    return _condition(seen, "Ready", "true", "Started", None)


def _held_up(seen: Seen) -> Condition | None:
    """Where a parked turn of before stands in front of the start: what was decided about it."""
    turn = seen.open_turn
    if turn is None or turn["looked_for"] != seen.reached or seen.stopped or seen.version == 0:
        return None
    name, since = turn["turn_id"], seen.changed_at
    if turn["decided"] == "proved":
        return _condition(seen, "Ready", "true", "Proved", since, f"{name}, which is parked, goes on under this code")
    if turn["decided"] == "differs":
        problem = orjson.loads(turn["differs"])
        return _condition(seen, "Ready", "false", problem["reason"], since, problem["detail"])
    until = "it ends" if turn["ends_by"] is None else rfc3339(moment(turn["ends_by"]))
    return _condition(seen, "Ready", "unknown", "Pinned", since, f"{name} is parked on its own code until {until}")


def _active(seen: Seen) -> Condition:
    if seen.uid is None or seen.owner is None:
        return _condition(seen, "Active", "false", "Suspended", seen.changed_at or None)
    running = seen.open_turn is not None and seen.open_turn["outcome"] == "running"
    return _condition(seen, "Active", "true", "Running" if running else "Idle", seen.changed_at)


def _parked(seen: Seen) -> Condition:
    turn = seen.open_turn
    if turn is None or turn["outcome"] != "parked":
        return _condition(seen, "Parked", "false", "NotParked", None)
    waits = seen.awaited
    if waits is None:
        return _condition(seen, "Parked", "true", "Resuming", turn["started_at"], "what it waited for has come")
    until = "for ever" if waits["until"] >= FOREVER else f"until {rfc3339(moment(waits['until']))}"
    message = f"waits on {waits['target']} since {rfc3339(moment(waits['since']))}, {until}"
    return _condition(seen, "Parked", "true", waits["kind"].capitalize(), waits["since"], message)


def _stopped(seen: Seen) -> Condition:
    if seen.stopped:
        return _condition(seen, "Stopped", "true", "StoppedByOperator", seen.changed_at, "agents.wake ends it")
    return _condition(seen, "Stopped", "false", "NotStopped", None)
