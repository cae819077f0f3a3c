"""How a replay differs from its journal, in words: the first difference, both sides, what to do. Pure.

The code of a turn is one digest from its first attempt to its last, so what differs is what the handler took from
somewhere else than its turn, or kept somewhere else than in its state.
"""

from typing import Any

import orjson

from ray_runtime.problems import problem
from schemas.base import canonical
from schemas.branches import ORDER, ROOT, Place
from schemas.problem import Next, Problem
from schemas.wire import Recorded

SIDE_BYTES_MAX = 4096
SIDE_CHARS_MAX = 600  # in the sentence; all of it is in the metadata
ADVICE = (
    "Take time, randomness and ids from the turn (turn.now, turn.random, turn.uuid), read through effects, and keep "
    "nothing outside of self.state; then propose the agent with that code and send the message again"
)


def same(entry: Recorded, kind: str, body: bytes) -> bool:
    """Whether the journal holds what was asked for."""
    if entry.kind != kind:
        return False
    return entry.body == body or _comparable(kind, entry.body) == _comparable(kind, body)


def diverged(turn_id: str, entry: Recorded, kind: str, body: bytes) -> Problem:
    """Another effect than the journal holds there; kind `nothing` where none was asked for."""
    recorded, asked = _side(entry.kind, entry.body), _side(kind, body)
    where = _place((entry.branch, entry.position))
    detail = f"at position {where} the journal holds {_short(recorded)}, the replay asked for {_short(asked)}"
    return _told(turn_id, detail, entry.branch, entry.position, recorded, asked)


def astray(turn_id: str, place: Place) -> Problem:
    """The replay does not wait where the journal says that an answer came next."""
    branch, position = place
    recorded = {"kind": ORDER, "branch": branch, "position": position}
    detail = f"by the journal the answer at {branch}:{position} came next, and the replay waits for none there"
    return _told(turn_id, detail, branch, position, recorded, None)


def state_diverged(turn_id: str, place: Place, kind: str, recorded: str, made: str) -> Problem:
    """The state is another one than it was when the handler first came there."""
    detail = (
        f"when the handler came to the {kind} at position {_place(place)}, the hash of its state was {recorded}, "
        f"and the replay's is {made or 'none, for it is no JSON'}: something since the wait before is not from the turn"
    )
    return _told(turn_id, detail, *place, {"state": recorded}, {"state": made or None})


def in_order(place: Place) -> tuple[list[int], int]:
    """Places as they were come to: branch 0.2 before 0.10."""
    branch, position = place
    return [int(it) for it in branch.split(".")], position


def _told(turn_id: str, detail: str, branch: str, position: int, recorded: Any, asked: Any) -> Problem:
    about = {"turn_id": turn_id, "branch": branch, "position": position, "recorded": recorded, "asked": asked}
    look = Next(operation="turns.get", arguments={"turn_id": turn_id}, why="shows the journal up to there")
    again = Next(operation="agents.propose", why="with code that does the same in every run")
    return problem("REPLAY_DIVERGED", f"{detail}. {ADVICE}", next=[look, again], **about)


def _comparable(kind: str, body: bytes) -> Any:
    value = orjson.loads(body)
    if kind != "effect" or not isinstance(value, dict):
        return value
    return [value.get("effect"), value.get("connection") or None, value.get("arguments"), value.get("purpose") or ""]


def _side(kind: str, body: bytes) -> dict[str, Any]:
    if len(body) > SIDE_BYTES_MAX:
        return {"kind": kind, "bytes": len(body)}
    return {"kind": kind, "body": orjson.loads(body)}


def _short(side: dict[str, Any]) -> str:
    text = canonical(side).decode()
    return text if len(text) <= SIDE_CHARS_MAX else f"{text[:SIDE_CHARS_MAX]}…"


def _place(place: Place) -> str:
    branch, position = place
    return str(position) if branch == ROOT else f"{branch}:{position}"
