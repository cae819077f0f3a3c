"""`connections.effects`: what can be done over a connection of each protocol, and what can not, and why."""

import time
from typing import Any

import jsonschema
import orjson
import pytest

from controlplane.operations.living import performing
from controlplane.protocols.openapi import read
from controlplane.store import offers
from controlplane.store.packed import pack
from controlplane.store.store import Store
from controlplane.store.unit import Unit
from schemas.offered_effects import EffectList, EffectsInput
from schemas.offers import Offered
from schemas.problem import Refusal
from tests.living import world
from tests.operations.plane import Plane, connection
from tests.protocols.test_openapi import DOCUMENT

pytestmark = pytest.mark.anyio


@pytest.fixture
async def plane(store: Store) -> Plane:
    """On both databases."""
    return Plane(store)


async def effects(plane: Plane, name: str, **given: Any) -> EffectList:
    handler = performing.handlers(plane.store)["connections.effects"]
    found: Any = await handler(world.call("connections.effects", now=time.time()), EffectsInput(name=name, **given))
    assert isinstance(found, EffectList)
    for it in found.items:
        jsonschema.Draft202012Validator.check_schema(it.arguments)
        assert (it.grant.effect, it.grant.connection) == (it.effect, name)
    return found


async def test_requests_and_the_operations_of_a_document(plane: Plane) -> None:
    """With their schemas and roles; what a method promises; what of the document can not be mapped, and why."""
    options = {"repeats_safely": ["GET"], "idempotency_header": "Key", "key_lifetime_s": 60, "openapi": DOCUMENT}
    await plane.apply(connection("plain"), connection("shop", options=options))
    (request,) = (await effects(plane, "plain")).items
    assert (request.effect, request.repeats, request.magnitude) == ("http.request", "never", "unknown")
    assert (request.roles["path"], request.roles["json"], request.fault) == ("target", "payload", None)
    found = {it.effect: it for it in (await effects(plane, "shop")).items}
    assert {"http.request", "http.orders_get", "http.form"} <= set(found)
    request = found["http.request"]
    assert (request.repeats, request.repeating_methods, request.repeats_for_s) == ("by_method", ["GET"], 60)
    get, put = found["http.orders_get"], found["http.putOrder"]
    assert (get.repeats, put.repeats, put.repeats_for_s) == ("always", "for_a_time", 60)
    assert get.roles == {"path": "target", "query": "control", "header": "control"}
    assert get.arguments["required"] == ["path"]
    assert "$defs" in put.arguments, "where models look for what is referred to"
    why = {it.effect: it.fault for it in found.values() if it.fault is not None}
    assert set(why) == {f"http.{it}" for it in ("eat", "upload", "file", "match", "lost")}
    assert "image/png" in str(why["http.upload"])


async def test_a_document_is_read_once(plane: Plane) -> None:
    """However often somebody looks, and by how many connections."""
    options = {"openapi": {**DOCUMENT, "info": {"title": "read once", "version": "1"}}}
    await plane.apply(connection("one", options=options), connection("two", options=options))
    await effects(plane, "one")
    before = read.cache_info().misses
    for name in ("one", "two"):
        await effects(plane, name)
    assert read.cache_info().misses == before


async def test_statements_and_models(plane: Plane) -> None:
    """What only reads touches nothing; the rows of a change are counted; with a table of keys it is done once."""
    keyed = {"keys_table": "done"}
    await plane.apply(
        connection("db", protocol="sql", endpoint="postgresql://far.example/db"),
        connection("once", protocol="sql", endpoint="postgresql://far.example/db", options=keyed),
        connection("model", protocol="llm"),
    )
    execute, query = (await effects(plane, "db")).items
    assert (execute.effect, execute.magnitude, execute.repeats) == ("sql.execute", "counted", "never")
    assert (query.effect, query.magnitude, query.repeats) == ("sql.query", "none", "always")
    assert query.reads_only
    assert (await effects(plane, "once")).items[0].repeats != "never"
    (model,) = (await effects(plane, "model")).items
    assert (model.effect, model.reads_only, model.repeats_for_s) == ("llm.request", True, None)


async def test_tools_as_they_were_accepted(plane: Plane) -> None:
    """With the roles that were confirmed; one that was not accepted says so, and a page ends where it is asked to."""
    options = {"repeats_safely": ["issue"]}
    await plane.apply(connection("tracker", protocol="mcp", endpoint="https://far.example/mcp", options=options))
    assert (await effects(plane, "tracker")).unlisted == ["mcp.*"]
    uid = (await plane.call("connections.get", name="tracker"))["metadata"]["uid"]
    schema = {"type": "object", "properties": {"title": {"type": "string"}, "n": {"type": "integer"}}}
    for name in ("issue", "other"):
        tool = Offered(name=name, description=f"makes an {name}", input_schema=schema)
        seen = Unit().raw(offers.SEEN, [name, tool.digest, pack(tool.model_dump_json()), time.time(), uid], 1)
        assert await plane.store.write(seen)
        if name == "issue":
            roles = orjson.dumps({"title": "target", "n": "quantity"}).decode()
            given = [roles, "admin", time.time(), uid, name, tool.digest]
            assert await plane.store.write(Unit().raw(offers.ACCEPT, given, 1))
    first = await effects(plane, "tracker", limit=1)
    (issue,) = first.items
    assert (issue.effect, issue.description, issue.arguments) == ("mcp.issue", "makes an issue", schema)
    assert (issue.roles, issue.repeats, issue.fault) == ({"title": "target", "n": "quantity"}, "always", None)
    second = await effects(plane, "tracker", limit=1, page=first.next_page)
    (other,) = second.items
    assert (other.effect, second.next_page, second.unlisted) == ("mcp.other", None, [])
    assert "not accepted" in str(other.fault)


async def test_a_connection_that_is_not_there(plane: Plane) -> None:
    with pytest.raises(Refusal, match="nothing"):
        await effects(plane, "nothing")
