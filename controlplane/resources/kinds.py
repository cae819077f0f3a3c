"""What every kind has: get, list, propose, delete. One function declares the four."""

from typing import Any

from pydantic import BaseModel

from controlplane.resources.operation import Operation
from schemas.calls import ListInput, ListOutput, Named, ProposeOneInput
from schemas.plan import Plan


def _model(name: str, base: Any) -> type[BaseModel]:
    """A generic model under a name that is fit for a schema."""
    return type(name, (base,), {"__doc__": base.__doc__, "__module__": __name__})


def of_kind(
    kind: str, manifest: type[BaseModel], resource: type[BaseModel], example: dict[str, Any], **rest: Any
) -> tuple[Operation, ...]:
    """The four operations of a kind; `rest` is given to all of them."""
    noun = kind.lower() + "s"
    one = f"/v1/{noun}/{{namespace}}/{{name}}"
    named = {"namespace": "default", "name": example["metadata"]["name"]}
    return (
        Operation(
            f"{noun}.get",
            f"Get one {kind.lower()}",
            f"The {kind.lower()} with its spec and its observed status.",
            Named,
            resource,
            "GET",
            one,
            "read",
            "viewer",
            "namespace",
            problems=("NOT_FOUND",),
            example=named,
            agent_may=True,
            **rest,
        ),
        Operation(
            f"{noun}.list",
            f"List {noun}",
            f"A page of {noun} by namespace and labels, in the order of their names.",
            ListInput,
            _model(f"{kind}List", ListOutput[resource]),
            "GET",
            f"/v1/{noun}",
            "read",
            "viewer",
            "namespace",
            problems=("INVALID_CURSOR",),
            example={"namespace": "default"},
            agent_may=True,
            **rest,
        ),
        Operation(
            f"{noun}.propose",
            f"Propose one {kind.lower()}",
            "Answers a plan with its steps, claims and digest. Changes nothing; commit the plan to make it so.",
            _model(f"{kind}ProposeInput", ProposeOneInput[manifest]),
            Plan,
            "POST",
            f"/v1/{noun}/propose",
            "read",
            "operator",
            "namespace",
            problems=("OWNED", "INVALID_CODE", "CODE_NOT_FOUND", "SECRET_VALUE_MISSING", "QUOTA"),
            example={"manifest": example},
            **rest,
        ),
        Operation(
            f"{noun}.delete",
            f"Propose to delete one {kind.lower()}",
            "Answers a plan; commit it to delete.",
            Named,
            Plan,
            "DELETE",
            one,
            "read",
            "operator",
            "namespace",
            problems=("NOT_FOUND", "OWNED", "IN_USE"),
            example=named,
            **rest,
        ),
    )
