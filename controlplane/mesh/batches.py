"""Several envelopes as one message: a batch is formed when it is delivered, and handled in one turn.

It lies in the inbox as any message does, so that it is consumed, repeated and given up as a whole. Pure.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import accumulate

import msgspec
import orjson

from controlplane.store import statements as sql
from schemas.base import rfc3339, short_id, turn_of

Row = tuple[str, Sequence[object], int]
BATCH_BYTES_MAX = 1_048_576


class _Labelled(msgspec.Struct):
    taint: str | None = None


_labels = msgspec.json.Decoder(_Labelled)


def fitting(bodies: Sequence[str]) -> int:
    """How many of the first bodies go into one batch: at least one."""
    sizes = accumulate(len(body.encode()) for body in bodies)
    return max(1, sum(1 for size in sizes if size <= BATCH_BYTES_MAX))


def batch(agent: str, source: str, parts: tuple[object, ...], bodies: Sequence[str], now: float) -> Row:
    """The row of a batch, which has the label of any of its envelopes; `parts` make its id."""
    message_id = short_id("msg", "batch", agent, *parts)
    taint = next((found for it in bodies if (found := _labels.decode(it).taint) is not None), None)
    body = {
        "specversion": "1.0",
        "id": message_id,
        "source": source,
        "type": "steward.batch",
        "time": rfc3339(datetime.fromtimestamp(now, UTC)),
        "datacontenttype": "application/json",
        **({} if taint is None else {"taint": taint}),
        "data": [orjson.Fragment(it) for it in bodies],
    }
    return put(agent, message_id, "batch", orjson.dumps(body).decode(), now)


def put(agent: str, message_id: str, trigger: str, body: str, now: float) -> Row:
    """A message for an inbox, unless it was handled before."""
    return sql.PUT, (agent, message_id, trigger, body, now, turn_of(agent, message_id)), -1
