"""Shares are counted by the whole identity: who has another's name, and another reach, takes nothing of theirs."""

import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest

from controlplane.feedback.stream import EventStreams
from tests.api.plane import Plane, listening
from tests.api.test_authorization import require_problem
from tests.api.test_events import stream

pytestmark = pytest.mark.anyio

SEARCH = "/v1/operations/operations.search/call"
LISTEN = {
    "MCP-Protocol-Version": "2026-07-28",
    "Mcp-Method": "subscriptions/listen",
    "Accept": "application/json, text/event-stream",
}
META = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientInfo": {"name": "tests", "version": "1"},
    "io.modelcontextprotocol/clientCapabilities": {},
}
WATCHED = {"notifications": {"resourceSubscriptions": ["steward://feedback"]}, "_meta": META}
BODY = b'{"query": "a"%b}' % (b" " * 900)


@pytest.fixture
async def tight(anyio_backend: str, quick_url: str) -> AsyncIterator[Plane]:
    """A plane with two places for readers, one a principal, and room for four whole bodies."""
    bounds = {"body_bytes_max": 1024, "body_bytes_in_flight_max": 1024}
    async with listening(quick_url, streams=EventStreams(readers_max=2, heartbeat_s=0.2), **bounds) as plane:
        yield plane


def client(plane: Plane, label: str) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=plane.url, headers=plane.headers(label), timeout=20)


async def refused(plane: Plane, asked: httpx.Request) -> None:
    """Ask until the flood has taken its share; then it is refused."""
    async with asyncio.timeout(10), client(plane, "operator") as one:
        while (answer := await one.send(asked)).status_code == 200:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    require_problem(answer, 429, "QUOTA")
    assert answer.json()["metadata"]["principal"] == "op@default"


async def test_a_namesake_s_subscriptions_take_none_of_another_s(tight: Plane) -> None:
    """A subscription is counted with the streams of whoever asks for it, and apart from its namesake's."""
    async with stream(tight, "operator") as reading:
        assert reading.answer.status_code == 200
        asked = {"jsonrpc": "2.0", "id": 1, "method": "subscriptions/listen", "params": WATCHED}
        async with client(tight, "operator") as one, one.stream("POST", "/mcp", json=asked, headers=LISTEN) as told:
            assert '"QUOTA"' in await anext(told.aiter_text())
        async with client(tight, "namesake") as other, other.stream("POST", "/mcp", json=asked, headers=LISTEN) as told:
            assert "subscriptions/acknowledged" in await anext(told.aiter_text())


async def test_a_namesake_s_bodies_take_none_of_another_s(tight: Plane) -> None:
    """Bodies that never come to their end fill the share of whoever sends them, and nobody else's."""
    over = asyncio.Event()

    async def slowly() -> AsyncIterator[bytes]:
        yield BODY[:-2]
        await over.wait()

    async with client(tight, "operator") as one, client(tight, "namesake") as other:
        headers = {"Content-Type": "application/json"}
        sending = [asyncio.ensure_future(one.post(SEARCH, content=slowly(), headers=headers)) for _ in range(3)]
        await refused(tight, one.build_request("POST", SEARCH, content=BODY, headers=headers))
        assert (await other.post(SEARCH, content=BODY, headers=headers)).status_code == 200
        for it in sending:
            it.cancel()
        await asyncio.gather(*sending, return_exceptions=True)
