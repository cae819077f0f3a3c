"""What a route reads again of a channel, as rows of the units that deliver it. Pure.

A place that was set back goes forward by delivery. The unit that reaches the end of the replay says so, and puts the
place to where it was; none is written for a replay that is over by then. Under new keys a message comes as another
one, whose id is made of the replay and the id that it had.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import orjson

from controlplane.mesh.rows import Row
from controlplane.store import replays
from controlplane.store import statements as sql
from schemas.base import canonical, short_id


class Again(NamedTuple):
    """A replay that is under way: up to which position, and where it goes on then."""

    agent: str
    replay: str
    until: int
    resume: int
    namespace: str
    route: str


def reading(
    agent: str, replay: str | None, position: int, until: int | None, resume: int | None, namespace: str, worker: str
) -> Again | None:
    """What a place reads again, if it does; one that joined anew, behind that, does not."""
    if replay is None or until is None or position >= until:
        return None
    return Again(agent, replay, until, resume or 0, namespace, worker.rpartition("-")[0])


def passed(of: Again | None, until: int, now: float) -> tuple[int, list[Row]]:
    """Where the place is once it has passed `until`, and what is told of that."""
    if of is None:
        return until, []
    if until < of.until:
        return until, [(replays.STANDS, (of.agent, of.replay), 1)]
    return max(of.resume, until), over(of, "done", now)


def over(of: Again, outcome: str, now: float) -> list[Row]:
    """The end of a replay, and the event that tells it."""
    told = canonical({"replay_id": of.replay, "outcome": outcome}).decode()
    event = ("route.replayed", now, "Route", of.namespace, of.route, None, None, told)
    return [(replays.END, (now, outcome, of.agent, of.replay), 1), (sql.EVENT, event, 1)]


def again(of: Again, channel: str, found: Sequence[tuple[Any, ...]], now: float) -> list[Row]:
    """Messages of a channel, each as another one because of it; `found` are position, id, body, key and rank."""
    rows: list[Row] = []
    for _, message_id, body, key, rank in found:
        made = short_id("msg", "replay", of.replay, message_id, near=message_id)
        text = orjson.dumps({**orjson.loads(body), "id": made, "causationid": message_id}).decode()
        rows.append((replays.PUT_AGAIN, (of.agent, made, text, now, key, rank, channel), -1))
    return rows
