"""A trace that comes along goes on: over REST and MCP, through agents, and out over HTTP. Real clients, a real host."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import httpx2
import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from tests.api.plane import Plane
from tests.gate.counting import Counting, counting
from tests.mcp.conftest import MODES, connected, lived

pytestmark = pytest.mark.anyio
SOURCE = """
from ray_runtime import Agent


class Teller(Agent):
    async def on_message(self, turn, envelope):
        answer = await turn.ask("helper", envelope.data)
        turn.publish("told", envelope.data)
        turn.request("helper", envelope.data)
        return {"came": envelope.traceparent, "went": answer.data}

    async def on_reply(self, turn, reply):
        turn.publish("told", reply.data)


class Helper(Agent):
    async def on_message(self, turn, envelope):
        await turn.perform("http.request", connection="out", method="POST", json={})
        return envelope.traceparent
"""
TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
OTHER = "00-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa-00f067aa0ba902b7-00"
MALFORMED = (
    "x",
    TRACE.upper(),
    f"00-{32 * '0'}-00f067aa0ba902b7-01",
    TRACE + "-01",
)
Scene = tuple[Plane, Counting]


def manifests(far: Counting) -> list[dict[str, Any]]:
    code, grants = {"files": {"zoo.py": SOURCE}}, [{"effect": "http.request", "connection": "out"}]
    spec = {"protocol": "http", "endpoint": far.endpoint, "options": {"allow_private": True}}
    return [
        {"kind": "Connection", "metadata": {"name": "out"}, "spec": spec},
        {"kind": "Channel", "metadata": {"name": "told"}, "spec": {}},
        *(
            {
                "kind": "Agent",
                "metadata": {"name": name},
                "spec": {
                    "code": code,
                    "entrypoint": f"zoo:{name.title()}",
                    "mandate": {"purpose": "tells", "grants": grants},
                    "capabilities": ["tell"],
                },
            }
            for name in ("teller", "helper")
        ),
    ]


@pytest.fixture(scope="module")
async def scene(
    anyio_backend: str, _migrated_file: Path, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Scene]:
    path = tmp_path_factory.mktemp("traced") / "steward.db"
    shutil.copy(_migrated_file, path)
    async with counting() as far, lived(f"sqlite:///{path}", manifests(far)) as plane:
        yield plane, far


def rest(plane: Plane, **headers: str) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=plane.url, headers=plane.headers(**headers), timeout=40)


async def ask(plane: Plane, **headers: str) -> Any:
    async with rest(plane, **headers) as client:
        answered = (await client.post("/v1/agents/default/teller/ask", json={"data": 1, "timeout_s": 30})).json()
        return answered["reply"]


async def told(plane: Plane, many: int) -> list[dict[str, Any]]:
    """What agents and operators published, once there is so much."""
    found: list[dict[str, Any]] = []
    given: dict[str, Any] = {"wait_s": 20}
    async with rest(plane) as client, asyncio.timeout(40):
        while len(found) < many:
            page = (await client.get("/v1/channels/default/told/read", params=given)).json()
            found += page["envelopes"]
            given["after"] = page["cursor"]
    return found


async def test_a_trace_goes_in_by_rest_through_agents_and_out_by_http(scene: Scene) -> None:
    """An ask, a send and a publication go on in it; also what answers make an agent do."""
    plane, far = scene
    reply = await ask(plane, traceparent=TRACE)
    seen = {it["traceparent"] for it in await told(plane, 2)}
    assert {reply["came"], reply["went"], *seen, *(it.headers["traceparent"] for it in far.asked)} == {TRACE}
    async with rest(plane, traceparent=OTHER) as client:
        published = await client.post("/v1/channels/default/told/publish", json={"data": 2})
        body = {"name": "channels.publish", "arguments": {"name": "told", "data": 3}}
        called = await client.post("/v1/operations/call", json=body)
        assert (published.status_code, called.status_code) == (200, 200), called.text
    assert {it["traceparent"] for it in await told(plane, 4) if it["data"] in (2, 3)} == {OTHER}


async def test_what_is_malformed_begins_a_new_trace(scene: Scene) -> None:
    """As if nothing had come along, each time another one; nothing is refused for it."""
    plane = scene[0]
    traces = set()
    for given in MALFORMED:
        reply = await ask(plane, traceparent=given)
        assert reply["came"] == reply["went"] != given
        traces.add(reply["came"])
    assert len(traces) == len(MALFORMED)


@pytest.mark.parametrize("mode", MODES)
async def test_a_trace_comes_in_by_mcp(scene: Scene, mode: str) -> None:
    """By `_meta` of a call of an agent's tool, of an intent, and of an operation's tool; not by a malformed one."""
    plane = scene[0]
    ask_teller = {"name": "teller", "data": 1}
    calls: tuple[tuple[str, str, dict[str, Any]], ...] = (
        ("/mcp/agents/default", "teller__tell", {"data": 1}),
        ("/mcp", "act", {"operation": "agents.ask", "arguments": ask_teller}),
        ("/mcp/full", "agents_ask", {**ask_teller, "timeout_s": 30}),
    )
    for path, tool, arguments in calls:
        async with connected(plane, path, "operator", mode) as client:
            for given, kept in ((TRACE, True), ("x", False)):
                result = await client.call_tool(tool, arguments, meta={"traceparent": given})
                assert not result.is_error, result.structured_content
                reply = found(result.structured_content, "came")
                assert (reply["came"] == given, reply["came"] == reply["went"]) == (kept, True), (path, reply)


@pytest.mark.parametrize("mode", MODES)
async def test_without_one_in_meta_that_of_the_request_counts(scene: Scene, mode: str) -> None:
    """A client that traces its HTTP requests need not say it twice; what `_meta` says is nearer to the call."""
    plane = scene[0]
    async with (
        httpx2.AsyncClient(headers=plane.headers("operator", traceparent=OTHER), timeout=40) as http,
        Client(streamable_http_client(plane.url + "/mcp/agents/default", http_client=http), mode=MODES[mode]) as client,
    ):
        plain = await client.call_tool("teller__tell", {"data": 1})
        said = await client.call_tool("teller__tell", {"data": 1}, meta={"traceparent": TRACE})
    came = [found(it.structured_content, "came")["came"] for it in (plain, said)]
    assert came == [OTHER, TRACE]


def found(tree: Any, key: str) -> Any:
    """The object in a result that has this key."""
    if isinstance(tree, dict):
        if key in tree:
            return tree
        return next((it for it in (found(value, key) for value in tree.values()) if it is not None), None)
    return None
