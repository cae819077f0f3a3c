"""Checks of our own, beside those of schemathesis."""

from typing import Any

import schemathesis
from schemathesis import Case, Response
from schemathesis.checks import CheckContext
from schemathesis.core.failures import Failure

from fuzz.rules import BEYOND_SCHEMA, BEYOND_SCHEMA_AT, INDIRECT, KINDS, OF_OTHERS, TEXTS


class DeletedIsThere(Failure):
    """What a committed plan deleted is still answered."""


def name_of(case: Case[Any]) -> str:
    """The name of the operation that a case calls."""
    return str(case.operation.definition.raw.get("operationId"))


def body_of(response: Response | None) -> Any:
    """The JSON that was answered, if any."""
    if response is None or not response.content:
        return None
    try:
        return response.json()
    except ValueError:
        return None


@schemathesis.check
def deleted_is_gone(ctx: CheckContext, response: Response, case: Case[Any]) -> bool | None:
    """Once a plan that deletes is committed, what it deleted is not found, until it is made anew."""
    noun, _, verb = name_of(case).partition(".")
    if verb != "get" or noun not in KINDS or response.status_code != 200:
        return None
    metadata = body_of(response)["metadata"]
    wanted = KINDS[noun], metadata["namespace"], metadata["name"]
    if _fate(ctx, wanted) == "delete":
        raise DeletedIsThere(
            operation=case.operation.label,
            title="Use after a committed deletion",
            message=f"{'/'.join(wanted)} was deleted by a committed plan, and is still answered",
        )
    return None


def _fate(ctx: CheckContext, wanted: tuple[str, str, str]) -> str | None:
    """The last committed action of the scenario on a resource."""
    plans: dict[str, list[tuple[str, tuple[str, str, str]]]] = {}
    fate = None
    for earlier in ctx.internals.find_all_cases():
        found = body_of(ctx.internals.find_response(case_id=earlier.id))
        if not isinstance(found, dict):
            continue
        if "plan_id" in found and "steps" in found and "claims_digest" in found:
            plans[found["plan_id"]] = [
                (step["action"], (step["target"]["kind"], step["target"]["namespace"], step["target"]["name"]))
                for step in found["steps"]
            ]
        if found.get("outcome") == "committed" and "change_id" in found:
            for action, target in plans.get(found.get("plan_id", ""), []):
                fate = action if target == wanted else fate
    return fate


def numberless(field: str | None) -> str | None:
    """A JSON pointer with its indices made alike."""
    return None if field is None else "/".join("#" if part.isdigit() else part for part in field.split("/"))


def of_others(response: Response) -> bool:
    """Whether a 5xx is the failure of another, which the plane only reports."""
    found = body_of(response)
    return isinstance(found, dict) and found.get("reason") in OF_OTHERS


def beyond_schema(case: Case[Any], response: Response) -> bool:
    """Whether a refusal of valid data is one that the document could not have foretold."""
    found = body_of(response)
    if not isinstance(found, dict):
        return False
    reason = found.get("reason"), numberless(found.get("field"))
    if case.method == "GET" and set((reason[1] or "").split("/")[1:2]) & set(TEXTS):
        return True
    return reason[0] in BEYOND_SCHEMA or reason in BEYOND_SCHEMA_AT or name_of(case) in INDIRECT
