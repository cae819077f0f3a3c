"""Calling tools in tests: what every result must be, whatever it says."""

from typing import Any

import jsonschema
import mcp_types as types
import orjson
from mcp import Client

from mcp_server.results import OUTPUT_SCHEMA

VALIDATOR = jsonschema.Draft202012Validator(OUTPUT_SCHEMA)


async def ask(client: Client, tool: str, /, **arguments: Any) -> dict[str, Any]:
    """A tool's result, checked for its shape: one schema, and the same JSON as text."""
    answer = await client.call_tool(tool, arguments)
    assert isinstance(answer, types.CallToolResult)
    envelope: dict[str, Any] = answer.structured_content
    VALIDATOR.validate(envelope)
    (content,) = answer.content
    assert isinstance(content, types.TextContent)
    assert orjson.loads(content.text) == envelope
    assert answer.is_error is not envelope["ok"]
    if envelope["ok"]:
        assert set(envelope) == {
            *("ok", "summary", "ref", "as_of", "data", "untrusted_paths", "truncated", "next"),
        }
    else:
        assert set(envelope) == {"ok", "problem"}
    return envelope


async def done(client: Client, tool: str, /, **arguments: Any) -> dict[str, Any]:
    """A result that must be ok."""
    envelope = await ask(client, tool, **arguments)
    assert envelope["ok"], envelope
    return envelope


async def refused(client: Client, tool: str, /, **arguments: Any) -> dict[str, Any]:
    """The Problem of a call that must be refused."""
    envelope = await ask(client, tool, **arguments)
    assert not envelope["ok"], envelope
    problem: dict[str, Any] = envelope["problem"]
    return problem


async def follow(client: Client, envelope: dict[str, Any], tool: str) -> dict[str, Any]:
    """Take the step that the result offers, as it stands."""
    steps = [step for step in envelope["next"] if step["tool"] == tool]
    assert steps, envelope["next"]
    return await done(client, tool, **steps[0]["arguments"])
