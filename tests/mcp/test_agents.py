"""Agents as tools of `/mcp/agents/{namespace}`: real clients of both eras, a real gate and a real host."""

import asyncio
import shutil
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from mcp import MCPError

from tests.api.plane import Plane
from tests.mcp.conftest import MODES, called, connected, lived

pytestmark = pytest.mark.anyio
SOURCE = """
from ray_runtime import Agent, Turn


class Doctor(Agent):
    async def on_message(self, turn: Turn, envelope):
        if envelope.capability == "count":
            return envelope.data["n"] + 1
        if envelope.data["disk"] == "odd":
            return {"fault": 7}
        return {"fault": f"{envelope.data['disk']} is full"}


class Slow(Agent):
    async def on_message(self, turn: Turn, envelope):
        await turn.ask("slower", 1)
        return "late"


class Slower(Agent):
    async def on_message(self, turn: Turn, envelope):
        await turn.sleep(3600)
"""
DISK = {"type": "object", "properties": {"disk": {"type": "string"}}, "required": ["disk"]}
FAULT = {"type": "object", "properties": {"fault": {"type": "string"}}, "required": ["fault"]}
COUNTED = {"$ref": "#/$defs/whole", "$defs": {"whole": {"type": "integer"}}}
TURNS = "SELECT COUNT(*) FROM turn WHERE finished_at IS NULL"
INBOXES = "SELECT COUNT(*) FROM inbox"
OFFERED: dict[str, list[Any]] = {
    "doctor": [
        {"name": "diagnose", "description": "Says what is wrong", "input_schema": DISK, "output_schema": FAULT},
        {"name": "count", "input_schema": {"type": "object"}, "output_schema": COUNTED},
    ],
    "slow": ["wait"],
    "slower": [],
}


def agent(name: str) -> dict[str, Any]:
    code = {"files": {"clinic.py": SOURCE}}
    spec = {"code": code, "entrypoint": f"clinic:{name.title()}", "capabilities": OFFERED[name], "suspend_after_ms": 0}
    return {"kind": "Agent", "metadata": {"namespace": "default", "name": name}, "spec": spec}


@pytest.fixture(scope="module")
async def clinic(
    anyio_backend: str, _migrated_file: Path, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Plane]:
    """A plane with agents that live."""
    path = tmp_path_factory.mktemp("clinic") / "steward.db"
    shutil.copy(_migrated_file, path)
    async with lived(f"sqlite:///{path}", [agent(name) for name in OFFERED]) as plane:
        yield plane


@pytest.fixture(params=list(MODES))
def connect(clinic: Plane, request: pytest.FixtureRequest) -> Callable[..., Any]:
    def to(namespace: str = "default", token: str = "operator") -> Any:
        return connected(clinic, f"/mcp/agents/{namespace}", token, request.param)

    return to


async def test_a_capability_is_a_tool_and_a_call_of_it_a_question(connect: Callable[..., Any]) -> None:
    """Its schemas are the tool's; the answer is the structured content, and what is no object stands within one."""
    async with connect() as client:
        tools = {it.name: it for it in (await client.list_tools()).tools}
        assert set(tools) == {"doctor__diagnose", "doctor__count", "slow__wait"}
        assert (tools["doctor__diagnose"].description, tools["doctor__diagnose"].input_schema) == (
            "Says what is wrong", DISK,
        )  # fmt: skip
        assert tools["doctor__diagnose"].output_schema == FAULT
        answer = await client.call_tool("doctor__diagnose", {"disk": "sda"})
        assert (answer.is_error, answer.structured_content) == (False, {"fault": "sda is full"})
        counted = await client.call_tool("doctor__count", {"n": 4})
        assert counted.structured_content == {"reply": 5}


async def test_what_is_wrong_is_a_problem(connect: Callable[..., Any]) -> None:
    """What does not fit, and a namespace that is not the caller's; only unknown tools are errors of the protocol."""
    async with connect() as client:
        for given, reason in (({"disk": 1}, "SCHEMA_MISMATCH"), ({"disk": "odd"}, "OUTPUT_MISMATCH")):
            found = await client.call_tool("doctor__diagnose", given)
            assert (found.is_error, found.structured_content["problem"]["reason"]) == (True, reason)
        for name in ("doctor__cure", "doctor", "__"):
            with pytest.raises(MCPError, match="unknown tool"):
                await client.call_tool(name, {})
        gone = await client.call_tool("nobody__cure", {})
        assert gone.structured_content["problem"]["reason"] == "NOT_FOUND"
    async with connect("elsewhere") as client:
        with pytest.raises(MCPError, match="does not reach"):
            await client.list_tools()
        found = await client.call_tool("doctor__diagnose", {"disk": "sda"})
        assert found.structured_content["problem"]["reason"] == "FOREIGN_NAMESPACE"
    async with connect(token="viewer") as client:
        assert (await client.list_tools()).tools
        found = await client.call_tool("doctor__diagnose", {"disk": "sda"})
        assert found.structured_content["problem"]["reason"] == "FORBIDDEN"


