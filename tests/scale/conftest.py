"""Planes in process with few and with many agents, all started and at rest."""

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from controlplane.store.direct import DirectWriter
from tests.operations.plane import Plane, agent, channel, fleet
from tests.scale.counting import CountedStore

FEW, MANY = 20, 1_000
Filled = list[tuple[int, Path, float]]  # size, database, and the plane's time


class Sized:
    """A plane with a fleet `crowd` of so many agents, and the store that counts."""

    def __init__(self, store: CountedStore, size: int) -> None:
        self.store, self.size = store, size
        self.plane = Plane(store, agents_max=100_000)

    async def fill(self) -> None:
        single = agent("single", labels={"part": "single"})
        await self.plane.apply(fleet("crowd", self.size), single, channel("news"))
        await self.plane.settle(ticks=1_000)


@asynccontextmanager
async def opened(path: Path, size: int) -> AsyncIterator[Sized]:
    writer = DirectWriter(f"sqlite:///{path}")
    made = Sized(CountedStore(f"sqlite:///{path}", writer), size)
    yield made
    await made.store.close()
    writer.close()


@pytest.fixture(scope="session")
async def filled(anyio_backend: str, _migrated_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Filled:
    """Their databases, at rest, once for all tests: a thousand agents take seconds to come."""
    folder, found = tmp_path_factory.mktemp("filled"), []
    for size in (FEW, MANY):
        path = folder / f"{size}.db"
        shutil.copy(_migrated_file, path)
        async with opened(path, size) as made:
            await made.fill()
        assert not path.with_name(f"{size}.db-wal").exists(), "all of it is in the file"
        found.append((size, path, made.plane.now))
    return found


@pytest.fixture
async def sized(filled: Filled, tmp_path: Path) -> AsyncIterator[list[Sized]]:
    """Two planes of this test alone, one with few agents and one with many."""
    paths = [shutil.copy(path, tmp_path) for _, path, _ in filled]
    async with opened(paths[0], FEW) as few, opened(paths[1], MANY) as many:
        for it, (_, _, now) in zip((few, many), filled, strict=True):
            it.plane.now = now
            await it.plane.settle(ticks=1_000)  # a plane that begins looks at everything once
        yield [few, many]
