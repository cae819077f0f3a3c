"""A whole installation at work, seen by who reaches none of it: as an empty one."""

import anyio
import httpx
import pytest

from controlplane.resources.catalogue import OPERATIONS
from tests.authorization.surfaces import rpc
from tests.end_to_end.agents import agent
from tests.stack import Stack


@pytest.fixture(scope="module")
def strange(stack: Stack) -> dict[str, str]:
    """An agent of `default` that has answered on its host, and the token of an operator of another namespace."""
    stack.apply(agent("known", "Echo"))
    assert stack.call("agents.ask", name="known", data="hello", timeout_s=60)["answered"]
    turn_id = stack.call("turns.list", name="known")["items"][0]["turn_id"]
    digest = stack.call("agents.get", name="known")["spec"]["code"]["digest"]
    made = stack.call("tokens.create", principal="stranger", role="operator", namespaces=["strange"])
    return {"token": made["token"], "turn_id": turn_id, "digest": digest}


def test_a_stranger_sees_an_empty_installation(stack: Stack, strange: dict[str, str]) -> None:
    """No counts, no hosts on any node, no events, no resources, no memory that others take; and no more by MCP."""
    with stack.rest(strange["token"]) as client:

        def call(name: str, /, **given: object) -> httpx.Response:
            return client.post(f"/v1/operations/{name}/call", json=given)

        status, brief = call("system.status").json(), call("system.brief").json()
        assert [status[key] for key in ("hosts", "open_changes", "dead_letters")] == [0, 0, 0]
        assert set(status["agents"].values()) == set(brief["agents"].values()) == {0}
        assert {it["rss_bytes"] for it in status["processes"]} == {None}
        assert call("feedback.read").json()["events"] == []
        for operation in OPERATIONS.values():
            if operation.verb == "list" and "name" not in operation.input.model_fields and operation.role != "admin":
                items = call(operation.name).json()["items"]
                assert [it for it in items if operation.noun != "nodes" or it["hosts"] or it["agents"]] == [], items
        assert call("turns.get", turn_id=strange["turn_id"]).json()["reason"] == "NOT_FOUND"
        assert call("agents.ask", name="known", data=1, timeout_s=1).json()["reason"] == "FOREIGN_NAMESPACE"
        thief = agent("thief", "Echo", code={"digest": strange["digest"]})
        thief["metadata"]["namespace"] = "strange"
        assert call("agents.propose", manifest=thief).json()["reason"] == "CODE_NOT_FOUND"
        assert client.get("/metrics").json()["reason"] == "FORBIDDEN"
    assert anyio.run(_resources, stack, strange["token"]) == ["steward://feedback"]


async def _resources(stack: Stack, token: str) -> list[str]:
    headers = {"Authorization": f"Bearer {token}"}
    found: list[str] = []
    cursor: dict[str, str] | None = {}
    async with httpx.AsyncClient(base_url=stack.url, timeout=60) as client:
        while cursor is not None:
            page = (await rpc(client, headers, "/mcp", "resources/list", **cursor)).json()["result"]
            found += [it["uri"] for it in page["resources"]]
            cursor = {"cursor": page["nextCursor"]} if page.get("nextCursor") else None
    return found
