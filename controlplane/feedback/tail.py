"""The end of the feedback log, watched once for everybody who waits for it to move.

However many readers wait, one task hears the bell, looks where the log ends, and wakes them when it has
moved; by itself it looks every second, so that a ring that was missed costs a second and nothing else. It
runs only while somebody waits. `mark` counts the moves: who read under a mark and waits under it misses
no move in between. What is read under a mark is read up to its `end`: so it serves all who stand at the same
place, and leaves them at the same place. Waking many is paced, so that they do not take the loop from
everybody else.
"""

import asyncio
from collections.abc import Callable

from sqlmodel import Session

from controlplane.feedback.doorbell import LocalDoorbell
from controlplane.store.store import Store
from schemas.ports import Doorbell
from schemas.problem import Refusal

LOOK_AGAIN_S = 1.0
PACE_S = 0.001  # for each reader who was woken, before the next look
PAUSE_S_MAX = 1.0


class Tail:
    """Wakes whoever waits for the log to move. `end` is the query for its end."""

    def __init__(self, store: Store, doorbell: Doorbell, end: Callable[[Session], int]) -> None:
        self.mark = 0
        self._store = store
        self._doorbell = doorbell
        self._query = end
        self.end: int | None = None
        self._moved = LocalDoorbell()
        self._waiting = 0
        self._looking: asyncio.Task[None] | None = None

    @property
    def live(self) -> bool:
        """Whether somebody waits, so that `end` is of now, give or take a pause."""
        return self._looking is not None

    async def wait(self, mark: int, timeout_s: float) -> None:
        """Return when the log has moved since the mark, or after `timeout_s`; NOT_READY once the plane is stopping."""
        if self.mark != mark:
            return
        self._waiting += 1
        if self._looking is None:
            self._looking = asyncio.get_running_loop().create_task(self._look())
        try:
            await self._moved.wait(timeout_s)
        finally:
            self._waiting -= 1
            if not self._waiting and self._looking is not None:
                self._looking.cancel()
                self._looking = None

    async def _look(self) -> None:
        while True:
            rung = self._doorbell.rung
            await self._look_once()
            try:
                await self._doorbell.wait(LOOK_AGAIN_S, since=rung)
            except Refusal:
                self._moved.close()
                return

    async def _look_once(self) -> None:
        try:
            end: int | None = await self._store.read(self._query)
        except Refusal:
            end = None  # the database is away: whoever waits is told so by their own read
        if end is not None and end == self.end:
            return
        self.end = end
        self.mark += 1
        woken = self._waiting
        self._moved.ring()
        await asyncio.sleep(min(woken * PACE_S, PAUSE_S_MAX))
