"""An operator's work over MCP: look, propose, commit, wait, undo, each by the step that was offered."""

from typing import Any

import pytest

from tests.api.plane import Plane
from tests.mcp.calls import ask, done, follow, refused
from tests.mcp.conftest import Connect, connected

pytestmark = pytest.mark.anyio

CHANNEL = {"kind": "Channel", "metadata": {"name": "reports", "labels": {"app": "demo"}}, "spec": {}}
AGENT = {
    "kind": "Agent",
    "metadata": {"name": "echo"},
    "spec": {"code": {"files": {"echo.py": "from ray_runtime import Agent\nclass Echo(Agent):\n    pass\n"}}}
    | {"entrypoint": "echo:Echo"},
}
NAMED = {"namespace": "default", "name": "reports"}


async def settle(client: Any, committed: dict[str, Any]) -> dict[str, Any]:
    """Wait by the offered steps until the change is done."""
    waited = await follow(client, committed, "wait")
    while not waited["data"]["done"]:
        waited = await follow(client, waited, "wait")
    return waited


async def apply(client: Any, *manifests: dict[str, Any]) -> dict[str, Any]:
    plan = await done(client, "propose", manifests=list(manifests))
    return await settle(client, await follow(client, plan, "commit"))


async def test_a_change_from_proposal_to_undo(connect: Connect) -> None:
    """Every step of the story is the `next` of the one before; each plan changes nothing until committed."""
    async with connect() as client:
        look = await done(client, "look")
        plan = await done(client, "propose", manifests=[CHANNEL])
        assert plan["data"]["steps"][0]["action"] == "create"
        assert (await refused(client, "get", kind="Channel", name="reports"))["reason"] == "NOT_FOUND"
        committed = await follow(client, plan, "commit")
        assert committed["data"]["outcome"] == "committed"
        change = await settle(client, committed)
        assert change["data"]["outcome"] == "verified"
        found = await done(client, "get", kind="Channel", name="reports")
        assert found["ref"] == "steward://Channel/default/reports"
        events = await follow(client, look, "wait")
        assert {"resource.created", "change.committed"} <= {it["type"] for it in events["data"]["events"]}
        assert events["untrusted_paths"] == ["/data/events/*/data"]
        back = await done(client, "undo", change_id=change["data"]["change_id"])
        await settle(client, await follow(client, back, "commit"))
        assert (await refused(client, "get", kind="Channel", name="reports"))["reason"] == "NOT_FOUND"


async def test_committing_twice_says_so(connect: Connect) -> None:
    """The same plan again is `already_committed`, with the same change."""
    async with connect() as client:
        plan = await done(client, "propose", manifests=[CHANNEL])
        first = await done(client, "commit", plan_id=plan["ref"])
        again = await done(client, "commit", plan_id=plan["ref"])
        assert again["data"]["outcome"] == "already_committed"
        assert again["data"]["change_id"] == first["data"]["change_id"]


async def test_a_stale_plan_offers_the_new_one(connect: Connect) -> None:
    """What moved is said, and the way on is one step."""
    async with connect() as client:
        await apply(client, CHANNEL)
        wanted = CHANNEL | {"spec": {"retention_s": 60}}
        other = CHANNEL | {"spec": {"retention_s": 90}}
        plan = await done(client, "propose", manifests=[wanted])
        await apply(client, other)
        stale = await done(client, "commit", plan_id=plan["ref"])
        assert stale["data"]["outcome"] == "stale"
        committed = await follow(client, stale, "commit")
        await settle(client, committed)
        found = await done(client, "get", kind="Channel", name="reports")
        assert found["data"]["spec"]["retention_s"] == 60


async def test_finding_by_labels_and_words(connect: Connect) -> None:
    """A page of a kind, narrowed; what is left out is said, and is one step away."""
    async with connect() as client:
        others = [{"kind": "Channel", "metadata": {"name": f"c{number}"}} for number in range(3)]
        await apply(client, CHANNEL, *others)
        labelled = await done(client, "find", kind="Channel", labels={"app": "demo"})
        assert [it["metadata"]["name"] for it in labelled["data"]["items"]] == ["reports"]
        assert labelled["truncated"] == {"shown": 1, "total": 1, "page": None}
        worded = await done(client, "find", kind="Channel", query="DEMO rep")
        assert [it["metadata"]["name"] for it in worded["data"]["items"]] == ["reports"]
        page = await done(client, "find", kind="Channel", limit=3)
        assert page["truncated"]["shown"] == 3
        assert page["truncated"]["total"] is None
        rest = await follow(client, page, "find")
        assert [it["metadata"]["name"] for it in rest["data"]["items"]] == ["reports"]


async def test_acting_at_once(connect: Connect) -> None:
    """`act` does, previews, and repeats safely under a request id; what agents wrote is marked."""
    async with connect() as client:
        await apply(client, CHANNEL)
        publish = {**NAMED, "data": {"text": "hello"}, "request_id": "once"}
        preview = await done(client, "act", operation="channels.publish", arguments=publish | {"dry_run": True})
        assert preview["data"]["changed"] == "none"
        first = await done(client, "act", operation="channels.publish", arguments=publish)
        again = await done(client, "act", operation="channels.publish", arguments=publish)
        assert first["data"] == again["data"]
        read = await follow(client, first, "operations_call")
        assert [it["data"] for it in read["data"]["output"]["envelopes"]] == [{"text": "hello"}]
        assert read["untrusted_paths"] == ["/data/output/envelopes/*/data"]


