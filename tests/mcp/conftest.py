"""Real MCP clients of a real port, in both protocol eras."""

import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import httpx2
import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from tests.api.plane import Plane, listening

Connect = Callable[..., AbstractAsyncContextManager[Client]]
MODES = {"modern": "auto", "handshake": "legacy"}


@pytest.fixture
async def plane(anyio_backend: str, quick_url: str) -> AsyncIterator[Plane]:
    async with listening(quick_url) as found:
        yield found


@pytest.fixture(scope="module")
async def swept(
    anyio_backend: str, _migrated_file: Path, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Plane]:
    """One plane for tests that leave it as it was."""
    path = tmp_path_factory.mktemp("swept") / "steward.db"
    shutil.copy(_migrated_file, path)
    async with listening(f"sqlite:///{path}") as found:
        yield found


@asynccontextmanager
async def connected(plane: Plane, path: str, token: str, mode: str) -> AsyncIterator[Client]:
    async with (
        httpx2.AsyncClient(headers=plane.headers(token), timeout=40) as http,
        Client(streamable_http_client(plane.url + path, http_client=http), mode=MODES[mode]) as client,
    ):
        yield client


@pytest.fixture(params=list(MODES))
def connect_swept(swept: Plane, request: pytest.FixtureRequest) -> Connect:
    """As `connect`, to the plane that tests share."""

    def to(path: str = "/mcp", token: str = "admin") -> AbstractAsyncContextManager[Client]:
        return connected(swept, path, token, request.param)

    return to


@pytest.fixture(params=list(MODES))
def connect(plane: Plane, request: pytest.FixtureRequest) -> Connect:
    """Connects a client of a role to an endpoint; the test runs in both eras."""

    def to(path: str = "/mcp", token: str = "admin") -> AbstractAsyncContextManager[Client]:
        return connected(plane, path, token, request.param)

    return to
