"""OpenAPI documents as effects: their arguments, the requests they become, and what can not be used, and why."""

from typing import Any

import orjson
import pytest

from controlplane.effects.admission import admit
from controlplane.mesh.dataschema import data_fault, schema_fault
from controlplane.protocols.http import HttpEffector
from controlplane.protocols.openapi import DOCUMENT_BYTES_MAX, OPERATIONS_MAX, document_fault, operations_of, request_of
from controlplane.protocols.registry import registry
from schemas.connection import connection_spec
from schemas.http import HttpRequest
from schemas.ports import EffectCall, Link
from schemas.problem import Problem, Refusal
from tests.gate.counting import counting
from tests.gate.far import HONOURED, connected, secret
from tests.gate.running import running, true
from tests.gate.zoo import SOURCE

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
ITEM = {"type": "object", "properties": {"sku": {"type": "string"}, "n": {"type": "integer"}}, "required": ["sku"]}
ID = {"name": "id", "in": "path", "required": True, "schema": {"type": "integer", "minimum": 1}}
FORM = {
    "type": "object",
    "properties": {
        "name": {"type": "string"}, "n": {"type": "integer"}, "tags": {"type": "array", "items": {"type": "string"}},
        "scan": {"type": "string", "format": "binary"}, "inner": {"$ref": "#/components/schemas/Item"},
    },
    "required": ["name"],
}  # fmt: skip


def _body(kind: str, schema: Any = None) -> dict[str, Any]:
    media = {} if schema is None else {"schema": schema}
    return {"requestBody": {"required": True, "content": {kind: media}}}


