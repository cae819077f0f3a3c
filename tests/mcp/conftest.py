"""Real MCP clients of a real port, in both protocol eras."""

import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import httpx2
import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from tests import zygote
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
async def connected(plane: Plane, path: str, token: str, mode: str, **client_can: Any) -> AsyncIterator[Client]:
    async with (
        httpx2.AsyncClient(headers=plane.headers(token), timeout=40) as http,
        Client(streamable_http_client(plane.url + path, http_client=http), mode=MODES[mode], **client_can) as client,
    ):
        yield client


@asynccontextmanager
async def lived(url: str, manifests: list[dict[str, Any]]) -> AsyncIterator[Plane]:
    """A plane with agents that live on a host."""
    async with listening(url) as plane:
        host = zygote.start("host", "--socket", str(plane.parts.gate._socket), "--host-id", "host_clinic")
        try:
            async with httpx.AsyncClient(base_url=plane.url, headers=plane.headers(), timeout=40) as rest:
                plan = await called(rest, "resources.propose", manifests=manifests)
                change = await called(rest, "plans.commit", plan_id=plan["plan_id"])
                await called(rest, "changes.wait", change_id=change["change_id"], timeout_s=30)
            yield plane
        finally:
            host.kill()
            host.wait(timeout=10)


async def called(rest: httpx.AsyncClient, operation: str, **given: Any) -> dict[str, Any]:
    """The output of an operation over REST."""
    answer = await rest.post(f"/v1/operations/{operation}/call", json=given)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


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
