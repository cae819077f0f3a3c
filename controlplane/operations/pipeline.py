"""The way of every call, whatever surface it came by: one function that reads as prose.

Who may call it, before anything else; whose namespace it is, before the input is even valid; the
input against its model; then the handler. A dry run reaches the handler as such, which makes every
check and answers a preview. A request id has one execution and one answer (`repeating`). A refusal
is always a `Refusal`; nothing here knows of HTTP, MCP or the CLI, and no surface adds rights.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from pydantic import BaseModel

from controlplane.mesh.tracing import coming_trace
from controlplane.operations.discovery import find_operation
from controlplane.operations.repeating import Repeats
from controlplane.operations.validation import pointer, validate
from controlplane.resources.operation import Operation
from controlplane.resources.problems import refuse
from controlplane.store.store import Store
from schemas import faults
from schemas.calls import Imperative
from schemas.ports import Clock, Handler
from schemas.principal import Call, Principal

_RANK = {"viewer": 0, "operator": 1, "admin": 2}
DEFAULT = "default"


@dataclass(frozen=True)
class Dispatcher:
    """Calls operations by name. `handlers` may be filled after it was made."""

    handlers: Mapping[str, Handler]
    store: Store
    clock: Clock
    repeats: Repeats = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "repeats", Repeats(self.store, self.clock))

    async def call(self, principal: Principal, name: str, raw: Any) -> BaseModel:
        """The operation's output; raises Refusal."""
        operation = find_operation(name)
        require_role(principal, operation)
        require_namespaces(principal, operation, raw)
        given = validate(operation, raw)
        handler, call = self.handlers[name], Call(principal, name, self.clock(), traceparent=coming_trace())
        if isinstance(given, Imperative):
            call = replace(call, request_id=given.request_id, dry_run=given.dry_run)
        if call.request_id is None:
            answer = await handler(call, given)
        else:
            assert isinstance(given, Imperative)
            answer = await self.repeats.answer(call, operation, given, handler)
        faults.at("plane.answering")
        return answer


def require_role(principal: Principal, operation: Operation) -> None:
    """Raises FORBIDDEN when the principal's role is too small for the operation."""
    if principal.role == "agent":
        if operation.agent_may:
            return
        detail = f"{operation.name} is not for agents"
    elif _RANK[principal.role] >= _RANK[operation.role]:
        return
    else:
        detail = f"{operation.name} needs the role {operation.role}; {principal.name} has {principal.role}"
    raise refuse(
        "FORBIDDEN",
        detail,
        operation=operation.name,
        needs=operation.role,
        principal=principal.name,
        role=principal.role,
    )


def require_namespaces(principal: Principal, operation: Operation, raw: Any) -> None:
    """Raises FOREIGN_NAMESPACE when the input, valid or not, names one that the principal does not reach."""
    if operation.scope != "namespace" or "*" in principal.namespaces or not isinstance(raw, Mapping):
        return
    for place, namespace in _namespaces(operation, raw):
        if not principal.reaches(namespace):
            raise refuse(
                "FOREIGN_NAMESPACE",
                f"the token of {principal.name} does not reach namespace {namespace[:63]}",
                field=pointer(place),
                principal=principal.name,
                namespace=namespace[:63],
                namespaces=list(principal.namespaces),
            )


def _namespaces(operation: Operation, raw: Mapping[str, Any]) -> Iterator[tuple[list[str | int], str]]:
    """Every namespace that the input names, with its place. What is no text is left to validation."""
    fields = operation.input.model_fields
    if "manifests" in fields or "manifest" in fields:
        yield from _of_manifests(raw)
    elif "namespace" in fields:
        named = raw.get("namespace", fields["namespace"].default)
        if isinstance(named, str):
            yield ["namespace"], named


def _of_manifests(raw: Mapping[str, Any]) -> Iterator[tuple[list[str | int], str]]:
    several = raw.get("manifests")
    places: list[tuple[list[str | int], Any]] = [(["manifest"], raw.get("manifest"))]
    places += [(["manifests", i], it) for i, it in enumerate(several)] if isinstance(several, list) else []
    for place, manifest in places:
        metadata = manifest.get("metadata") if isinstance(manifest, Mapping) else None
        if isinstance(metadata, Mapping) and isinstance(named := metadata.get("namespace", DEFAULT), str):
            yield [*place, "metadata", "namespace"], named
