"""How a replay differs from its journal, in words: the first difference, both sides, what to do. Pure.

The code of a turn is one digest from its first attempt to its last, so what differs is what the handler took from
somewhere else than its turn, or kept somewhere else than in its state.
"""

from typing import Any

import orjson

from ray_runtime.problems import problem
from schemas.base import canonical
from schemas.branches import ORDER, ROOT, Place
from schemas.divergence import ADVICE, First
from schemas.problem import Next, Problem
from schemas.wire import Recorded

SIDE_BYTES_MAX = 4096
SIDE_CHARS_MAX = 600  # in the sentence; all of it is in the metadata
ABSENT = "(nothing)"


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
    return _told("effect", turn_id, detail, (entry.branch, entry.position), recorded, asked)


def beyond(turn_id: str, place: Place, kind: str, body: bytes) -> Problem:
    """An effect where the journal of a turn that has ended holds none."""
    asked = _side(kind, body)
    detail = f"at position {_place(place)} the journal holds nothing, the replay asked for {_short(asked)}"
    return _told("effect", turn_id, detail, place, None, asked)


def astray(turn_id: str, place: Place) -> Problem:
    """The replay does not wait where the journal says that an answer came next."""
    branch, position = place
    recorded = {"kind": ORDER, "branch": branch, "position": position}
    detail = f"by the journal the answer at {branch}:{position} came next, and the replay waits for none there"
    return _told("order", turn_id, detail, place, recorded, None)


def state_diverged(turn_id: str, place: Place, kind: str, recorded: str, made: str) -> Problem:
    """The state is another one than it was when the handler first came there."""
    detail = (
        f"when the handler came to the {kind} at position {_place(place)}, the hash of its state was {recorded}, "
        f"and the replay's is {made or 'none, for it is no JSON'}: something since the wait before is not from the turn"
    )
    return _told("state", turn_id, detail, place, {"state": recorded}, {"state": made or None})


def state_at_end(turn_id: str, recorded: bytes, made: bytes) -> Problem:
    """The turn ended with another state than its replay."""
    found = _differs("", orjson.loads(recorded), orjson.loads(made))
    if found is None:
        detail = "the state that the replay ended with holds the same, with its keys in another order"
        return _told("state", turn_id, detail, None, {"path": ""}, {"path": ""})
    path, before, after = found[0], _value(found[1]), _value(found[2])
    where = f"{path} of the state" if path else "the state"
    detail = f"at the end of the turn {where} was {_short(before)}, and at the end of the replay {_short(after)}"
    return _told("state", turn_id, detail, None, {"path": path, "value": before}, {"path": path, "value": after})


def reply_diverged(turn_id: str, recorded: bytes, made: bytes) -> Problem:
    """The turn answered something else than its replay."""
    sides = _value(orjson.loads(recorded)), _value(orjson.loads(made))
    detail = f"the turn answered {_short(sides[0])}, and the replay {_short(sides[1])}"
    return _told("reply", turn_id, detail, None, {"reply": sides[0]}, {"reply": sides[1]})


def raised(turn_id: str, found: Problem) -> Problem:
    """The turn came to its end, and its replay did not."""
    frames = found.metadata.get("traceback")
    asked = {"reason": found.reason, "detail": found.detail, "traceback": frames}
    detail = f"the turn came to its end, and the replay failed with {found.reason}: {found.detail[:SIDE_CHARS_MAX]}"
    return _told("raised", turn_id, detail, None, {"outcome": "committed"}, asked)


def in_order(place: Place) -> tuple[list[int], int]:
    """Places as they were come to: branch 0.2 before 0.10."""
    branch, position = place
    return [int(it) for it in branch.split(".")], position


def _told(first: First, turn_id: str, detail: str, place: Place | None, recorded: Any, asked: Any) -> Problem:
    """`first` says what kind of difference it is; at the end of a turn it has no place."""
    branch, position = place or (None, None)
    about = {"branch": branch, "position": position, "recorded": recorded, "asked": asked}
    about |= {"turn_id": turn_id, "first": first}
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


def _value(value: Any) -> Any:
    """A value of a state or of an answer; of a large one, how large it is."""
    size = len(orjson.dumps(value))
    return value if size <= SIDE_BYTES_MAX else {"bytes": size}


def _differs(path: str, one: Any, other: Any) -> tuple[str, Any, Any] | None:
    """Where two JSON values differ first, and what stands there; None where they are equal."""
    if isinstance(one, dict) and isinstance(other, dict):
        keys: Any = [*one, *(it for it in other if it not in one)]
    elif isinstance(one, list) and isinstance(other, list):
        keys, one, other = range(max(len(one), len(other))), dict(enumerate(one)), dict(enumerate(other))
    else:
        return None if type(one) is type(other) and one == other else (path, one, other)
    for key in keys:
        if key not in one or key not in other:
            return f"{path}/{key}", one.get(key, ABSENT), other.get(key, ABSENT)
        if (found := _differs(f"{path}/{key}", one[key], other[key])) is not None:
            return found
    return None


def _short(side: Any) -> str:
    text = canonical(side).decode()
    return text if len(text) <= SIDE_CHARS_MAX else f"{text[:SIDE_CHARS_MAX]}…"


def _place(place: Place) -> str:
    branch, position = place
    return str(position) if branch == ROOT else f"{branch}:{position}"
