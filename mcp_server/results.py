"""The one shape of every tool's result, for outputs and Problems alike.

`{ok, summary, ref, as_of, data, untrusted_paths, truncated, next}` or `{ok: false, problem}`: the
operation's output is `data`, unchanged; `untrusted_paths` name what came from agents or from the
outside, so that nobody takes it for instructions. The same JSON stands as text beside it, for
clients that read no structure; it is encoded once.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import orjson
from pydantic import BaseModel

from controlplane.resources.operation import Operation
from mcp_server.hints import Translate, hints
from mcp_server.summaries import tell
from schemas.base import rfc3339
from schemas.plan import Preview
from schemas.principal import Principal
from schemas.problem import Problem

OUTPUT_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "ok": {"type": "boolean"},
        "summary": {"type": "string"},
        "ref": {"anyOf": [{"type": "string"}, {"type": "null"}]},
        "as_of": {"type": "string"},
        "data": {"type": "object"},
        "untrusted_paths": {"type": "array", "items": {"type": "string"}},
        "truncated": {"type": "object"},
        "next": {"type": "array", "items": {"type": "object", "required": ["tool", "arguments"]}},
        "problem": {"type": "object", "required": ["reason", "detail"]},
    },
    "required": ["ok"],
}
WHOLE: dict[str, Any] = {"shown": 1, "total": 1, "page": None}
_LISTS = ("items", "events", "envelopes")

Result = dict[str, Any]  # a CallToolResult in its wire form


def result(
    operation: Operation,
    given: dict[str, Any],
    output: BaseModel,
    principal: Principal,
    translate: Translate,
    untrusted: tuple[str, ...],
) -> Result:
    """A successful output."""
    told = tell(operation, given, output)
    data = output.model_dump(mode="json")
    return _wire(
        {
            "ok": True,
            "summary": told.summary,
            "ref": told.ref,
            "as_of": data.get("as_of") or rfc3339(datetime.now(UTC)),
            "data": data,
            "untrusted_paths": [] if isinstance(output, Preview) else list(untrusted),
            "truncated": _truncated(data),
            "next": hints(told.next, principal, translate),
        },
        is_error=False,
    )


def refused(found: Problem, principal: Principal, translate: Translate) -> Result:
    """A Problem, with its steps as tools of this endpoint."""
    told = found.model_dump(mode="json")
    told["next"] = hints(found.next, principal, translate, of_problem=True)
    return _wire({"ok": False, "problem": told}, is_error=True)


def _truncated(data: Mapping[str, Any]) -> dict[str, Any]:
    """How much of a list is shown; its total only where it is known."""
    for name in _LISTS:
        items = data.get(name)
        if isinstance(items, list):
            page = data.get("next_page")
            whole = not page and "next_page" in data  # a log or a search has no known end
            return {"shown": len(items), "total": len(items) if whole else None, "page": page}
    inner = data.get("output")  # of `operations_call`
    return _truncated(inner) if set(data) == {"name", "output"} and isinstance(inner, dict) else WHOLE


def _wire(envelope: dict[str, Any], *, is_error: bool) -> Result:
    return {
        "content": [{"type": "text", "text": orjson.dumps(envelope).decode()}],
        "structuredContent": envelope,
        "isError": is_error,
        "resultType": "complete",
    }
