"""What the arguments of a tool are for, guessed from its schema (rule G3), for an operator to confirm. Pure.

Where nothing hints at a role it is the one that is judged hardest: a target.
"""

from typing import Any

from schemas.ports import Role

_QUANTITIES = ("number", "integer")
_CONTROL_WORDS = frozenset(
    {"action", "command", "mode", "method", "operation", "force", "recursive", "overwrite", "flags", "permission",
     "permissions", "role", "level", "priority", "state", "status", "sql", "statement", "code", "script", "expression"}
)  # fmt: skip
_PAYLOAD_WORDS = frozenset(
    {"text", "body", "content", "contents", "message", "description", "title", "comment", "data", "prompt", "summary",
     "subject", "note", "notes", "question", "value", "payload", "markdown", "html", "json", "reason"}
)  # fmt: skip


def guessed(schema: dict[str, Any]) -> dict[str, Role]:
    """The role of each argument, from its name and its type."""
    properties = schema.get("properties")
    if not isinstance(properties, dict):
        return {}
    return {name: _role(name, it if isinstance(it, dict) else {}) for name, it in properties.items()}


def _role(name: str, schema: dict[str, Any]) -> Role:
    words = _words(name)
    kinds = schema.get("type")
    kinds = [kinds] if isinstance(kinds, str) else kinds if isinstance(kinds, list) else []
    if any(it in _QUANTITIES for it in kinds) and not words & {"id", "key"}:
        return "quantity"
    if "boolean" in kinds or "enum" in schema or "const" in schema or words & _CONTROL_WORDS:
        return "control"
    if words & _PAYLOAD_WORDS or "object" in kinds:
        return "payload"
    return "target"


def _words(name: str) -> frozenset[str]:
    """The words of a name, in lower case: of `issueId`, issue and id."""
    spaced = "".join(f" {it}" if it.isupper() else it for it in name if it.isalnum() or it in "_- .")
    return frozenset("".join(it if it.isalnum() else " " for it in spaced).lower().split())
