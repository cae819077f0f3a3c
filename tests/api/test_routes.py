"""Every operation has a route, and the document says what the route does."""

from typing import Any

import httpx
import pytest

from controlplane.resources.catalogue import OPERATIONS
from controlplane.resources.operation import Operation
from tests.api.plane import Plane

pytestmark = pytest.mark.anyio

EACH = pytest.mark.parametrize("operation", OPERATIONS.values(), ids=lambda it: it.name)


@pytest.fixture(scope="module")
async def document(client: httpx.AsyncClient) -> dict[str, Any]:
    answer = await client.get("/openapi.json")
    assert answer.status_code == 200
    found: dict[str, Any] = answer.json()
    return found


async def test_the_document_lists_every_operation_and_nothing_else(document: dict[str, Any]) -> None:
    """`operationId` is the operation's name, on its own route and method."""
    found = {
        it["operationId"]: (method.upper(), path)
        for path, item in document["paths"].items()
        for method, it in item.items()
    }
    assert found.pop("call_any") == ("POST", "/v1/operations/{operation}/call")
    assert found == {operation.name: (operation.method, operation.path) for operation in OPERATIONS.values()}
    assert document["openapi"].startswith("3.1")


async def test_the_document_is_closed(document: dict[str, Any]) -> None:
    """Every reference in it leads somewhere."""

    def references(value: Any) -> list[str]:
        if isinstance(value, dict):
            own = [value["$ref"]] if isinstance(value.get("$ref"), str) else []
            return own + [found for part in value.values() for found in references(part)]
        return [found for part in value for found in references(part)] if isinstance(value, list) else []

    for reference in set(references(document)):
        here: Any = document
        for part in reference.removeprefix("#/").split("/"):
            here = here[part]


@EACH
async def test_every_input_field_is_documented_once(document: dict[str, Any], operation: Operation) -> None:
    """Path, query and body together hold the input's fields, with what is required required."""
    found = document["paths"][operation.path][operation.method.lower()]
    named = {it["name"]: it["required"] for it in found.get("parameters", ())}
    body = found.get("requestBody")
    if body is not None:
        schema = body["content"]["application/json"]["schema"]
        references = [schema, *schema.get("anyOf", ())]
        model = next(it["$ref"].rpartition("/")[2] for it in references if "$ref" in it)
        properties = document["components"]["schemas"][model]
        named |= {name: name in properties.get("required", ()) for name in properties["properties"]}
    in_path = {part[1:-1] for part in operation.path.split("/") if part.startswith("{")}
    assert named == {
        name: name in in_path or field.is_required() for name, field in operation.input.model_fields.items()
    }


@EACH
async def test_problems_are_documented(document: dict[str, Any], operation: Operation) -> None:
    """All declared Problems stand under their status, as problem+json; tokens are needed everywhere."""
    responses = document["paths"][operation.path][operation.method.lower()]["responses"]
    told = {
        reason
        for status, response in responses.items()
        if status != "200"
        for reason in response["content"]["application/problem+json"]["examples"]
    }
    assert set(operation.problems) | {"UNAUTHENTICATED", "FORBIDDEN", "INTERNAL"} <= told
    assert "200" in responses
    assert document["security"] == [{"token": []}]


async def test_the_document_is_kept(client: httpx.AsyncClient) -> None:
    """Who has it already is told so."""
    first = await client.get("/openapi.json")
    again = await client.get("/openapi.json", headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


@pytest.mark.parametrize("path", ["/", "/v1", "/v1/nothing", "/v2/agents", "/v1/agents/a/b/c/d", "/mcp/other"])
async def test_unknown_paths_are_problems(client: httpx.AsyncClient, path: str) -> None:
    """Even what is not there answers as a Problem, to those with a token only."""
    answer = await client.get(path)
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["reason"] == "NOT_FOUND"
    stranger = await client.get(path, headers={"Authorization": ""})
    assert stranger.status_code == 401


async def test_wrong_methods_are_told_the_right_ones(client: httpx.AsyncClient) -> None:
    """`Allow` lists all methods of the path."""
    answer = await client.put("/v1/channels/default/reports")
    assert answer.status_code == 405
    assert answer.headers["allow"] == "DELETE, GET"
    assert answer.json()["reason"] == "METHOD_NOT_ALLOWED"


async def test_health_needs_no_token_and_readiness_means_it(fresh: tuple[Plane, httpx.AsyncClient]) -> None:
    """`/readyz` is 200 only while messages are durably accepted."""
    plane, client = fresh
    bare = {"Authorization": ""}
    assert (await client.get("/healthz", headers=bare)).status_code == 200
    assert (await client.get("/readyz", headers=bare)).status_code == 200
    plane.ready = False
    answer = await client.get("/readyz", headers=bare)
    assert (answer.status_code, answer.json()["reason"]) == (503, "NOT_READY")
    assert answer.headers["retry-after"] == "1"
    assert (await client.get("/healthz", headers=bare)).status_code == 200


async def test_metrics_count_calls_by_outcome(fresh: tuple[Plane, httpx.AsyncClient]) -> None:
    """Each call is counted once; counts over all namespaces are for who may see all."""
    plane, client = fresh
    await client.get("/v1/system/brief")
    await client.get("/v1/channels/default/none")
    text = (await client.get("/metrics")).text
    assert 'steward_calls_total{operation="system.brief",outcome="ok"} 1.0' in text
    assert 'steward_calls_total{operation="channels.get",outcome="NOT_FOUND"} 1.0' in text
    assert 'steward_call_seconds_count{operation="system.brief"} 1.0' in text
    answer = await client.get("/metrics", headers=plane.headers("viewer"))
    assert (answer.status_code, answer.json()["reason"]) == (403, "FORBIDDEN")


@pytest.mark.parametrize("path", ["/mcp", "/mcp/full"])
async def test_mcp_says_where_its_metadata_is(client: httpx.AsyncClient, path: str) -> None:
    """Without a token MCP answers 401 with the address of the resource's metadata, which is served."""
    bare = {"Authorization": ""}
    answer = await client.post(path, headers=bare, json={})
    assert (answer.status_code, answer.json()["reason"]) == (401, "UNAUTHENTICATED")
    address = answer.headers["www-authenticate"].partition('resource_metadata="')[2].rstrip('"')
    assert address == f"http://127.0.0.1/.well-known/oauth-protected-resource{path}"
    metadata = (await client.get(address, headers=bare)).json()
    assert metadata["resource"] == f"http://127.0.0.1{path}"
