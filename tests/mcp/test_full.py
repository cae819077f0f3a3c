"""`/mcp/full`: the same operations, rights and Problems as over REST."""

from typing import Any

import httpx
import mcp_types as types
import pytest
from mcp import MCPError

from controlplane.resources.catalogue import OPERATIONS
from tests.api.plane import Plane
from tests.mcp.calls import ask, done, refused
from tests.mcp.conftest import Connect, connected

pytestmark = pytest.mark.anyio


async def test_an_unknown_tool_is_an_error_of_the_protocol(connect: Connect) -> None:
    """On both endpoints, and nothing else is."""
    for path in ("/mcp", "/mcp/full"):
        async with connect(path) as client:
            with pytest.raises(MCPError) as refused_:
                await client.call_tool("no_such_tool", {})
            assert refused_.value.error.code == types.INVALID_PARAMS


async def test_a_wrong_token_gets_nowhere(plane: Plane, connect: Connect) -> None:
    """Not even the list of tools."""
    with pytest.raises(Exception) as refused_:  # noqa: PT011 - the client's transport raises what it likes
        async with connect(token="nobody") as client:
            await client.list_tools()
    assert "stw_" not in str(refused_.value)


NEW_EACH_TIME = {
    "agents.send", "channels.publish", "agents.ask", "operations.call", "discovery.register", "discovery.renew",
    "invitations.create", "system.doctor",
}  # fmt: skip


async def test_rest_and_mcp_answer_the_same(plane: Plane) -> None:
    """For every operation its example gives the same output, or the same Problem."""
    skipped = {"tokens.create", "system.brief", "system.status", "feedback.read"}  # new with every call
    async with (
        connected(plane, "/mcp/full", "admin", "modern") as client,
        httpx.AsyncClient(base_url=plane.url, headers=plane.headers(), timeout=40) as rest,
    ):
        for operation in OPERATIONS.values():
            if operation.name in skipped:
                continue
            answer = await rest.post(f"/v1/operations/{operation.name}/call", json=operation.example)
            envelope = await ask(client, operation.tool, **operation.example)
            assert envelope["ok"] is (answer.status_code == 200), (operation.name, envelope, answer.text)
            if envelope["ok"]:
                _require_same_output(operation.name, envelope["data"], answer.json())
            else:
                _require_same_problem(envelope["problem"], answer.json())


def _require_same_output(name: str, ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    if name in NEW_EACH_TIME:
        assert set(ours) == set(theirs)
    else:
        assert ours == theirs, name


def _require_same_problem(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    """All but the call itself, and the names of the steps, which are this endpoint's tools."""
    steps = [(step["operation"], step["arguments"]) for step in theirs.pop("next")]
    assert [(step["operation"], step["arguments"]) for step in ours.pop("next")] == steps
    for problem in (ours, theirs):
        problem.pop("instance")
    assert ours == theirs


@pytest.mark.parametrize("given", [{"nonsense": 1}, {"limit": "x"}, {"namespace": "Bad Name"}, {"plan_id": 1}])
async def test_bad_input_is_the_same_problem(swept: Plane, given: dict[str, Any]) -> None:
    """For every operation the same bad input is the same Problem over REST and MCP."""
    async with (
        connected(swept, "/mcp/full", "admin", "modern") as client,
        httpx.AsyncClient(base_url=swept.url, headers=swept.headers()) as rest,
    ):
        for operation in OPERATIONS.values():
            wrong = {**operation.example, **given}
            answer = await rest.post(f"/v1/operations/{operation.name}/call", json=wrong)
            if answer.status_code == 200:
                continue
            _require_same_problem(await refused(client, operation.tool, **wrong), answer.json())


async def test_what_breaks_is_internal(plane: Plane, connect: Connect) -> None:
    """An unexpected error is a Problem without internals, and the server lives on."""

    async def broken(*_: Any) -> Any:
        raise RuntimeError("the secret is hunter2")

    handlers: Any = plane.parts.dispatcher.handlers
    handlers["hosts.list"] = broken
    async with connect("/mcp/full") as client:
        problem = await refused(client, "hosts_list")
        assert problem["reason"] == "INTERNAL"
        assert "hunter2" not in str(problem)
        await done(client, "system_brief")


async def test_resources_are_read_by_address(connect: Connect) -> None:
    """Every declared resource, and the feedback log, is an MCP resource; others' are not there."""
    async with connect() as client:
        manifest = {"kind": "Channel", "metadata": {"name": "reports"}}
        plan = await done(client, "propose", manifests=[manifest])
        await done(client, "commit", plan_id=plan["ref"])
        uris: list[str] = []
        cursor = None
        while True:
            page = await client.list_resources(cursor=cursor)
            uris += [str(it.uri) for it in page.resources]
            cursor = page.next_cursor
            if cursor is None:
                break
        assert uris == ["steward://feedback", "steward://Channel/default/reports"]
        read = await client.read_resource("steward://Channel/default/reports")
        assert '"name":"reports"' in read.contents[0].text
        for uri in ("steward://Channel/default/none", "steward://Nothing/a/b", "file:///etc/passwd"):
            with pytest.raises(MCPError):
                await client.read_resource(uri)
    async with connect(token="foreign") as client:
        with pytest.raises(MCPError):
            await client.read_resource("steward://Channel/default/reports")


async def test_subscribers_are_told_what_they_may_see(plane: Plane) -> None:
    """A subscription tells of the resources it named, under the subscriber's own rights."""
    mine, theirs = "steward://Agent/default/a", "steward://Agent/elsewhere/a"
    async with (
        connected(plane, "/mcp", "viewer", "modern") as client,
        client.listen(resource_subscriptions=[mine, theirs, "steward://feedback"]) as told,
    ):
        await plane.happen("x.theirs", "elsewhere")
        await plane.happen("x.mine")
        seen = []
        async for event in told:
            seen.append(str(event.uri))  # type: ignore[union-attr]
            if len(seen) == 2:
                break
    assert seen == [mine, "steward://feedback"]
