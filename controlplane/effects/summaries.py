"""Routine turns in the feedback log: one `turns.summary` per agent and second, neither lost nor doubled.

Counts are kept in memory between two flushes; the mark of what was told commits with the events. After
a crash the turns that finished past the mark are counted again from their rows, and told once.
"""

import asyncio
from dataclasses import dataclass
from typing import Any

from controlplane.effects.entries import at_time
from controlplane.effects.node import MESSAGES, Node
from controlplane.store import statements as sql
from schemas.base import canonical

FLUSH_S = 1.0


@dataclass(slots=True)
class Count:
    """What one agent did since the last flush."""

    turns: int = 0
    failed: int = 0
    effects: int = 0
    since: float = 0.0
    until: float = 0.0


class Summaries:
    """Counts turns, and tells them in batches."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._counts: dict[tuple[str, str], Count] = {}

    def add(self, namespace: str, name: str, effects: int, now: float, *, failed: bool = False) -> None:
        count = self._counts.setdefault((namespace, name), Count(since=now))
        count.turns += 1
        count.failed += failed
        count.effects += effects
        count.until = max(count.until, now)

    def recover(self) -> None:
        """Count what finished past the mark, before the crash."""
        row = self._node.reader.one(sql.SUMMARY_MARK)
        for found in self._node.reader.rows(sql.UNSUMMARISED, float(row[0]) if row else 0.0):
            namespace, name, turns, failed, effects, since, until = found
            self._counts[namespace, name] = Count(int(turns), int(failed), int(effects or 0), since, until)

    def flush(self) -> None:
        counts, self._counts = self._counts, {}
        if not counts:
            return
        now = self._node.clock()
        mark = max(count.until for count in counts.values())
        rows: list[Any] = [_told(*address, count, now) for address, count in counts.items()]
        rows.append((sql.SUMMARY_MARK_PUT, (repr(mark),), 1))

        def flushed(outcome: str, _detail: str) -> None:
            if outcome != "ok":
                for (namespace, name), count in counts.items():
                    kept = self._counts.setdefault((namespace, name), Count(since=count.since))
                    kept.turns += count.turns
                    kept.failed += count.failed
                    kept.effects += count.effects
                    kept.until = max(kept.until, count.until)

        self._node.commit(rows, flushed, MESSAGES)

    async def flushing(self) -> None:
        while True:
            await asyncio.sleep(FLUSH_S)
            self.flush()


def _told(namespace: str, name: str, count: Count, now: float) -> Any:
    data = {
        "turns": count.turns,
        "failed": count.failed,
        "effects": count.effects,
        "from": at_time(count.since),
        "to": at_time(count.until),
    }
    return sql.EVENT, ("turns.summary", now, "Agent", namespace, name, None, None, canonical(data).decode()), 1
