"""A message on its way into a channel, or in wait for its time: rows of a unit. Pure."""

from collections.abc import Sequence
from typing import Any

from controlplane.store import publishing, queues
from controlplane.store import statements as sql
from schemas.posting import Placed

Row = tuple[str, Sequence[Any], int]


def channel_rows(
    namespace: str, name: str, made: str, text: str, how: Placed, now: float, room: int | None = None
) -> list[Row]:
    """Take the next position of a channel; a message that is there already changes nothing. A queue has it to give.
    Of a broadcast, whoever has all that was before, and no more than `room` messages, gets it at once."""
    along = (
        (publishing.TO_MEMBERS, (now, namespace, name, room), -1),
        (publishing.MEMBERS_FOLLOW, (namespace, name), -1),
    )
    urged = how.rank is not None and how.key is not None
    return [
        (sql.CHANNEL_PUT, (made, how.key, how.rank, text, now, namespace, name, made), -1),
        (queues.QUEUE_PUT, (how.expires_at or None, namespace, name), -1),
        *([(queues.URGE, (how.rank, how.key, how.rank, namespace, name), -1)] if urged else ()),
        *(along if room is not None else ()),
        (sql.CHANNEL_BUMP, (namespace, name), -1),
    ]


def channel_of(put: Sequence[Any]) -> tuple[str, str]:
    """The channel that a message is put into, by the values of `CHANNEL_PUT`."""
    return put[5], put[6]


def delayed(kind: str, namespace: str, name: str, made: str, text: str, how: Placed) -> Row:
    """It waits until it is due; one that waits already changes nothing."""
    about = (made, how.key, how.rank, how.expires_at or None, text, how.due_at)
    return queues.DELAY, (kind, namespace, name, *about), -1
