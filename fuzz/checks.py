"""Checks of our own, beside those of schemathesis."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import schemathesis
from schemathesis import Case, Response
from schemathesis.checks import CheckContext
from schemathesis.core.failures import Failure
from schemathesis.generation.meta import StatefulPhaseData

from fuzz.deletions import Step, deleted, name_of, spoken_of
from fuzz.rules import BEYOND_SCHEMA, BEYOND_SCHEMA_AT, INDIRECT, OF_OTHERS, TEXTS

ISSUED: dict[str, str] = {}  # tokens that were made before a run, by their ids
TRIED: Counter[str] = Counter()  # calls of our own, by the operation that they follow


class DeletedIsThere(Failure):
    """What a committed plan deleted is still answered, listed or used."""


class RevokedIsTaken(Failure):
    """A token that was revoked still opens the door."""


def body_of(response: Response | None) -> Any:
    """The JSON that was answered, if any."""
    if response is None or not response.content:
        return None
    try:
        return response.json()
    except ValueError:
        return None


def in_a_walk(case: Case[Any]) -> bool:
    """Whether a case follows others."""
    return case.meta is not None and isinstance(case.meta.phase.data, StatefulPhaseData)


@schemathesis.check
def deleted_is_gone(ctx: CheckContext, response: Response, case: Case[Any]) -> bool | None:
    """Once a plan that deletes is committed, nothing that names what it deleted succeeds, until it is made anew."""
    if response.status_code >= 300 or not in_a_walk(case):
        return None
    wanted = set(spoken_of(case, body_of(response)))
    for found in wanted & deleted(_earlier(ctx, case)) if wanted else ():
        raise DeletedIsThere(
            operation=case.operation.label,
            title="Use after a committed deletion",
            message=f"{'/'.join(found)} was deleted by a committed plan, and is still there",
        )
    return None


@schemathesis.check
def revoked_is_refused(ctx: CheckContext, response: Response, case: Case[Any]) -> bool | None:
    """Once a token is revoked, a call with it is refused."""
    if name_of(case) != "tokens.revoke" or response.status_code != 200 or "would" in body_of(response):
        return None
    token_id = str((case.path_parameters or {}).get("token_id"))
    bodies = [body for _, body in _earlier(ctx, case) if isinstance(body, dict) and "token" in body]
    made = ISSUED | {body["token_id"]: body["token"] for body in bodies}
    if (token := made.get(token_id)) is not None:
        TRIED[name_of(case)] += 1
        again = case.call(headers={"Authorization": f"Bearer {token}"})
        if again.status_code != 401:
            raise RevokedIsTaken(
                operation=case.operation.label,
                title="Use of a revoked token",
                message=f"{token_id} was revoked, and a call with it is answered with {again.status_code}",
            )
    return None


def _earlier(ctx: CheckContext, case: Case[Any]) -> Iterator[Step]:
    """What the walk did before."""
    for earlier in ctx.internals.find_all_cases():
        if earlier.id != case.id:
            yield earlier, body_of(ctx.internals.find_response(case_id=earlier.id))


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
