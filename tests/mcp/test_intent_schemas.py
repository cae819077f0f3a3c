"""What the schema of an intent tool refuses, the tool refuses; what it takes is not called invalid."""

from typing import Any

import pytest

from fuzz.mcp_promise import validator
from mcp_server.intent_schemas import SCHEMAS
from tests.mcp.calls import ask, refused
from tests.mcp.conftest import Connect

pytestmark = pytest.mark.anyio

FLEET = {"kind": "Fleet", "metadata": {"name": "f"}}
LABELLED = {"kind": "Channel", "metadata": {"name": "c", "labels": {"a": 1}}}
REFUSED: list[tuple[str, dict[str, Any]]] = [
    ("wait", {"wait_s": 0}),
    ("wait", {"change_id": "chg_1", "after": "x"}),
    ("wait", {"change_id": "chg_1", "limit": 1}),
    ("wait", {"filter": {"bogus": 1}}),
    ("find", {"kind": "Agent", "namespace": "BAD NAME"}),
    ("find", {"kind": "Agent", "labels": {"a": 1}}),
    ("find", {"kind": "Agent", "query": 1}),
    ("get", {"kind": "Agent", "name": "NOT A NAME"}),
    ("commit", {"plan_id": " "}),
    ("undo", {"change_id": None}),
    ("propose", {"manifests": [FLEET]}),
    ("propose", {"manifests": [LABELLED]}),
    ("propose", {"manifests": [{"kind": "Channel", "metadata": {"name": "c"}, "more": 1}]}),
]
TAKEN: list[tuple[str, dict[str, Any]]] = [
    ("find", {"kind": "Agent", "query": None, "page": None, "namespace": None, "labels": None}),
    ("wait", {"after": None, "filter": None, "limit": 1, "timeout_s": 0}),
    ("propose", {"manifests": [{"kind": "Channel", "metadata": {"name": "c"}}]}),
]


@pytest.mark.parametrize(("tool", "given"), REFUSED)
async def test_what_the_schema_refuses_is_refused(connect_swept: Connect, tool: str, given: dict[str, Any]) -> None:
    """By the schema in the list, and by the tool as invalid input."""
    assert not validator(SCHEMAS[tool]).is_valid(given)
    async with connect_swept() as client:
        problem = await refused(client, tool, **given)
    assert problem["status"] == 422, problem


@pytest.mark.parametrize(("tool", "given"), TAKEN)
async def test_what_the_schema_takes_is_taken(connect_swept: Connect, tool: str, given: dict[str, Any]) -> None:
    """With an output, since nothing stored stands against it."""
    assert validator(SCHEMAS[tool]).is_valid(given)
    async with connect_swept() as client:
        assert (await ask(client, tool, **given))["ok"]
