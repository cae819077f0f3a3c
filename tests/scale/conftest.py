"""Planes in process with few and with many agents, all started and at rest."""

import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from controlplane.store.direct import DirectWriter
from tests.operations.plane import Plane, agent, channel, fleet
from tests.scale.counting import CountedStore

FEW, MANY = 20, 1_000


class Sized:
    """A plane with a fleet `crowd` of so many agents, and the store that counts."""

    def __init__(self, store: CountedStore, size: int) -> None:
        self.store, self.size = store, size
        self.plane = Plane(store, agents_max=100_000)

    async def fill(self) -> None:
        single = agent("single", labels={"part": "single"})
        await self.plane.apply(fleet("crowd", self.size), single, channel("news"))
        await self.plane.settle(ticks=1_000)


@pytest.fixture
async def sized(anyio_backend: str, _migrated_file: Path, tmp_path: Path) -> AsyncIterator[list[Sized]]:
    """Two planes, one with few agents and one with many."""
    made, writers = [], []
    for size in (FEW, MANY):
        path = tmp_path / f"{size}.db"
        shutil.copy(_migrated_file, path)
        writers.append(DirectWriter(f"sqlite:///{path}"))
        made.append(Sized(CountedStore(f"sqlite:///{path}", writers[-1]), size))
        await made[-1].fill()
    yield made
    for it, writer in zip(made, writers, strict=True):
        await it.store.close()
        writer.close()
