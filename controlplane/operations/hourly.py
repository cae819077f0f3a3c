"""How much came by a channel, hour by hour, and what that lets expect of the next. Reads only.

Positions grow with time, so that which one a moment was at is found by halving, whatever a channel holds. An hour is
known if it is whole: since the channel is there, and not before what retention took.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from math import ceil, floor, sqrt
from typing import Any, NamedTuple

from sqlalchemy import text
from sqlmodel import Session

from controlplane.operations.observing import rows

HOUR_S = 3600.0
HOURS_MAX = 12
HOURS_MIN = 3  # with fewer, nothing is said
SPREAD = 2.0  # of the square root of a count, which is how far chance alone goes
MESSAGE_AT = text(
    "SELECT accepted_at AS at FROM channel_message WHERE channel = :of AND position >= :place ORDER BY position LIMIT 1"
)
EVENT_AT = text("SELECT time AS at FROM event WHERE namespace = :of AND cursor >= :place ORDER BY cursor LIMIT 1")
CHANNEL = text(
    "SELECT c.uid, c.next_position - 1 AS last, r.created_at, (SELECT MIN(m.position) FROM channel_message m"
    " WHERE m.channel = c.uid) AS first FROM channel c JOIN resource r ON r.uid = c.uid"
    " WHERE c.namespace = :namespace AND c.name = :name"
)


class Band(NamedTuple):
    """What an hour may bring: about so much, and between these."""

    value: int
    low: int
    high: int


def last_before(session: Session, query: Any, of: str, first: int, last: int, moment: float) -> int:
    """The last place before a moment, of those from `first` to `last`; the one before `first` if there is none."""
    low, high = first - 1, last
    while low < high:
        middle = (low + high + 1) // 2
        found = rows(session, query, of=of, place=middle)
        if found and found[0]["at"] < moment:
            low = middle
        else:
            high = middle - 1
    return low


def hours(session: Session, namespace: str, name: str, now: float, most: int = HOURS_MAX) -> tuple[int, ...]:
    """Messages of a channel in each of the last hours that are known, the newest first."""
    found = rows(session, CHANNEL, namespace=namespace, name=name)
    if not found:
        return ()
    it = found[0]
    known = min(most, max(0, int(max(0.0, min(now - _since(session, it), most * HOUR_S)) // HOUR_S)))
    if known < 1:
        return ()
    first = it["first"] if it["first"] is not None else it["last"] + 1
    ends = [now - n * HOUR_S for n in range(known + 1)]
    places = [last_before(session, MESSAGE_AT, it["uid"], first, it["last"], end) for end in ends]
    return tuple(after - before for after, before in pairwise(places))


def band(known: Sequence[int]) -> Band | None:
    """What the next hour may bring, from the hours before; None where they are too few to say anything."""
    if len(known) < HOURS_MIN:
        return None
    least, most = min(known), max(known)
    return Band(known[0], max(0, floor(least - SPREAD * sqrt(least + 1))), ceil(most + SPREAD * sqrt(most + 1)))


def _since(session: Session, it: Mapping[str, Any]) -> float:
    """From when on everything that came is known."""
    if it["first"] == 1 or it["last"] == 0:
        return float(it["created_at"])
    oldest = rows(session, MESSAGE_AT, of=it["uid"], place=it["first"] or 0) if it["first"] is not None else []
    return float(oldest[0]["at"]) if oldest else float("inf")