async def test_a_call_that_nobody_waits_for_ends_what_it_began(clinic: Plane, connect: Callable[..., Any]) -> None:
    """The client goes: the agent's turn ends where it rests, and what it had asked with it."""
    async with connect() as client:
        calling = asyncio.ensure_future(client.call_tool("slow__wait", {}))
        await _open(clinic, 2)
        calling.cancel()
        await asyncio.gather(calling, return_exceptions=True)
    await _open(clinic, 0)


class Older:
    """A client of 2025-11-25 that says its messages itself; all of them count their calls alike."""

    def __init__(self, plane: Plane, token: str = "operator") -> None:
        headers = {**plane.headers(token), "Accept": "application/json, text/event-stream"}
        self.http = httpx.AsyncClient(base_url=plane.url, headers=headers, timeout=40)

    async def connect(self) -> None:
        who = {"name": "older", "version": "1"}
        given = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": who}
        answer = await self.say("initialize", given, 0)
        self.http.headers["MCP-Protocol-Version"] = "2025-11-25"
        self.http.headers["Mcp-Session-Id"] = answer.headers["mcp-session-id"]

    async def say(self, method: str, params: dict[str, Any], id_: int | None = None) -> httpx.Response:
        message = {"jsonrpc": "2.0", "method": method, "params": params, **({} if id_ is None else {"id": id_})}
        return await self.http.post("/mcp/agents/default", json=message)

    async def cancel(self) -> None:
        assert (await self.say("notifications/cancelled", {"requestId": 7})).status_code == 202


async def test_an_older_client_cancels_its_own_call_by_its_id(clinic: Plane) -> None:
    """It stays connected. A call of the same id at another client goes on, whether of the same token or another."""
    first, second, stranger = Older(clinic), Older(clinic), Older(clinic, "admin")
    async with first.http, second.http, stranger.http:
        for client in (first, second, stranger):
            await client.connect()
        stranger.http.headers["Mcp-Session-Id"] = first.http.headers["Mcp-Session-Id"]
        calling = [
            asyncio.ensure_future(it.say("tools/call", {"name": "slow__wait", "arguments": {}}, 7))
            for it in (first, second)
        ]
        await _open(clinic, 3, INBOXES)
        await stranger.cancel()
        del stranger.http.headers["Mcp-Session-Id"]
        await stranger.cancel()
        await first.cancel()
        answer = (await calling[0]).json()
        assert (answer["id"], answer["error"]["code"]) == (7, -32800)
        await _open(clinic, 2, INBOXES)  # the agent goes on with the second question
        assert not calling[1].done()
        await second.cancel()
        assert (await calling[1]).json()["error"]["code"] == -32800
        await first.cancel()  # of what is over
        counted = await first.say("tools/call", {"name": "doctor__count", "arguments": {"n": 1}}, 7)
        assert counted.json()["result"]["structuredContent"] == {"reply": 2}
    await _open(clinic, 0)


async def test_cancelling_is_told_to_who_waits(clinic: Plane) -> None:
    """Once, and again; who has an answer has not been cancelled."""
    async with httpx.AsyncClient(base_url=clinic.url, headers=clinic.headers(), timeout=40) as rest:
        first = await called(rest, "agents.ask", name="slow", request_id="q1", timeout_s=0.05)
        given = {"name": "slow", "message_id": first["message_id"]}
        assert first["answered"] is False
        for _ in range(2):
            assert (await called(rest, "agents.cancel", **given))["cancelled"] is True
        again = await rest.post("/v1/operations/agents.ask/call", json={"name": "slow", "request_id": "q1"})
        assert again.json()["reason"] == "CANCELLED"
        answered = await called(rest, "agents.ask", name="doctor", data={"disk": "sda"}, capability="diagnose")
        given = {"name": "doctor", "message_id": answered["message_id"]}
        assert (await called(rest, "agents.cancel", **given))["cancelled"] is False
        wrong = await rest.post("/v1/operations/agents.cancel/call", json={**given, "name": "slow"})
        assert wrong.json()["reason"] == "NOT_FOUND"
    await _open(clinic, 0)


async def _open(plane: Plane, number: int, of: str = TURNS) -> None:
    """Until so many are open."""
    from sqlalchemy import text

    limit = time.monotonic() + 30
    query = text(of)
    while (found := await plane.store.read(lambda session: session.connection().execute(query).scalar())) != number:
        assert time.monotonic() < limit, f"{found} are open: {of}"
        await asyncio.sleep(0.05)
