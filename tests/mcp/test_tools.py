"""The lists of tools: every operation is one, the intents are few, and a list costs little."""

import httpx
import orjson
import pytest

from controlplane.resources.catalogue import OPERATIONS
from tests.api.plane import Plane
from tests.mcp.conftest import Connect

pytestmark = pytest.mark.anyio

INTENT_LIST_BYTES_MAX = 20_000
INTENTS = {"look", "find", "get", "propose", "commit", "wait", "undo", "act"} | {
    "operations_search",
    "operations_describe",
    "operations_call",
}


async def test_both_eras_are_served_on_one_endpoint(connect: Connect, request: pytest.FixtureRequest) -> None:
    """A client of today and one of before get the same server, with its instructions."""
    async with connect() as client:
        handshake = "handshake" in request.node.name
        assert client.protocol_version == ("2025-11-25" if handshake else "2026-07-28")
        assert client.server_info is not None
        assert client.server_info.name == "steward"
        assert "propose" in (client.instructions or "")


async def test_every_operation_is_a_tool(connect: Connect) -> None:
    """`/mcp/full` has one tool for each operation, with its input and what to expect of it."""
    async with connect("/mcp/full") as client:
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
    assert set(tools) == {operation.tool for operation in OPERATIONS.values()}
    for operation in OPERATIONS.values():
        tool = tools[operation.tool]
        assert set(tool.input_schema.get("properties", {})) == set(operation.input.model_fields)
        assert tool.input_schema["additionalProperties"] is False
        assert tool.output_schema is not None
        assert tool.output_schema["required"] == ["ok"]
        assert tool.annotations is not None
        assert tool.annotations.read_only_hint is (operation.effect == "read")
        assert tool.annotations.destructive_hint is (operation.effect == "destroy")
        assert tool.annotations.idempotent_hint is operation.repeats_safely
        assert operation.summary in (tool.description or "")


async def test_the_intents_are_few(connect: Connect) -> None:
    """`/mcp` offers what works, and nothing that does not yet."""
    async with connect() as client:
        tools = (await client.list_tools()).tools
    assert {tool.name for tool in tools} == INTENTS


async def test_the_list_of_intents_is_small(plane: Plane) -> None:
    """The whole answer to `tools/list` stays under its bound, counted on the wire."""
    meta = {
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "1"},
        "io.modelcontextprotocol/clientCapabilities": {},
    }
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {"_meta": meta}}
    headers = plane.headers() | {
        "Accept": "application/json, text/event-stream",
        "MCP-Protocol-Version": "2026-07-28",
        "Mcp-Method": "tools/list",
    }
    async with httpx.AsyncClient() as client:
        answer = await client.post(f"{plane.url}/mcp", json=body, headers=headers)
    assert len(orjson.loads(answer.content)["result"]["tools"]) == len(INTENTS)
    assert len(answer.content) < INTENT_LIST_BYTES_MAX


async def test_there_are_no_sessions_to_lose(plane: Plane) -> None:
    """A standing stream and the end of a session are not offered: a client gets 405, and lives without."""
    async with httpx.AsyncClient() as client:
        for method in ("GET", "DELETE"):
            answer = await client.request(method, f"{plane.url}/mcp", headers=plane.headers())
            assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
