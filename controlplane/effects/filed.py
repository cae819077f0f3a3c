"""What an open turn waits for, by what is filed of it: whether a replay would find anything to do. Pure."""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import orjson

from schemas.branches import ORDER, ROOT, Place

AWAITED = ("ask", "sleep", "question", "gather")


class Filed(NamedTuple):
    """An entry of the journal, as far as this needs it."""

    branch: str
    position: int
    kind: str
    body: str
    outcome: str | None


def waiting(entries: Iterable[Filed], held: Callable[[Place], bool]) -> set[Place]:
    """Where the branches wait; empty when one of them can go on, by itself or by an answer that never reached it.

    Of the handler itself the last entry says all; of what it gathers each entry is given. Members of a gathering of
    awaits are told with it, and an effect waits for nobody unless an operator is asked about it.
    """
    entries = list(entries)
    bodies = {(it.branch, it.position): orjson.loads(it.body) for it in entries if it.kind in (ORDER, "gather")}
    reached = {(branch, at) for (_, _), body in bodies.items() for branch, at in body.get("came", ())}
    members = {
        (branch, at)
        for (branch, position), body in bodies.items()
        for at in range(position - body.get("members", 0), position)
    }
    open_: set[Place] = set()
    for it in entries:
        place = it.branch, it.position
        if (it.kind != "effect" and it.kind not in AWAITED) or place in members:
            continue
        if it.outcome is not None:
            if it.branch != ROOT and place not in reached:
                return set()
        elif it.kind == "effect" and not held(place):
            return set()
        else:
            open_.add(place)
    return open_
