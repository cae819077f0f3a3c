"""What the schemas promise of one call: whether it must be taken, and what its output is.

A tool that stands for another operation (`rules.WIDER`) is held against the schema of that operation too.
"""

import json
import re
from collections.abc import Iterator
from datetime import datetime
from functools import cache
from typing import Any

import jsonschema
import orjson

from controlplane.operations.discovery import schemas_of
from controlplane.resources.catalogue import OPERATIONS
from fuzz.rules import WIDER
from mcp_server.intents import INTENTS

Schema = dict[str, Any]
UNREADABLE = object()
_FORMATS = jsonschema.FormatChecker(formats=())


def _is_time(value: Any) -> bool:
    return not isinstance(value, str) or datetime.fromisoformat(value).tzinfo is not None


_FORMATS.checks("date-time", raises=ValueError)(_is_time)


def _pattern(_: Any, pattern: str, value: Any, __: Any) -> Iterator[jsonschema.ValidationError]:
    """As ECMA has it: `$` is the very end, and not before a last line break too."""
    if isinstance(value, str) and not re.search(re.sub(r"\$\Z", r"\\Z", pattern), value):
        yield jsonschema.ValidationError(f"{value!r} does not match {pattern!r}")


_Validator = jsonschema.validators.extend(jsonschema.Draft202012Validator, {"pattern": _pattern})


def validator(schema: Schema) -> Any:
    """A validator that reads a schema as those who wrote it."""
    return _Validator(schema, format_checker=_FORMATS)


@cache
def _of_operation(name: str, part: int) -> Any:
    return validator(schemas_of(name)[part])


def read(text: str) -> Any:
    """The arguments as a strict reader has them, or UNREADABLE; null is as good as none, which MCP allows."""
    try:
        found = orjson.loads(text)
    except orjson.JSONDecodeError:
        return UNREADABLE
    return {} if found is None else found


def stands_for(tool: str, given: dict[str, Any]) -> tuple[str, Any] | None:
    """The operation that a call of a wider tool stands for, with its input."""
    if tool not in WIDER:
        return None
    if tool == "propose":
        return "resources.propose", given
    return given["operation" if tool == "act" else "name"], given.get("arguments", {})


def takes(tool: str, schema: Schema, given: Any) -> bool:
    """Whether the schemas take the arguments."""
    if given is UNREADABLE or not validator(schema).is_valid(given):
        return False
    inner = stands_for(tool, given)
    if inner is None or inner[0] not in OPERATIONS:  # what is no operation is not found, and its input not read
        return True
    return inner[0] != "operations.call" and bool(_of_operation(inner[0], 0).is_valid(inner[1]))


def wrong_output(endpoint: str, tool: str, given: Any, data: Any) -> str | None:
    """What of an output the operation behind an intent does not say; at the other endpoint the tool's list says it."""
    if endpoint != "/mcp" or not isinstance(given, dict):
        return None
    operation = INTENTS[tool](given).operation
    error = next(_of_operation(operation, 1).iter_errors(data), None)
    return None if error is None else f"{operation}: {error.message[:200]}"


def canonical(schema: Schema) -> str:
    """Equal for equal schemas."""
    return json.dumps(schema, sort_keys=True)
