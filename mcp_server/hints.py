"""What to do next, in the tools of the endpoint at hand.

A hint is a step that the same principal can take: an operation of the catalogue with arguments that
it takes. On `/mcp/full` an operation is a tool of its own; on `/mcp` it is the intent tool that
does just that, or else `operations_call`. Steps that the principal's role does not reach are left
out, never shown.
"""

from collections.abc import Callable, Iterable
from typing import Any

from controlplane.operations.pipeline import require_role
from controlplane.resources.catalogue import OPERATIONS
from controlplane.resources.operation import Operation
from schemas.principal import Principal
from schemas.problem import Next, Refusal

Hint = dict[str, Any]
Translate = Callable[[Operation, dict[str, Any]], tuple[str, dict[str, Any]]]

WAIT_S = 30
ACTING_NOUNS = ("agents", "channels")
KINDS: dict[str, str] = {
    operation.noun: operation.example["manifest"]["kind"]
    for operation in OPERATIONS.values()
    if operation.verb == "propose" and "manifest" in operation.example
}
ACTS = tuple(
    operation.name for operation in OPERATIONS.values() if operation.imperative and operation.noun in ACTING_NOUNS
)


def may(principal: Principal, operation: Operation) -> bool:
    """Whether the principal's role reaches the operation."""
    try:
        require_role(principal, operation)
    except Refusal:
        return False
    return True


def to_full(operation: Operation, arguments: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """The tool of `/mcp/full`."""
    return operation.tool, arguments


def to_intent(operation: Operation, arguments: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """The tool of `/mcp` that does what the operation does."""
    name = operation.name
    if name in _RENAMED and set(arguments) <= _RENAMED[name][1]:
        return _RENAMED[name][0], arguments
    if name == "feedback.read":
        return "wait", {("timeout_s" if key == "wait_s" else key): value for key, value in arguments.items()}
    if operation.noun in KINDS and operation.verb == "get" and "name" in arguments:
        return "get", {"kind": KINDS[operation.noun], **arguments}
    if operation.noun in KINDS and operation.verb == "list":
        return "find", {"kind": KINDS[operation.noun], **arguments}
    if operation.noun in KINDS and operation.verb == "propose" and "manifest" in arguments:
        return "propose", {"manifests": [arguments["manifest"]]}
    if name in ACTS:
        return "act", {"operation": name, "arguments": arguments}
    return "operations_call", {"name": name, "arguments": arguments}


_RENAMED: dict[str, tuple[str, set[str]]] = {
    "system.brief": ("look", set()),
    "resources.propose": ("propose", {"manifests"}),
    "plans.commit": ("commit", {"plan_id", "on_miss"}),
    "changes.wait": ("wait", {"change_id", "timeout_s"}),
    "changes.revert": ("undo", {"change_id"}),
    "operations.search": ("operations_search", {"query", "limit"}),
    "operations.describe": ("operations_describe", {"name"}),
    "operations.call": ("operations_call", {"name", "arguments"}),
}


def hints(steps: Iterable[Next], principal: Principal, translate: Translate, *, of_problem: bool = False) -> list[Hint]:
    """The steps as tools, for who may take them."""
    found = []
    for step in steps:
        operation = OPERATIONS.get(step.operation)
        if operation is None or not may(principal, operation):
            continue
        tool, arguments = translate(operation, step.arguments)
        hint: Hint = {"tool": tool, "arguments": arguments, "why": step.why}
        if of_problem:
            hint |= {"operation": step.operation, "clears": step.clears}
        found.append(hint)
    return found