DOCUMENT: dict[str, Any] = {
    "openapi": "3.1.0",
    "info": {"title": "orders", "version": "1"},
    "servers": [{"url": "http://elsewhere.example"}],
    "components": {
        "schemas": {
            "Item": ITEM,
            "Order": {
                "type": "object",
                "properties": {"items": {"type": "array", "items": {"$ref": "#/components/schemas/Item"}}},
            },
            "Unused": {"type": "string"},
            "Tree": {"type": "object", "properties": {"of": {"$ref": "#/components/schemas/Tree"}}},
        },
        "parameters": {
            "Tags": {"name": "tags", "in": "query", "schema": {"type": "array", "items": {"type": "string"}}}
        },
    },
    "paths": {
        "/orders/{id}": {
            "parameters": [ID],
            "get": {
                "operationId": "orders/get",
                "parameters": [
                    {"$ref": "#/components/parameters/Tags"},
                    {"name": "fields", "in": "query", "explode": False, "schema": {"type": "array"}},
                    {"name": "X-Mine", "in": "header", "schema": {"type": "string"}},
                    {"name": "Authorization", "in": "header", "required": True, "schema": {"type": "string"}},
                ],
            },
            "put": {
                "operationId": "putOrder",
                "requestBody": {
                    "required": True,
                    "content": {"application/json; charset=utf-8": {"schema": {"$ref": "#/components/schemas/Order"}}},
                },
            },
            "delete": {
                "operationId": "eat",
                "parameters": [{"name": "c", "in": "cookie", "required": True, "content": {"text/plain": {}}}],
            },
        },
        "/form": {"post": {"operationId": "form", **_body("application/x-www-form-urlencoded", FORM)}},
        "/parts": {
            "post": {
                "operationId": "parts",
                "parameters": [{"name": "session", "in": "cookie", "schema": {"type": "string"}}],
                **_body("multipart/form-data", FORM),
            }
        },
        "/text": {"post": {"operationId": "text", **_body("text/plain")}},
        "/bytes": {"post": {"operationId": "bytes", **_body("application/octet-stream")}},
        "/file": {"post": {"operationId": "file", **_body("multipart/form-data", {**FORM, "required": ["scan"]})}},
        "/upload": {"post": {"operationId": "upload", "requestBody": {"required": True, "content": {"image/png": {}}}}},
        "/tree": {
            "post": {
                "operationId": "tree",
                "requestBody": {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/Tree"}}}},
            }
        },
        "/unnamed": {"get": {}},
        "/match": {
            "post": {
                "operationId": "match",
                "requestBody": {
                    "content": {"application/json": {"schema": {"items": {"patternProperties": {"^(a+)+$": {}}}}}}
                },
            }
        },
        "/lost/{what}": {"get": {"operationId": "lost"}},
    },
}


def with_options(**options: Any) -> Link:
    spec = {"protocol": "http", "endpoint": "http://far.example/v1", "options": options}
    return Link("far", connection_spec(spec), "", "default", "uid", 1)


def admitted(effect: str, arguments: Any, link: Link | None = None) -> Any:
    given = (registry().performers(data_fault), "default", "far", link or with_options(openapi=DOCUMENT))
    return admit(effect, arguments, 0, 10, *given)


def test_operations_have_the_arguments_that_the_document_says() -> None:
    """Four objects, closed; of the components what is referred to; what is the connection's to set is left out."""
    found = operations_of(DOCUMENT)
    others = {"form", "parts", "text", "bytes", "file"}
    assert set(found) == {"orders_get", "putOrder", "eat", "upload", "tree", "match", "lost"} | others
    schema = found["orders_get"].arguments
    assert set(schema["properties"]) == {"path", "query", "header"}
    assert set(schema["properties"]["header"]["properties"]) == {"X-Mine"}
    assert schema["required"] == ["path"]
    assert set(found["putOrder"].arguments["components"]["schemas"]) == {"Order", "Item"}
    assert all(schema_fault(it.arguments) is None for it in found.values() if it.name != "match")
    assert document_fault(DOCUMENT) is None


@pytest.mark.parametrize(
    ("effect", "arguments", "reason", "told"),
    [
        ("http.orders_get", {"path": {"id": 0}}, "INVALID_VALUE", "$.path.id"),
        ("http.orders_get", {}, "INVALID_VALUE", "path"),
        ("http.orders_get", {"path": {"id": 1}, "query": {"more": 1}}, "INVALID_VALUE", "more"),
        ("http.orders_get", [], "INVALID_VALUE", "object"),
        ("http.putOrder", {"path": {"id": 1}, "body": {"items": [{"n": 1}]}}, "INVALID_VALUE", "sku"),
        ("http.tree", {"body": {"of": {"of": 7}}}, "INVALID_VALUE", "$.body.of.of"),
        ("http.eat", {}, "UNKNOWN_EFFECT", "cookie"),
        ("http.upload", {}, "UNKNOWN_EFFECT", "image/png"),
        ("http.file", {}, "UNKNOWN_EFFECT", "needs scan, which is a file"),
        ("http.form", {"body": {"n": 1}}, "INVALID_VALUE", "name"),
        ("http.form", {"body": {"name": "x", "scan": "y"}}, "INVALID_VALUE", "scan"),
        ("http.text", {"body": 7}, "INVALID_VALUE", "body"),
        ("http.bytes", {"body": "A" * 400_000}, "INVALID_VALUE", "body"),
        ("http.match", {"body": [{"a" * 60 + "!": 1}]}, "UNKNOWN_EFFECT", "patternProperties"),
        ("http.lost", {}, "UNKNOWN_EFFECT", "what"),
        ("http.nothing", {}, "UNKNOWN_EFFECT", "http.orders_get"),
        ("http.*", {}, "UNKNOWN_EFFECT", "http.orders_get"),
    ],
)
def test_arguments_that_do_not_meet_it_are_refused(effect: str, arguments: Any, reason: str, told: str) -> None:
    """By the document, before anything is written; an effect that is not there is answered with those that are."""
    found = admitted(effect, arguments)
    assert isinstance(found, Problem)
    assert found.reason == reason
    assert told in found.detail + str(found.metadata)


def test_a_connection_without_a_document_has_requests_alone() -> None:
    """The effector of a name goes before the family of its protocol."""
    plain = with_options()
    assert isinstance(admitted("http.orders_get", {}, plain), Problem)
    effector, _ = admitted("http.request", {"path": "x"}, plain)
    assert effector.name == "http.request"


def test_arguments_become_one_request() -> None:
    """Encoded where they stand; lists as the document wants them; a path can not lead elsewhere."""
    found = operations_of(DOCUMENT)
    query = {"tags": ["a b", "c"], "fields": ["x", "y"]}
    asked = request_of(found["orders_get"], {"path": {"id": 7}, "query": query, "header": {"X-Mine": "1"}})
    assert (asked.method, asked.path) == ("GET", "/orders/7")
    assert (asked.query, asked.headers) == ({"tags": ["a b", "c"], "fields": "x,y"}, {"X-Mine": "1"})
    body = {"items": [{"sku": "s"}]}
    asked = request_of(found["putOrder"], {"path": {"id": 7}, "body": body})
    assert (asked.method, asked.body) == ("PUT", body)
    for evil in ("../x", "a/b", "..", "", "%2e%2e"):
        text = {"parameters": [{**ID, "schema": {"type": "string"}}], "get": {"operationId": "o"}}
        called = operations_of({"openapi": "3.1.0", "paths": {"/o/{id}/p": text}})["o"]
        if not evil:
            with pytest.raises(Refusal, match="empty"):
                request_of(called, {"path": {"id": evil}})
            continue
        try:
            path = request_of(called, {"path": {"id": evil}}).path
        except ValueError:
            continue
        assert path == "/o/%252e%252e/p", evil
    with pytest.raises(Refusal):
        request_of(found["orders_get"], {"path": {"id": 1}, "query": {"tags": [{}]}})


def test_bodies_that_are_no_json_are_made_of_arguments() -> None:
    """A form, the text fields of a multipart one, a text, bytes; cookies beside them; once more is the same."""
    found = operations_of(DOCUMENT)
    form = {"name": "a b&c", "n": 2, "tags": ["x", "y"]}
    asked = request_of(found["form"], {"body": form})
    assert (asked.content, asked.headers) == (
        b"name=a+b%26c&n=2&tags=x&tags=y", {"Content-Type": "application/x-www-form-urlencoded"}
    )  # fmt: skip
    parts = {"body": {"name": 'q"\r\n', "n": 2}, "cookie": {"session": "a;b c"}}
    asked = request_of(found["parts"], parts)
    assert asked == request_of(found["parts"], parts)
    assert asked.cookie == "session=a%3Bb%20c"
    assert asked.headers["Content-Type"].startswith("multipart/form-data; boundary=steward-")
    assert asked.content is not None
    assert asked.content.count(b"Content-Disposition: form-data; name=") == 2
    asked = request_of(found["text"], {"body": "Grüße"})
    assert (asked.content, asked.headers["Content-Type"]) == ("Grüße".encode(), "text/plain; charset=utf-8")
    asked = request_of(found["bytes"], {"body": "AP8="})
    assert (asked.content, asked.headers["Content-Type"]) == (b"\x00\xff", "application/octet-stream")
    with pytest.raises(Refusal, match="base64"):
        request_of(found["bytes"], {"body": "no base64!"})


def test_a_field_that_is_a_list_of_itself_can_not_be_sent() -> None:
    """A document may say so, by references alone; where the field is not needed the others are sent without it."""
    endless = {"type": "array", "items": {"$ref": "#/components/schemas/A"}}
    for needed in ([], ["a"]):
        fields = {"a": {"$ref": "#/components/schemas/A"}, "b": {"type": "string"}}
        form = {"type": "object", "properties": fields, "required": needed}
        item = {"post": {"operationId": "o", **_body("multipart/form-data", form)}}
        document = {"openapi": "3.1.0", "paths": {"/o": item}, "components": {"schemas": {"A": endless}}}
        assert document_fault(document) is None
        called = operations_of(document)["o"]
        assert ("without end" in called.unusable) == bool(needed)
        assert needed or list(called.arguments["properties"]["body"]["properties"]) == ["b"]


@pytest.mark.parametrize("schema", [{"type": "object"}, {"type": ["array", "null"]}, {"properties": {}}])
def test_a_text_that_would_be_an_object_can_not_be_sent(schema: Any) -> None:
    """What it would look like the document does not say."""
    item = {"post": {"operationId": "o", **_body("text/plain", schema)}}
    assert operations_of({"openapi": "3.1.0", "paths": {"/o": item}})["o"].unusable.startswith("its text is")


def test_a_text_of_any_kind_is_sent_where_it_is_one() -> None:
    """A schema that says nothing lets in what is no text: that is refused when it is sent."""
    item = {"post": {"operationId": "o", **_body("text/plain", {"description": "anything"})}}
    called = operations_of({"openapi": "3.1.0", "paths": {"/o": item}})["o"]
    assert request_of(called, {"body": True}).content == b"true"
    for odd in ({"a": 1}, ["a"], None):
        with pytest.raises(Refusal, match="a body of text"):
            request_of(called, {"body": odd})


def test_older_documents_are_read_in_newer_words() -> None:
    """Nullable and exclusive bounds of 3.0; a property that is called so stays one."""
    schema = {
        "type": "object",
        "properties": {
            "nullable": {"type": "string", "nullable": True},
            "n": {"type": "number", "minimum": 0, "exclusiveMinimum": True},
        },
    }
    item = {"post": {"operationId": "o", "requestBody": {"content": {"application/json": {"schema": schema}}}}}
    called = operations_of({"openapi": "3.0.3", "paths": {"/o": item}})["o"]
    assert data_fault(called.arguments, {"body": {"nullable": None, "n": 1}}) is None
    assert data_fault(called.arguments, {"body": {"n": 0}}) is not None


def test_documents_that_no_effects_can_be_made_of_say_why() -> None:
    """Another version, nothing to call, references that lead out or nowhere or round, too much of anything."""
    get = {"operationId": "o"}

    def paths(item: Any, **more: Any) -> dict[str, Any]:
        return {"openapi": "3.1.0", "paths": {"/a": item}, **more}

    def body(schema: Any, **more: Any) -> dict[str, Any]:
        return paths({"post": {**get, "requestBody": {"content": {"application/json": {"schema": schema}}}}}, **more)

    ring = {
        "components": {
            "parameters": {"a": {"$ref": "#/components/parameters/b"}, "b": {"$ref": "#/components/parameters/a"}}
        }
    }
    many = {
        "openapi": "3.1.0",
        "paths": {f"/{n}": {"get": {"operationId": f"o{n}"}} for n in range(OPERATIONS_MAX + 1)},
    }
    cases = {
        "version": {"swagger": "2.0", "paths": {}},
        "operationId": paths({}),
        "two operations": paths({"get": get, "post": get}),
        "only its components": body({"$ref": "https://far.example/schema"}),
        "not in it": body({"$ref": "#/components/schemas/None"}),
        "without end": paths({"get": {**get, "parameters": [{"$ref": "#/components/parameters/a"}]}}, **ring),
        "operation o": body({"type": 7}),
        "more than": many,
        "larger": {**paths({"get": get}), "x": "x" * DOCUMENT_BYTES_MAX},
    }
    for told, document in cases.items():
        assert told in (document_fault(document) or ""), told
    for odd in ({"openapi": "3.1.0", "paths": []}, {"openapi": "3.1.0"}, paths([]), paths({"get": []})):
        assert document_fault(odd) is not None


def test_the_largest_schema_of_arguments_is_bounded() -> None:
    """Parts that many operations share are not copied for each; one that is too large is not used."""
    large = {"components": {"schemas": {"L": {"type": "object", "description": "x" * 70_000}}}}
    media = {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/L"}}}}
    found = operations_of(
        {"openapi": "3.1.0", "paths": {"/a": {"post": {"operationId": "o", "requestBody": media}}}, **large}
    )
    assert "larger" in found["o"].unusable


@pytest.mark.anyio
async def test_an_operation_is_sent_as_the_connection_says(quick_url: str) -> None:
    """Granted by its name or as any of its protocol; with secret, key, trace; written ahead with roles; once."""
    async with counting() as far, running(quick_url, send_within_s=2.0) as gate:
        code = await gate.code(SOURCE)
        grants = [{"effect": "http.orders_get", "connection": "shop"}, {"effect": "http.*", "connection": "other"}]
        await gate.agent("buyer", code, "Noter", mandate={"grants": grants})
        await secret(gate, "token")
        whole = {**HONOURED, "openapi": DOCUMENT}
        for name in ("shop", "other"):
            await connected(gate, name, far, whole, secret={"name": "token", "key": "token"}, limits={"timeout_s": 20})
        asked = {"effect": "http.orders_get", "connection": "shop", "path": {"id": 7}, "query": {"tags": ["x"]}}
        assert (await gate.ask("buyer", asked, "m1"))["status"] == 200
        seen = far.asked[-1]
        assert (seen.method, seen.path) == ("GET", "/v1/orders/7?tags=x")
        assert (seen.headers["authorization"], seen.headers["idempotency-key"][-4:]) == ("Bearer correct horse", ":0:0")
        body = {"specversion": "1.0", "id": "m0", "source": "/operators/test", "type": "steward.message"}
        body |= {"time": "2026-01-01T00:00:00Z", "traceparent": TRACE, "data": dict(asked), "subject": "default/buyer"}
        await gate.client.publish("default", "buyer", "m0", orjson.dumps(body), 0.0, "test")
        await true(lambda: len(far.asked) == 2)
        assert "traceparent" not in far.asked[0].headers
        assert far.asked.pop().headers["traceparent"] == TRACE, "the call is part of what asked for it"
        far.acts.pop()
        put = {"connection": "other", "effect": "http.putOrder", "path": {"id": 1}, "body": {"items": []}}
        far.behave = ["lost"]
        assert (await gate.ask("buyer", put, "m2"))["json"] == {"done": 1}
        assert [it.method for it in far.asked] == ["GET", "PUT", "PUT"], "the key is honoured, so it may be sent again"
        assert len(far.acts) == 2
        assert await gate.ask("buyer", {**put, "connection": "shop"}, "m3") == "NOT_GRANTED"
        assert await gate.ask("buyer", {**put, "body": 7}, "m4") == "INVALID_VALUE"
        rows = await gate.rows("SELECT verdict FROM journal WHERE kind = 'effect' ORDER BY recorded_at LIMIT 1")
        roles = orjson.loads(rows[0][0])["features"]["roles"]["value"]
        assert roles == {
            "path": "target", "query": "control", "header": "control", "cookie": "control", "body": "payload"
        }  # fmt: skip
        far.behave = []
        form = {"connection": "other", "effect": "http.parts", "cookie": {"session": "s"}, "body": {"name": "x"}}
        assert (await gate.ask("buyer", form, "m5"))["status"] == 200
        seen = far.asked[-1]
        assert seen.headers["cookie"] == "session=s"
        assert seen.headers["content-type"].startswith("multipart/form-data; boundary=")


@pytest.mark.anyio
@pytest.mark.parametrize("mode", ["binary", "structured"])
async def test_no_header_of_an_agent_stands_beside_one_of_its_event(monkeypatch: pytest.MonkeyPatch, mode: str) -> None:
    """Whatever its case: else the far side would choose between the label and what an agent says of it."""
    effector, sent = HttpEffector(), dict[str, str]()

    async def answer(request: Any, link: Link, headers: dict[str, str], own: dict[str, str]) -> None:
        sent.update(headers)

    monkeypatch.setattr(effector, "_answer", answer)
    event = {"specversion": "1.0", "id": "e1", "source": "/mine", "type": "told", "data": 1}
    given = {"Ce-Taint": "trusted", "CE-ID": "other", "content-Type": "text/plain", "X-Mine": "1"}
    asked = HttpRequest.model_validate({"method": "POST", "event": event, "event_mode": mode, "headers": given})
    await effector.execute(asked, EffectCall("key", with_options(), taint="untrusted"))
    names = [name.lower() for name in sent]
    assert len(names) == len(set(names))
    assert (sent["X-Mine"], "Ce-Taint" in sent, "CE-ID" in sent) == ("1", False, False)
    assert sent.get("ce-taint") == ("untrusted" if mode == "binary" else None)
