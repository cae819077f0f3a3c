"""Whatever is given to a tool of MCP, it answers with a result that is what it said it would be; in every version."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import mcp_types as types
import pytest

from fuzz.mcp_runner import McpFuzz, McpReport
from fuzz.mcp_wire import AGENTS, ENDPOINTS, HANDSHAKE, ID, VERSIONS, Wire
from fuzz.rules import CODE, ENTRYPOINT, SEED, UNREACHED
from fuzz.targets import EXAMPLES
from tests.api.plane import Plane, listening
from tests.conftest import SOAK
from tests.mcp.calls import done
from tests.mcp.conftest import connected

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(600)]

EACH = 60 if SOAK else 3
DOCTOR = {
    "kind": "Agent",
    "metadata": {"name": "doctor"},
    "spec": {"code": CODE, "entrypoint": ENTRYPOINT, "capabilities": ["diagnose"]},
}


async def fuzzed(
    plane: Plane, examples: int, only: frozenset[str] | None = None, spoil: Callable[[], None] = lambda: None
) -> McpReport:
    """Every tool before anything exists, and again when there are an agent, a channel, and plans of others.

    Before, there is less to speak of: a half is enough, and all of them in a soak.
    """
    foreign = await _made_elsewhere(plane)
    wire = Wire(plane.url, plane.tokens["admin"])
    try:
        run = McpFuzz(wire, SEED, foreign)
        await asyncio.to_thread(run.run, examples if SOAK else examples // 2, only=only)
        async with connected(plane, "/mcp", "admin", "modern") as client:
            plan = await done(client, "propose", manifests=EXAMPLES)
            committed = await done(client, "commit", plan_id=plan["ref"])
            run.known["change_id"] = [committed["data"]["change_id"]]
            run.known["plan_id"] = [plan["ref"], *run.known.get("plan_id", [])][:8]
        spoil()
        await asyncio.to_thread(run.run, examples, only=only)
        return run.finish()
    finally:
        wire.close()


def require_clean(report: McpReport, *, turns_run: bool) -> None:
    """Nothing was found, and not for want of looking: what was generated got through, in every version."""
    unreached = {it.replace(".", "_") for it in UNREACHED} | (set() if turns_run else {"turns_get"})
    assert not report.findings, report.text()
    assert report.never_accepted() <= unreached, report.text()
    assert not report.never_generated("/mcp"), report.generated
    assert not report.blind_versions(), report.text()
    assert min(report.hints, report.streamed) > 50, report.text()
    assert report.followed > 10, report.text()


async def _made_elsewhere(plane: Plane) -> dict[str, list[Any]]:
    """Ids that belong to another principal."""
    manifest = {"kind": "Channel", "metadata": {"name": "theirs", "namespace": "elsewhere"}}
    async with connected(plane, "/mcp", "foreign", "modern") as client:
        plan = await done(client, "propose", manifests=[manifest])
        committed = await done(client, "commit", plan_id=plan["ref"])
    return {"plan_id": [plan["ref"]], "change_id": [committed["data"]["change_id"]]}


async def test_every_tool_keeps_what_it_says(anyio_backend: str, quick_url: str) -> None:
    """Valid, wrong and hostile arguments, before and after there is something to speak of."""
    async with listening(quick_url) as plane:
        report = await fuzzed(plane, EACH)
    require_clean(report, turns_run=False)
    assert len(report.reasons) > 10, report.reasons


@pytest.fixture
async def plane(anyio_backend: str, quick_url: str) -> AsyncIterator[Plane]:
    async with listening(quick_url) as found:
        yield found


@pytest.mark.parametrize("name", ["", "no_such_tool", "__proto__", "LOOK", "look ", "l\u043eok", "x" * 5000, "a\x00b"])
async def test_an_unknown_tool_is_the_only_error_of_the_protocol(plane: Plane, name: str) -> None:
    """Whatever it is called, and whatever its arguments are; in every version, on every endpoint."""

    def ask() -> None:
        wire = Wire(plane.url, plane.tokens["admin"])
        for endpoint in (*ENDPOINTS, AGENTS):
            for version in VERSIONS:
                for arguments in ("{}", "[]", "NaN", '{"a": "\\ud800"}'):
                    body = f'"name": {json.dumps(name)}, "arguments": {arguments}'
                    answer = wire.send(endpoint, version, "tools/call", body, name)
                    assert answer.json["id"] == ID, answer
                    assert answer.json["error"]["code"] == types.INVALID_PARAMS, answer
        wire.close()

    await asyncio.to_thread(ask)


@pytest.mark.parametrize("version", HANDSHAKE)
async def test_each_handshake_ends_in_its_version(plane: Plane, version: str) -> None:
    """A client of any time gets the version that it asks for."""

    def ask() -> Any:
        wire = Wire(plane.url, plane.tokens["admin"])
        client = {"name": "old", "version": "1"}
        params = f'"protocolVersion": "{version}", "capabilities": {{}}, "clientInfo": {json.dumps(client)}'
        answer = wire.send("/mcp", version, "initialize", params)
        wire.close()
        return answer.json["result"]

    result = await asyncio.to_thread(ask)
    assert result["protocolVersion"] == version
    assert result["serverInfo"]["name"] == "steward"


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ('"text"', "NOT_AN_OBJECT"),
        ("[]", "NOT_AN_OBJECT"),
        ("7", "NOT_AN_OBJECT"),
        ("NaN", "MALFORMED_JSON"),
        ('{"kind": "\\ud800"}', "MALFORMED_JSON"),
        ('{"kind": "Agent", "kind": "Fleet"}', "MALFORMED_JSON"),
        ('{"kind": ' + "[" * 80 + "]" * 80 + "}", "MALFORMED_JSON"),
        ('{"limit": ' + "9" * 25 + "}", "OUT_OF_RANGE"),
    ],
)
async def test_arguments_that_are_no_object_are_a_problem_of_the_tool(
    plane: Plane, arguments: str, reason: str
) -> None:
    """What can not be read is refused by a result, with the id of the call; nothing of it is taken."""

    async with connected(plane, "/mcp", "admin", "modern") as client:
        plan = await done(client, "propose", manifests=[DOCTOR])
        await done(client, "commit", plan_id=plan["ref"])

    def ask() -> list[Any]:
        wire = Wire(plane.url, plane.tokens["admin"])
        tools = (("/mcp", "find"), ("/mcp/full", "agents_list"), (AGENTS, "doctor__diagnose"))
        found = [wire.call(at, version, tool, arguments) for at, tool in tools for version in VERSIONS]
        wire.close()
        return found

    for answer in await asyncio.to_thread(ask):
        assert (answer.status, answer.json["id"]) == (200, ID)
        result = answer.json["result"]
        assert result["isError"] is True
        assert result["structuredContent"]["problem"]["reason"] == reason
