"""Planes for tests of the surfaces: one for all sweeps of a module, or one of a test's own."""

import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from tests.api.plane import Plane, in_process, listening


@pytest.fixture(scope="module")
async def swept(
    anyio_backend: str, _migrated_file: Path, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[tuple[Plane, httpx.AsyncClient]]:
    """One plane for tests that leave it as it was."""
    path = tmp_path_factory.mktemp("swept") / "steward.db"
    shutil.copy(_migrated_file, path)
    async with in_process(f"sqlite:///{path}") as found:
        yield found


@pytest.fixture(scope="module")
async def plane(swept: tuple[Plane, httpx.AsyncClient]) -> Plane:
    return swept[0]


@pytest.fixture(scope="module")
async def client(swept: tuple[Plane, httpx.AsyncClient]) -> httpx.AsyncClient:
    """A client of the shared plane's admin, in process."""
    return swept[1]


@pytest.fixture
async def fresh(anyio_backend: str, quick_url: str) -> AsyncIterator[tuple[Plane, httpx.AsyncClient]]:
    """A plane of this test alone, with a client of its admin."""
    async with in_process(quick_url) as found:
        yield found


@pytest.fixture
async def live(anyio_backend: str, quick_url: str) -> AsyncIterator[Plane]:
    """A plane on a real port."""
    async with listening(quick_url) as found:
        yield found
