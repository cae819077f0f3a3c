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


async def _open(plane: Plane, turns: int) -> None:
    """Until so many turns are open."""
    from sqlalchemy import text

    limit = time.monotonic() + 30
    query = text("SELECT COUNT(*) FROM turn WHERE finished_at IS NULL")
    while (found := await plane.store.read(lambda session: session.connection().execute(query).scalar())) != turns:
        assert time.monotonic() < limit, f"{found} turns are open"
        await asyncio.sleep(0.05)
