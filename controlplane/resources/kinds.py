"""What every kind has: get, list, propose, delete. One function declares the four."""

from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from controlplane.resources.operation import Operation
from schemas.calls import ListInput, ListOutput, Named, ProposeOneInput
from schemas.plan import Plan


def _model(name: str, base: Any) -> type[BaseModel]:
    """A generic model under a name that is fit for a schema."""
    return type(name, (base,), {"__doc__": base.__doc__, "__module__": __name__})


@dataclass(frozen=True)
class _Kind:
    """What the four declarations share."""

    kind: str
    manifest: type[BaseModel]
    resource: type[BaseModel]
    example: dict[str, Any]
    problems: tuple[str, ...] = ()

    @property
    def noun(self) -> str:
        return self.kind.lower() + "s"

    @property
    def one(self) -> str:
        return f"/v1/{self.noun}/{{namespace}}/{{name}}"

    @property
    def named(self) -> dict[str, Any]:
        return {"namespace": "default", "name": self.example["metadata"]["name"]}


def _get(it: _Kind) -> Operation:
    return Operation(
        f"{it.noun}.get",
        f"Get one {it.kind.lower()}",
        f"The {it.kind.lower()} with its spec and its observed status.",
        Named,
        it.resource,
        "GET",
        it.one,
        "read",
        "viewer",
        "namespace",
        agent_may=True,
        problems=("NOT_FOUND",),
        example=it.named,
    )


def _list(it: _Kind) -> Operation:
    return Operation(
        f"{it.noun}.list",
        f"List {it.noun}",
        f"A page of {it.noun} by namespace and labels, in the order of their names.",
        ListInput,
        _model(f"{it.kind}List", ListOutput[it.resource]),  # type: ignore[name-defined]
        "GET",
        f"/v1/{it.noun}",
        "read",
        "viewer",
        "namespace",
        agent_may=True,
        problems=("INVALID_CURSOR",),
        example={"namespace": "default"},
    )


def _propose(it: _Kind) -> Operation:
    return Operation(
        f"{it.noun}.propose",
        f"Propose one {it.kind.lower()}",
        "Answers a plan with its steps, claims and digest. Changes nothing; commit the plan to make it so.",
        _model(f"{it.kind}ProposeInput", ProposeOneInput[it.manifest]),  # type: ignore[name-defined]
        Plan,
        "POST",
        f"/v1/{it.noun}/propose",
        "read",
        "operator",
        "namespace",
        problems=("OWNED", "INVALID_CODE", "CODE_NOT_FOUND", "SECRET_VALUE_MISSING", "QUOTA", *it.problems),
        example={"manifest": it.example},
    )


def _delete(it: _Kind) -> Operation:
    return Operation(
        f"{it.noun}.delete",
        f"Propose to delete one {it.kind.lower()}",
        "Answers a plan; commit it to delete.",
        Named,
        Plan,
        "DELETE",
        it.one,
        "read",
        "operator",
        "namespace",
        problems=("NOT_FOUND", "OWNED", "IN_USE"),
        example=it.named,
    )


def of_kind(
    kind: str,
    manifest: type[BaseModel],
    resource: type[BaseModel],
    example: dict[str, Any],
    problems: tuple[str, ...] = (),
) -> tuple[Operation, ...]:
    """The four operations of a kind; `problems` are what only a proposal of it is refused for."""
    it = _Kind(kind, manifest, resource, example, problems)
    return _get(it), _list(it), _propose(it), _delete(it)
