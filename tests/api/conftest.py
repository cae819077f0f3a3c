"""Planes for tests of the surfaces."""

from collections.abc import AsyncIterator

import httpx
import pytest

from tests.api.plane import Plane, in_process, listening


@pytest.fixture
async def surface(anyio_backend: str, sqlite_url: str) -> AsyncIterator[tuple[Plane, httpx.AsyncClient]]:
    """A plane with a client of its admin, in process."""
    async with in_process(sqlite_url) as found:
        yield found


@pytest.fixture
async def client(surface: tuple[Plane, httpx.AsyncClient]) -> httpx.AsyncClient:
    return surface[1]


@pytest.fixture
async def plane(surface: tuple[Plane, httpx.AsyncClient]) -> Plane:
    return surface[0]


@pytest.fixture
async def live(anyio_backend: str, sqlite_url: str) -> AsyncIterator[Plane]:
    """A plane on a real port."""
    async with listening(sqlite_url) as found:
        yield found
