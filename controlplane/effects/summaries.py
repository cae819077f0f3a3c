"""Routine turns in the feedback log: one `turns.summary` per agent and second, neither lost nor doubled; and who talks
to whom, by the messages that those turns handled.

Nothing is counted in memory. Turns are counted from their rows, from the mark up to a moment before
which no turn can end any more, and the mark moves in the unit that tells them: so a crash at any point
tells each turn once. The moment is before every end that is still on its way to the disk.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import Any

from controlplane.effects import traffic
from controlplane.effects.node import MESSAGES, Node
from controlplane.effects.reading import Away
from controlplane.effects.turnref import at_time
from controlplane.store import statements as sql
from controlplane.store.traffic import COUNTED
from schemas.base import canonical

log = logging.getLogger("steward.gate")
FLUSH_S = 1.0


class Summaries:
    """Tells of turns that ended, in batches."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._ending: dict[int, float] = {}
        self._next = 0
        self._ended = True
        self._mark: float | None = None

    def ending(self, at: float) -> Callable[[], None]:
        """A turn's end is on its way; call what this answers when it was committed or refused."""
        self._next += 1
        number = self._next
        self._ending[number] = at

        def ended() -> None:
            del self._ending[number]
            self._ended = True

        return ended

    async def flush(self) -> None:
        """Tell of what has ended since the mark."""
        if not self._ended:
            return
        self._ended = bool(self._ending)
        if self._mark is None:
            row = self._node.reader.one(sql.SUMMARY_MARK)
            self._mark = float(row[0]) if row else 0.0
        until = min(self._ending.values(), default=self._node.clock()) - 1e-6
        found = await self._node.reader.rows_aside(sql.UNSUMMARISED, self._mark, until)
        if found:
            handled = await self._node.reader.rows_aside(COUNTED, self._mark, until)
            moved = await asyncio.to_thread(traffic.counted, handled)
            await self._tell(found, traffic.rows_of(moved), until)

    async def _tell(self, found: list[tuple[Any, ...]], moved: list[traffic.Row], until: float) -> None:
        now = self._node.clock()
        told: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        rows: list[Any] = [*(_event(row, now) for row in found), *moved]
        rows.append((sql.SUMMARY_MARK_PUT, (repr(until),), 1))

        def committed(outcome: str, _detail: str) -> None:
            if not told.done():
                told.set_result(outcome)

        self._node.commit("summary", rows, committed, MESSAGES)
        if await told == "ok":
            self._mark = until
        else:
            self._ended = True

    async def flushing(self) -> None:
        while True:
            await asyncio.sleep(FLUSH_S)
            with contextlib.suppress(Away):
                await self.flush()


def _event(row: tuple[Any, ...], now: float) -> Any:
    namespace, name, turns, failed, effects, since, until = row
    data = {
        "turns": int(turns),
        "failed": int(failed),
        "effects": int(effects or 0),
        "from": at_time(since),
        "to": at_time(until),
    }
    return sql.EVENT, ("turns.summary", now, "Agent", namespace, name, None, None, canonical(data).decode()), 1
