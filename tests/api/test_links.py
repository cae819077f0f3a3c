"""Answers lead on: the document's links name operations and what they take, and following them works."""

from typing import Any

import httpx
import pytest

from controlplane.resources.catalogue import OPERATIONS
from tests.api.plane import Plane
from tests.operations.plane import agent, channel

pytestmark = pytest.mark.anyio


def _each(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {it["operationId"]: it for item in document["paths"].values() for it in item.values()}


def _value(expression: str, answer: Any, path: dict[str, str]) -> Any:
    """What a runtime expression stands for."""
    if expression.startswith("$request.path."):
        return path[expression.removeprefix("$request.path.")]
    found = answer
    for part in expression.removeprefix("$response.body#/").split("/"):
        found = found[int(part)] if isinstance(found, list) else found[part]
    return found


async def test_links_name_what_is_there(client: httpx.AsyncClient) -> None:
    """A link's operation exists, takes the parameters that the link gives, and is given all that its path needs."""
    operations = _each((await client.get("/openapi.json")).json())
    seen = 0
    for it in operations.values():
        for link in it["responses"]["200"].get("links", {}).values():
            seen += 1
            takes = {parameter["name"]: parameter["in"] for parameter in operations[link["operationId"]]["parameters"]}
            assert set(link["parameters"]) <= set(takes)
            assert {name for name, place in takes.items() if place == "path"} <= set(link["parameters"])
    assert seen > 100


async def test_whatever_names_something_leads_to_it(client: httpx.AsyncClient) -> None:
    """A plan leads to its commit, a change to waiting for it, a list to its items and to its next page."""
    operations = _each((await client.get("/openapi.json")).json())
    leads = {name: set(it["responses"]["200"].get("links", {})) for name, it in operations.items()}
    for operation in OPERATIONS.values():
        fields = operation.output.model_fields
        if "plan_id" in fields:
            assert "plans.commit" in leads[operation.name]
        if "change_id" in fields:
            assert "changes.wait" in leads[operation.name] | {operation.name}
        if "next_page" in fields:
            assert "next" in leads[operation.name]
    assert {"agents.ask", "turns.list", "agents.delete"} <= leads["agents.get"]


async def test_a_client_that_knows_only_links_gets_there(fresh: tuple[Plane, httpx.AsyncClient]) -> None:
    """From a proposal over its commit to what was made, and by its deletion to nothing."""
    _, client = fresh
    operations = _each((await client.get("/openapi.json")).json())

    async def follow(source: str, answer: Any, path: dict[str, str], link: str) -> tuple[Any, dict[str, str]]:
        there = operations[source]["responses"]["200"]["links"][link]
        given = {name: _value(expression, answer, path) for name, expression in there["parameters"].items()}
        target = OPERATIONS[there["operationId"]]
        found = await client.request(target.method, target.path.format(**given))
        return found.json(), given

    proposed = (await client.post("/v1/channels/propose", json={"manifest": channel("led")})).json()
    committed, _ = await follow("channels.propose", proposed, {}, "plans.commit")
    assert (await follow("plans.commit", committed, {}, "changes.wait"))[0]["done"]
    made, path = await follow("channels.propose", proposed, {}, "channels.get")
    assert made["metadata"]["name"] == "led"
    deletion, path = await follow("channels.get", made, path, "channels.delete")
    assert (await follow("channels.delete", deletion, path, "plans.commit"))[0]["outcome"] == "committed"
    assert (await follow("channels.delete", deletion, path, "channels.get"))[0]["reason"] == "NOT_FOUND"


async def test_no_body_is_no_null(client: httpx.AsyncClient) -> None:
    """Where a body may be left out, the document does not promise that null is one."""
    operations = _each((await client.get("/openapi.json")).json())
    bodies = [it["requestBody"] for it in operations.values() if "requestBody" in it]
    assert any(not body.get("required") for body in bodies)
    for body in bodies:
        assert "anyOf" not in body["content"]["application/json"]["schema"]


async def test_bodies_beside_a_path_are_closed(client: httpx.AsyncClient) -> None:
    """Where part of the input stands in the path, the rest is as closed to unknown fields as the whole is."""
    schemas = (await client.get("/openapi.json")).json()["components"]["schemas"]
    bodies = {name: schema for name, schema in schemas.items() if name.endswith("Body")}
    assert bodies
    assert all(schema["additionalProperties"] is False for schema in bodies.values())


async def test_keys_of_one_form_are_closed_to_others(client: httpx.AsyncClient) -> None:
    """Labels, files and values of secrets say in their schemas that no key may look otherwise."""
    text = (await client.get("/openapi.json")).text
    assert "patternProperties" not in text
    assert "propertyNames" in text


async def test_a_path_of_its_own_is_nobodys_parameter(client: httpx.AsyncClient) -> None:
    """`/v1/operations/call` is no operation named `call`: it takes POST alone, and says so."""
    answer = await client.get("/v1/operations/call")
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")


async def test_only_labels_have_a_short_form(client: httpx.AsyncClient) -> None:
    """`k=v` stands for an object in `labels`; in another object's place it is no object."""
    assert (await client.get("/v1/agents", params={"labels": "app=echo"})).status_code == 200
    assert (await client.get("/v1/agents", params={"labels": '{"app":"echo"}'})).status_code == 200
    refused = (await client.get("/v1/feedback", params={"filter": "kind=Agent"})).json()
    assert (refused["reason"], refused["field"]) == ("INVALID_VALUE", "/filter")


async def test_what_json_calls_whole_is_whole(client: httpx.AsyncClient) -> None:
    """3.0 is an integer to JSON Schema, and here; 3.5 and text are not, and 1 is not true."""
    manifest = channel("whole", retention_s=60.0)
    answer = await client.post("/v1/channels/propose", json={"manifest": manifest})
    assert answer.status_code == 200
    assert answer.json()["steps"][0]["changes"][0]["after"]["retention_s"] == 60
    manifests = [channel("a", attempts_max=3.0), agent("b", suspend_after_ms=100.0)]
    assert (await client.post("/v1/resources/propose", json={"manifests": manifests})).status_code == 200
    for spec in ({"retention_s": 3.5}, {"retention_s": "3"}, {"ephemeral": 0}):
        refused = await client.post("/v1/channels/propose", json={"manifest": channel("whole", **spec)})
        assert (refused.status_code, refused.json()["field"]) == (422, f"/manifest/spec/{next(iter(spec))}")
