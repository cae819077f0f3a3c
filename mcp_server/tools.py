"""Tools of `/mcp/full`: one for each operation, made from the catalogue once.

A tool's name is the operation's with `_` for `.`; its input schema is the operation's,
its output schema the shape of every result with the operation's output as `data`; its annotations say
what the catalogue says. Arguments are validated by the dispatcher, not here.
"""

from dataclasses import dataclass
from typing import Any

import mcp_types as types

from controlplane.operations.discovery import schemas_of
from controlplane.resources.catalogue import OPERATIONS
from controlplane.resources.operation import Operation
from mcp_server.results import OUTPUT_SCHEMA


@dataclass(frozen=True)
class OperationTool:
    """An operation as a tool."""

    operation: Operation
    untrusted: tuple[str, ...]


def under_data(pointers: tuple[str, ...], inside: str = "") -> tuple[str, ...]:
    """Where the untrusted parts of an output stand in the result."""
    return tuple(f"/data{inside}{pointer}" for pointer in pointers)


BY_NAME: dict[str, OperationTool] = {
    operation.tool: OperationTool(operation, under_data(operation.untrusted)) for operation in OPERATIONS.values()
}
BY_OPERATION: dict[str, OperationTool] = {tool.operation.name: tool for tool in BY_NAME.values()}


def annotations(operation: Operation) -> types.ToolAnnotations:
    """What a client may expect of calling it."""
    return types.ToolAnnotations(
        read_only_hint=operation.effect == "read",
        destructive_hint=operation.effect == "destroy",
        idempotent_hint=operation.repeats_safely,
        open_world_hint=False,
    )


def input_schema(operation: Operation) -> dict[str, Any]:
    """The input as JSON Schema, without the titles that only repeat the names."""
    schema: dict[str, Any] = untitled(operation.input.model_json_schema())
    return schema


def output_schema(operation: Operation) -> dict[str, Any]:
    """A result whose `data` is the operation's output, or the preview of what acts at once."""
    data = untitled(schemas_of(operation.name)[1])
    definitions = data.pop("$defs", {})
    whole = OUTPUT_SCHEMA | {"properties": OUTPUT_SCHEMA["properties"] | {"data": data}}
    return whole | {"$defs": definitions} if definitions else whole


def untitled(schema: Any) -> Any:
    """A schema without `title` keywords; properties that are called so stay."""
    if isinstance(schema, list):
        return [untitled(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        key: {name: untitled(part) for name, part in value.items()}
        if key in ("properties", "$defs") and isinstance(value, dict)
        else (value if key in ("default", "examples", "enum", "const") else untitled(value))
        for key, value in schema.items()
        if key != "title" or not isinstance(value, str)
    }


def _tool(operation: Operation) -> types.Tool:
    return types.Tool(
        name=operation.tool,
        title=operation.summary,
        description=f"{operation.summary}. {operation.description}",
        input_schema=input_schema(operation),
        output_schema=output_schema(operation),
        annotations=annotations(operation),
    )


FULL_TOOLS: list[types.Tool] = [_tool(operation) for operation in OPERATIONS.values()]
