"""Tools of the suite's fixtures that answer in one exchange."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import mcp_types as types
from mcp import MCPError
from mcp.server import ServerRequestContext

from tests.conformance.asking import ASKING
from tests.conformance.contents import AUDIO, IMAGE, embedded, text

Context = ServerRequestContext[Any, Any]
Called = Callable[[Context, types.CallToolRequestParams], Awaitable[Any]]
STEP_S = 0.05
NOTHING: dict[str, Any] = {"type": "object", "properties": {}}
JSON_SCHEMA = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "$defs": {
        "address": {
            "$anchor": "addressDef",
            "type": "object",
            "properties": {"street": {"type": "string"}, "city": {"type": "string"}},
        }
    },
    "properties": {
        "name": {"type": "string"},
        "address": {"$ref": "#/$defs/address"},
        "contactMethod": {"type": "string", "enum": ["phone", "email"]},
        "phone": {"type": "string"},
        "email": {"type": "string"},
    },
    "allOf": [{"anyOf": [{"required": ["phone"]}, {"required": ["email"]}]}],
    "if": {"properties": {"contactMethod": {"const": "phone"}}, "required": ["contactMethod"]},
    "then": {"required": ["phone"]},
    "else": {"required": ["email"]},
    "additionalProperties": False,
}


def _answer(*contents: Any, is_error: bool = False) -> types.CallToolResult:
    return types.CallToolResult(content=list(contents), is_error=is_error)


def _always(*contents: Any, is_error: bool = False) -> Called:
    async def called(context: Context, params: types.CallToolRequestParams) -> types.CallToolResult:
        return _answer(*contents, is_error=is_error)

    return called


async def _progress(context: Context, params: types.CallToolRequestParams) -> types.CallToolResult:
    for done in (0, 50, 100):
        await context.session.report_progress(done, 100)
        await asyncio.sleep(STEP_S)
    return _answer(text("done"))


async def _logging(context: Context, params: types.CallToolRequestParams) -> types.CallToolResult:
    """Log messages go only to who asked for them in this era; in the one before, to everybody."""
    asked = context.protocol_version < "2026-07-28" or bool((context.meta or {}).get(types.LOG_LEVEL_META_KEY))
    for message in ("Tool execution started", "Tool processing data", "Tool execution completed") if asked else ():
        note = types.LoggingMessageNotification(
            params=types.LoggingMessageNotificationParams(level="info", data=message)
        )
        await context.session.send_notification(note, related_request_id=context.request_id)
        await asyncio.sleep(STEP_S)
    return _answer(text("logged"))


async def _missing_capability(context: Context, params: types.CallToolRequestParams) -> types.CallToolResult:
    needed = types.ClientCapabilities(sampling=types.SamplingCapability())
    if not context.session.check_client_capability(needed):
        data = {"requiredCapabilities": {"sampling": {}}}
        raise MCPError(types.MISSING_REQUIRED_CLIENT_CAPABILITY, "the client can not sample", data)
    return _answer(text("the client can sample"))


async def _sampling(context: Context, params: types.CallToolRequestParams) -> types.CallToolResult:
    """Of the handshake era: asks the client within the call."""
    message = types.SamplingMessage(role="user", content=text(str((params.arguments or {}).get("prompt", ""))))
    answer = await context.session.create_message([message], max_tokens=100)
    return _answer(text(f"LLM response: {answer.content}"))


def _elicits(schema: dict[str, Any]) -> Called:
    """Of the handshake era: asks the user within the call."""

    async def called(context: Context, params: types.CallToolRequestParams) -> types.CallToolResult:
        message = str((params.arguments or {}).get("message", "please answer"))
        answer = await context.session.elicit_form(message, schema, related_request_id=context.request_id)
        return _answer(text(f"Elicitation completed: action={answer.action}, content={answer.content}"))

    return called


def _form(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties}


_CHOICES = ("option1", "option2", "option3")
_TITLED = [{"const": f"value{number}", "title": f"Choice {number}"} for number in (1, 2, 3)]
_ENUMS = _form(
    untitledSingle={"type": "string", "enum": list(_CHOICES)},
    titledSingle={"type": "string", "oneOf": _TITLED},
    legacyEnum={"type": "string", "enum": ["opt1", "opt2"], "enumNames": ["Option One", "Option Two"]},
    untitledMulti={"type": "array", "items": {"type": "string", "enum": list(_CHOICES)}},
    titledMulti={"type": "array", "items": {"anyOf": _TITLED}},
)
_DEFAULTS = _form(
    name={"type": "string", "default": "John Doe"},
    age={"type": "integer", "default": 30},
    score={"type": "number", "default": 95.5},
    status={"type": "string", "enum": ["active", "inactive", "pending"], "default": "active"},
    verified={"type": "boolean", "default": True},
)
TOOLS: dict[str, Called] = {
    "test_simple_text": _always(text("This is a simple text response for testing.")),
    "test_image_content": _always(IMAGE),
    "test_audio_content": _always(AUDIO),
    "test_embedded_resource": _always(embedded("test://embedded-resource", "This is an embedded resource content.")),
    "test_multiple_content_types": _always(
        text("Multiple content types test:"),
        IMAGE,
        embedded("test://mixed-content-resource", '{"test":"data","value":123}', "application/json"),
    ),
    "test_error_handling": _always(text("This tool intentionally returns an error for testing"), is_error=True),
    "test_tool_with_progress": _progress,
    "test_tool_with_logging": _logging,
    "test_logging_tool": _logging,
    "test_missing_capability": _missing_capability,
    "test_streaming_elicitation": _always(text("nothing to ask")),
    "test_sampling": _sampling,
    "test_elicitation": _elicits(_form(username={"type": "string"}, email={"type": "string"})),
    "test_elicitation_sep1034_defaults": _elicits(_DEFAULTS),
    "test_elicitation_sep1330_enums": _elicits(_ENUMS),
    "json_schema_2020_12_tool": _always(text("ok")),
    "test_custom_headers": _always(text("ok")),
}
HEADER_SCHEMA = {"type": "object", "properties": {"region": {"type": "string", "x-mcp-header": "Region"}}}
_SCHEMAS = {"json_schema_2020_12_tool": JSON_SCHEMA, "test_custom_headers": HEADER_SCHEMA}
LISTED = [
    types.Tool(name=name, description="of the conformance suite", input_schema=_SCHEMAS.get(name, NOTHING))
    for name in (*TOOLS, *ASKING)
]