async def test_finding_operations(connect: Connect) -> None:
    """Search, describe, call: the way to everything that has no tool of its own."""
    async with connect() as client:
        found = await done(client, "operations_search", query="which hosts are there")
        described = await follow(client, found, "operations_describe")
        assert described["data"]["name"] == "hosts.list"
        called = await done(client, "operations_call", name=described["data"]["name"])
        assert called["data"] == {"name": "hosts.list", "output": {"items": []}}


@pytest.mark.parametrize(
    ("tool", "arguments", "reason", "field"),
    [
        ("look", {"x": 1}, "UNKNOWN_FIELD", "/x"),
        ("get", {"name": "a"}, "MISSING_FIELD", "/kind"),
        ("get", {"kind": "Nothing", "name": "a"}, "UNKNOWN_KIND", "/kind"),
        ("get", {"kind": "Agent"}, "MISSING_FIELD", "/name"),
        ("get", {"kind": "Agent", "name": "A b"}, "INVALID_NAME", "/name"),
        ("find", {"kind": ["Agent"]}, "UNKNOWN_KIND", "/kind"),
        ("find", {"kind": "Agent", "query": 1}, "INVALID_VALUE", "/query"),
        ("find", {"kind": "Agent", "limit": 0}, "OUT_OF_RANGE", "/limit"),
        ("propose", {}, "MISSING_FIELD", "/manifests"),
        (
            "propose",
            {"manifests": [CHANNEL | {"spec": {"replica": 1}}]},
            "UNKNOWN_FIELD",
            "/manifests/0/spec/replica",
        ),
        ("commit", {"plan_id": "plan_none"}, "NOT_FOUND", "/plan_id"),
        ("commit", {"plan_id": "plan_none", "on_miss": "panic"}, "INVALID_VALUE", "/on_miss"),
        ("wait", {"change_id": "chg_none", "timeout_s": 0}, "NOT_FOUND", "/change_id"),
        ("wait", {"timeout_s": 1000}, "OUT_OF_RANGE", "/timeout_s"),
        ("wait", {"after": "41"}, "INVALID_CURSOR", "/after"),
        ("undo", {"change_id": "chg_none"}, "NOT_FOUND", "/change_id"),
        ("act", {"operation": "tokens.create", "arguments": {}}, "INVALID_VALUE", "/operation"),
        ("act", {"operation": "agents.send", "arguments": []}, "NOT_AN_OBJECT", "/arguments"),
        ("act", {"operation": "agents.send", "arguments": {}, "x": 1}, "UNKNOWN_FIELD", "/x"),
        ("act", {"operation": "agents.send", "arguments": {}}, "MISSING_FIELD", "/arguments/name"),
        ("operations_describe", {"name": "no.such"}, "UNKNOWN_OPERATION", "/name"),
        ("operations_call", {"name": "no.such"}, "UNKNOWN_OPERATION", "/name"),
        ("operations_call", {"name": "operations.call"}, "INVALID_VALUE", "/name"),
        ("operations_call", {"name": "agents.get", "arguments": {}}, "MISSING_FIELD", "/arguments/name"),
    ],
)
async def test_a_refusal_points_into_what_was_given(
    swept: Plane, tool: str, arguments: dict[str, Any], reason: str, field: str
) -> None:
    """The pointer leads into the tool's own arguments, and every offered step can be taken as it stands."""
    async with connected(swept, "/mcp", "admin", "modern") as client:
        problem = await refused(client, tool, **arguments)
        assert (problem["reason"], problem["field"]) == (reason, field), problem
        for step in problem["next"]:
            taken = await ask(client, step["tool"], **step["arguments"])
            assert taken["ok"], (step, taken)


async def test_steps_are_only_those_that_the_principal_can_take(plane: Plane, connect: Connect) -> None:
    """A viewer who reads a plan is not told to commit it."""
    async with connect() as client:
        plan = await done(client, "propose", manifests=[CHANNEL])
    async with connect(token="viewer") as client:
        seen = await done(client, "operations_call", name="plans.get", arguments={"plan_id": plan["ref"]})
        assert seen["next"] == []
        assert (await refused(client, "propose", manifests=[CHANNEL]))["reason"] == "FORBIDDEN"
    async with connect(token="foreign") as client:
        problem = await refused(client, "get", kind="Channel", name="reports")
        assert problem["reason"] == "FOREIGN_NAMESPACE"


async def test_an_agent_is_told_what_to_look_at(connect: Connect) -> None:
    """A resource comes with the step that looks inside it."""
    async with connect() as client:
        plan = await done(client, "propose", manifests=[AGENT])
        await follow(client, plan, "commit")
        found = await done(client, "get", kind="Agent", name="echo")
        assert {step["tool"] for step in found["next"]} == {"operations_call"}
