"""Connections when proposed: each protocol's own options, a stranger's by its schema, and what is refused, where."""

from typing import Any

import pytest

from controlplane.protocols.mcp_allowed import Startable
from controlplane.protocols.registry import registry
from controlplane.store.store import Store
from schemas.connection import connection_spec
from schemas.endpoint import ConnectionSpec
from schemas.problem import Refusal
from schemas.protocols import Declaration, Fault
from tests.operations.plane import Plane

pytestmark = pytest.mark.anyio
OPTIONS = {"type": "object", "properties": {"depth": {"type": "integer"}}, "additionalProperties": False}


def _fault(spec: ConnectionSpec) -> Fault | None:
    return None if spec.endpoint.startswith("gopher://") else Fault("/endpoint", "the endpoint is no gopher hole")


GOPHER = Declaration("gopher", lambda _: (), options=OPTIONS, fault=_fault)


@pytest.fixture
async def plane(quick_store: Store) -> Plane:
    """On one database, with a stranger's protocol beside ours."""
    declared = {**registry().declared, "gopher": GOPHER}
    return Plane(quick_store, protocols=declared)


def manifest(**spec: Any) -> dict[str, Any]:
    return {"kind": "Connection", "metadata": {"name": "c"}, "spec": spec}


async def test_a_stranger_s_connection_is_kept_as_it_was_given(plane: Plane) -> None:
    """Its options are free to us, and come back to the letter; proposing them again changes nothing."""
    given = manifest(protocol="gopher", endpoint="gopher://hole", options={"depth": 2})
    await plane.apply(given)
    stored = (await plane.call("connections.get", name="c"))["spec"]
    assert (stored["endpoint"], stored["options"]) == ("gopher://hole", {"depth": 2})
    assert (await plane.propose({**given, "spec": stored}))["steps"] == []


@pytest.mark.parametrize(
    ("spec", "reason", "field"),
    [
        ({"protocol": "telnet", "endpoint": "x"}, "UNKNOWN_PROTOCOL", "/protocol"),
        ({"protocol": "machine", "endpoint": "x"}, "UNKNOWN_PROTOCOL", "/protocol"),
        ({"protocol": "Http", "endpoint": "http://a"}, "INVALID_VALUE", "/protocol"),
        ({"protocol": 7, "endpoint": "http://a"}, "INVALID_VALUE", "/protocol"),
        ({"endpoint": "http://a"}, "MISSING_FIELD", "/protocol"),
        ({"protocol": "http"}, "MISSING_FIELD", "/endpoint"),
        ({"protocol": "http", "endpoint": "gopher://hole"}, "INVALID_VALUE", "/endpoint"),
        ({"protocol": "http", "endpoint": "http://a", "protocol:http": 1}, "UNKNOWN_FIELD", "/protocol:http"),
        ({"protocol": "http", "endpoint": "http://a", "options": {"api": "openai"}}, "UNKNOWN_FIELD", "/options/api"),
        ({"protocol": "gopher", "endpoint": "gopher://a", "options": {"deep": 1}}, "INVALID_VALUE", "/options"),
        ({"protocol": "gopher", "endpoint": "http://a"}, "INVALID_VALUE", "/endpoint"),
    ],
)
async def test_what_a_protocol_does_not_take_is_refused_where_it_stands(
    plane: Plane, spec: dict[str, Any], reason: str, field: str
) -> None:
    """By the schema, or by the protocol; a protocol that is not there is answered with those that are."""
    with pytest.raises(Refusal) as refused:
        await plane.propose(manifest(**spec))
    found = refused.value.problem
    assert (found.reason, found.field) == (reason, f"/manifests/0/spec{field}")
    if reason == "UNKNOWN_PROTOCOL":
        assert {"gopher", "http", "llm"} <= set(found.metadata["known"])
        assert "machine" not in found.metadata["known"]


STDIO: dict[str, Any] = {"protocol": "mcp", "endpoint": "stdio:"}


@pytest.mark.parametrize(
    ("options", "field", "setting"),
    [
        ({"command": "sh", "args": ["-c", "id"]}, "/options/command", "STEWARD_MCP_COMMANDS"),
        ({"command": "npx", "args": ["-y"]}, "/options/command", "STEWARD_MCP_COMMANDS"),
        ({"command": "npx", "args": ["-y", "@a/b"], "env": {"PATH": "/x"}}, "/options/env", "STEWARD_MCP_VARIABLES"),
        (
            {"command": "npx", "args": ["-y", "@a/b"], "env_from_secret": "KEY"},
            "/options/env_from_secret",
            "STEWARD_MCP_VARIABLES",
        ),
    ],
)
async def test_a_process_that_may_not_be_started_is_not_proposed(
    plane: Plane, options: dict[str, Any], field: str, setting: str
) -> None:
    """It is refused with the setting that says so, and a commit is, where the setting changed after the proposal."""
    startable = Startable([["npx", "-y", "@a/b"]], ["TOKEN"])
    object.__setattr__(plane.proposer, "startable", startable)
    with pytest.raises(Refusal) as refused:
        await plane.propose(manifest(**STDIO, options=options))
    found = refused.value.problem
    assert (found.reason, found.field) == ("NOT_SET_UP", f"/manifests/0/spec{field}")
    assert found.metadata["setting"] == setting
    allowed = {"command": "npx", "args": ["-y", "@a/b", "--ro"], "env": {"TOKEN": "x"}}
    plan = await plane.propose(manifest(**STDIO, options=allowed))
    object.__setattr__(plane.proposer, "startable", Startable())
    with pytest.raises(Refusal, match="STEWARD_MCP_COMMANDS"):
        await plane.call("plans.commit", plan_id=plan["plan_id"])
    object.__setattr__(plane.proposer, "startable", startable)
    assert (await plane.call("plans.commit", plan_id=plan["plan_id"]))["outcome"] == "committed"


def test_records_of_before_the_options_were_told_apart_are_read() -> None:
    """They hold fields that were never used."""
    old: dict[str, Any] = {
        "protocol": "llm",
        "endpoint": "http://a",
        "options": {"api": "anthropic", "redirects_max": 0},
    }
    assert connection_spec(old).options.api == "anthropic"
    old = {"protocol": "http", "endpoint": "http://a", "options": {"api": "openai", "redirects_max": 2}}
    assert connection_spec(old).options.redirects_max == 2
