"""Who talks to whom, counted from the messages that turns handled. Pure.

An envelope that was made here begins with its source, subject and time; nothing behind them, where others write, is
looked at. A message that goes on from another turn (`continue_as`) is the same one, and not counted again.
"""

import re
from collections.abc import Iterable
from datetime import datetime
from typing import Any, NamedTuple

from controlplane.store import traffic as sql

_HEAD = re.compile(
    r'\{"specversion":"1\.0","id":"[^"]*","source":"([^"\\]*)","type":"[^"]*",(?:"subject":"([^"\\]*)",)?"time":"([^"]*)"'
)
_GOES_ON = re.compile(r'"continues":"[^"]*"\}$')
OTHERS = "*"
Row = tuple[str, tuple[Any, ...], int]


class Edge(NamedTuple):
    """From a source to an agent, by a channel or straight."""

    namespace: str
    name: str
    source: str
    channel: str


class Sum(NamedTuple):
    messages: int
    chars: int
    wait_s: float
    since: float
    last: float

    def plus(self, other: "Sum") -> "Sum":
        waited, chars = self.wait_s + other.wait_s, self.chars + other.chars
        return Sum(
            self.messages + other.messages, chars, waited, min(self.since, other.since), max(self.last, other.last)
        )


def counted(turns: Iterable[tuple[Any, ...]]) -> dict[Edge, Sum]:
    """The sums of ended turns, as `traffic.COUNTED` reads them."""
    sums: dict[Edge, Sum] = {}
    for head, tail, size, started_at, finished_at, namespace, name in turns:
        if _GOES_ON.search(tail):
            continue
        edge, sent_at = _edge(head, namespace, name)
        waited = 0.0 if sent_at is None else max(0.0, started_at - sent_at)
        one = Sum(1, int(size), waited, started_at, finished_at)
        sums[edge] = sums[edge].plus(one) if edge in sums else one
    return sums


def rows_of(sums: dict[Edge, Sum]) -> list[Row]:
    """The rows that add them; of an agent with very many sources, the further ones are counted together."""
    sources = sorted(sums.items())
    rows: list[Row] = [(sql.ADD, (*it, *sum_, *it, it.namespace, it.name), -1) for it, sum_ in sources]
    sources.sort(
        key=lambda of: of[0].source != OTHERS
    )  # that one first: the further ones make the row that it looks for
    rows += [(sql.ADD_TO_OTHERS, (it.namespace, it.name, OTHERS, "", *sum_, *it), -1) for it, sum_ in sources]
    return rows


def _edge(head: str, namespace: str, name: str) -> tuple[Edge, float | None]:
    found = _HEAD.match(head)
    if found is None:
        return Edge(namespace, name, OTHERS, ""), None
    source, subject, time = found.groups()
    channel = "" if subject in (None, "", f"{namespace}/{name}") else subject.removeprefix(f"{namespace}/")
    try:
        sent_at = datetime.fromisoformat(time).timestamp()
    except ValueError:
        sent_at = None
    return Edge(namespace, name, source, channel), sent_at
