"""What the intent tools take: the fields of the operations behind them, by the names that the tools have for them.

Two things are said here that the operations' own schemas do not say: which fields go together in `wait`, and how
little of a manifest's spec fits into a list that a model carries along. No schema has `oneOf` at its root, because
some models' tools may not.
"""

from typing import Any

from controlplane.resources.catalogue import OPERATIONS
from mcp_server.hints import ACTS, KINDS
from mcp_server.tools import input_schema

Schema = dict[str, Any]
_OBJECT: Schema = {"type": "object"}
_KIND: Schema = {"enum": list(KINDS.values())}


def _inlined(schema: Any, definitions: dict[str, Any]) -> Any:
    """The schema with its definitions where they are used."""
    if isinstance(schema, list):
        return [_inlined(part, definitions) for part in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        return _inlined(definitions[schema["$ref"].rpartition("/")[2]], definitions)
    return {key: _inlined(part, definitions) for key, part in schema.items() if key != "discriminator"}


def _taken(operation: str) -> Schema:
    """What an operation takes, in one piece, without the description that its tool has."""
    schema = input_schema(OPERATIONS[operation])
    definitions = schema.pop("$defs", {})
    schema.pop("description", None)
    found: Schema = _inlined(schema, definitions)
    return found


def _of_kind(verb: str, **more: Schema) -> Schema:
    """What an operation of every kind takes, and of which kind."""
    schema = _taken(f"agents.{verb}")
    properties = {"kind": _KIND, **schema["properties"], **more}
    return schema | {"properties": properties, "required": ["kind", *schema.get("required", ())]}


def _manifest() -> Schema:
    """What the manifests of all kinds have in common; the spec is said by `operations_describe`."""
    variants = [_taken(f"{noun}.propose")["properties"]["manifest"] for noun in KINDS]
    with_spec = [it["properties"]["kind"]["const"] for it in variants if "spec" in it["required"]]
    common: Schema = variants[0]["properties"]
    return {
        "type": "object",
        "properties": {
            "api_version": common["api_version"],
            "kind": _KIND,
            "metadata": common["metadata"],
            "spec": _OBJECT,
            "status": common["status"],
        },
        "required": ["kind", "metadata"],
        "additionalProperties": False,
        "if": {"properties": {"kind": {"enum": with_spec}}},
        "then": {"required": ["spec"]},
    }


def _propose() -> Schema:
    schema = _taken("resources.propose")
    manifests = schema["properties"]["manifests"] | {"items": _manifest()}
    return schema | {"properties": {"manifests": manifests}}


def _wait() -> Schema:
    """With `change_id`, of an event's fields only the time that is waited."""
    change, events = (_taken(name)["properties"] for name in ("changes.wait", "feedback.read"))
    of_events = {name: events[name] for name in ("after", "filter", "limit")}
    of_events["filter"] = of_events["filter"] | {"description": "types: whole, or turn.*"}
    time = {key: part for key, part in change["timeout_s"].items() if key != "default"}
    return {
        "type": "object",
        "properties": {"change_id": change["change_id"], **of_events, "timeout_s": time},
        "additionalProperties": False,
        "dependentSchemas": {"change_id": {"properties": dict.fromkeys(of_events, False)}},
    }


def _act() -> Schema:
    return {
        "type": "object",
        "properties": {"operation": {"enum": list(ACTS)}, "arguments": _OBJECT},
        "required": ["operation"],
        "additionalProperties": False,
    }


SCHEMAS: dict[str, Schema] = {
    "look": _taken("system.brief"),
    "find": _of_kind("list", query={"type": ["string", "null"]}),
    "get": _of_kind("get"),
    "propose": _propose(),
    "commit": _taken("plans.commit"),
    "wait": _wait(),
    "undo": _taken("changes.revert"),
    "act": _act(),
    "operations_search": input_schema(OPERATIONS["operations.search"]),
    "operations_describe": input_schema(OPERATIONS["operations.describe"]),
    "operations_call": input_schema(OPERATIONS["operations.call"]),
}
