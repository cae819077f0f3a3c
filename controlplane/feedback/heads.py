"""The ends of channels, watched once for everybody who waits for one of them to move.

As `tail` does for the log: one task hears the bell, looks where all channels end that somebody reads, in one query,
and wakes the readers of those that moved. By itself it looks every second. It runs while somebody reads. A reader
takes a channel's `mark`, reads, and waits under that mark: so no move in between is missed. Waking is paced.
"""

import asyncio
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import islice

from sqlalchemy import select, tuple_
from sqlmodel import Session, col

from controlplane.feedback.doorbell import stopping
from controlplane.store.store import Store
from controlplane.store.tables import ChannelRow
from schemas.ports import Doorbell
from schemas.problem import Refusal

LOOK_AGAIN_S = 1.0
PACE_S = 0.001  # for each reader who was woken, before the next look
PAUSE_S_MAX = 0.5
CHUNK = 200
Channel = tuple[str, str]  # namespace, name


@dataclass
class _Head:
    """Where a channel ends, as of the last look, and who waits for it to move."""

    end: int | None = None
    mark: int = 0
    readers: int = 0
    waiting: set["asyncio.Future[None]"] = field(default_factory=set)


class Heads:
    """Wakes readers of channels."""

    def __init__(self, store: Store, doorbell: Doorbell) -> None:
        self._store = store
        self._doorbell = doorbell
        self._heads: dict[Channel, _Head] = {}
        self._looking: asyncio.Task[None] | None = None
        self._stopping = False

    @contextmanager
    def reading(self, channel: Channel) -> Iterator[None]:
        """The channel is watched while the block runs."""
        head = self._heads.setdefault(channel, _Head())
        head.readers += 1
        if self._looking is None:
            self._looking = asyncio.get_running_loop().create_task(self._look())
        try:
            yield
        finally:
            head.readers -= 1
            if not head.readers:
                del self._heads[channel]
            if not self._heads and self._looking is not None:
                self._looking.cancel()
                self._looking = None

    def mark(self, channel: Channel) -> int:
        """How often the channel that is being read has moved."""
        return self._heads[channel].mark

    async def wait(self, channel: Channel, mark: int, timeout_s: float) -> None:
        """Return when the channel has moved since the mark, or after `timeout_s`; NOT_READY once the plane stops."""
        head = self._heads[channel]
        if self._stopping:
            raise stopping()
        if head.mark != mark:
            return
        moved = asyncio.get_running_loop().create_future()
        head.waiting.add(moved)
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(timeout_s):
                    await moved
        finally:
            head.waiting.discard(moved)
        if self._stopping:
            raise stopping()

    async def _look(self) -> None:
        while True:
            rung = self._doorbell.rung
            await asyncio.sleep(min(await self._look_once() * PACE_S, PAUSE_S_MAX))
            try:
                await self._doorbell.wait(LOOK_AGAIN_S, since=rung)
            except Refusal:
                self._stopping = True
                for head in self._heads.values():
                    _wake(head)
                return

    async def _look_once(self) -> int:
        """How many readers were woken."""
        watched = list(self._heads)
        ends: dict[Channel, int] = {}
        chunks = iter(watched)
        try:
            while some := list(islice(chunks, CHUNK)):
                ends |= await self._store.read(partial(_ends, channels=some))
        except Refusal:
            ends = {}  # the database is away: who waits is told so by their own read
        woken = 0
        for channel in watched:
            head = self._heads.get(channel)
            if head is None or (channel in ends and ends[channel] == head.end):
                continue
            head.end = ends.get(channel)
            head.mark += 1
            woken += len(head.waiting)
            _wake(head)
        return woken


def _wake(head: _Head) -> None:
    for moved in head.waiting:
        if not moved.done():
            moved.set_result(None)


def _ends(session: Session, channels: Collection[Channel]) -> dict[Channel, int]:
    """Where channels end; those that are not there are left out."""
    place = tuple_(col(ChannelRow.namespace), col(ChannelRow.name))
    query = select(col(ChannelRow.namespace), col(ChannelRow.name), col(ChannelRow.next_position)).where(
        place.in_(list(channels))
    )
    return {(namespace, name): int(end) for namespace, name, end in session.connection().execute(query)}
