"""Every operation, for every kind of token, on its own and on a foreign namespace, by every way to call it.

Nothing here knows an operation: what is expected follows from the catalogue, what is sent from the
fields of the input. A new operation is in the matrix by itself; one without a case fails.
"""

from collections.abc import Iterator

import pytest

from controlplane.resources.catalogue import OPERATIONS
from controlplane.resources.operation import Operation
from mcp_server.hints import to_intent
from mcp_server.intents import INTENTS
from schemas.principal import Principal
from tests.authorization import cases
from tests.authorization.surfaces import WAYS, Answer, Way
from tests.authorization.worlds import ISSUED, World

pytestmark = pytest.mark.anyio

RANK = {"viewer": 0, "operator": 1, "admin": 2}
REFUSED = {"UNAUTHENTICATED", "FORBIDDEN", "FOREIGN_NAMESPACE"}
STATUS = {"UNAUTHENTICATED": 401, "FORBIDDEN": 403, "FOREIGN_NAMESPACE": 403, "NOT_FOUND": 404}
CALLERS = [label for label in ISSUED if label != "victim"]
EACH = pytest.mark.parametrize("operation", OPERATIONS.values(), ids=lambda it: it.name)


def may(principal: Principal, operation: Operation) -> bool:
    """What the catalogue says."""
    return operation.agent_may if principal.role == "agent" else RANK[principal.role] >= RANK[operation.role]


def foreign_reason(operation: Operation, case: cases.Case) -> str | None:
    """What naming this foreign thing is answered with; None where the name alone says nothing."""
    if case.field in cases.RECORDS:
        return "NOT_FOUND"
    text = str(case.given)
    if case.field in cases.PLACES and ("elsewhere" in text or "*" in case.given.get("namespaces", ())):
        return "FOREIGN_NAMESPACE"
    return "FOREIGN_NAMESPACE" if case.field == "filter" and "elsewhere" in text else None


def test_every_field_of_every_operation_has_a_case() -> None:
    """A field that names something is known to, and so is one that does not; nothing is in both."""
    fields = {field for operation in OPERATIONS.values() for field in operation.input.model_fields}
    assert fields <= cases.REFERENCES | cases.INERT
    assert not cases.REFERENCES & cases.INERT


async def test_every_operation_is_tried_where_it_is_foreign(full: World) -> None:
    """By the place or the record that its scope speaks of; what has neither field decides by role alone."""
    for operation in OPERATIONS.values():
        reasons = {foreign_reason(operation, case) for case in cases.foreign_cases(operation, full, full.foreign)}
        fields = set(operation.input.model_fields)
        if operation.scope == "record":
            assert "NOT_FOUND" in reasons, operation.name
        elif operation.scope == "namespace":
            assert "FOREIGN_NAMESPACE" in reasons, operation.name
        else:
            assert bool(reasons & {"NOT_FOUND", "FOREIGN_NAMESPACE"}) == bool(
                fields & {*cases.RECORDS, *cases.PLACES}
            ), operation.name


def test_every_intent_is_a_way_to_some_operation() -> None:
    """The matrix reaches all tools of `/mcp`."""
    reached = {to_intent(operation, {"name": "x", "change_id": "x"})[0] for operation in OPERATIONS.values()}
    reached |= {to_intent(operation, operation.example)[0] for operation in OPERATIONS.values()}
    assert reached >= set(INTENTS)


@EACH
async def test_without_a_good_token_nothing_is_answered(full: World, operation: Operation) -> None:
    """No token, a wrong one, one that was revoked, one that has expired: 401 by every way, whatever is asked."""
    given = cases.own_input(operation, full)
    token = full.plane.tokens["admin of all"]
    kinds = [None, *(f"Bearer {full.plane.tokens[it]}" for it in ("revoked", "expired"))]
    kinds += ["", "Bearer", f"Bearer {token}x", f"Basic {token}", token, f"Bearer {'x' * 600}"]
    for way, call in WAYS.items():
        for header in kinds:
            answer = await call(full.client, {} if header is None else {"Authorization": header}, operation, given)
            assert (answer.status, answer.outcome) == (401, "UNAUTHENTICATED"), (way, header)
            assert answer.challenge.startswith("Bearer ")
            assert ("resource_metadata" in answer.challenge) == (way in ("tool", "intent"))


@EACH
async def test_rights_are_what_the_catalogue_says(full: World, operation: Operation) -> None:
    """By every way alike, and who may more may all that who may less does."""
    given = cases.own_input(operation, full)
    preview = given | ({"dry_run": True} if operation.imperative else {})  # one acts, all others are checked alike
    allowed: dict[tuple[str, str], bool] = {}
    for label in CALLERS:
        for way, call in WAYS.items():
            asked = given if (label, way) == ("admin of all", "route") else preview
            answer = await call(full.client, full.plane.headers(label), operation, asked)
            about = f"{operation.name} by {way} as {label}: {answer.body}"
            allowed[label, way] = answer.outcome not in REFUSED
            if may(full.principal(label), operation):
                assert answer.outcome == "ok", about
            else:
                require(answer, way, "FORBIDDEN", about)
    for way in WAYS:
        for reach in ("", " of two", " of all"):
            ladder = [allowed[f"{role}{reach}", way] for role in RANK]
            assert ladder == sorted(ladder)


@EACH
async def test_what_is_foreign_is_refused(full: World, operation: Operation) -> None:
    """A foreign place by its name; a foreign record as if it were not there; by every way, for every role."""
    for label in ("viewer", "operator", "admin", "agent", "operator of two"):
        principal = full.principal(label)
        for case in cases.foreign_cases(operation, full, full.foreign):
            reason = foreign_reason(operation, case)
            if reason is None:
                continue
            expected = reason if may(principal, operation) else "FORBIDDEN"
            for way, call in _ways_for(label):
                answer = await call(full.client, full.plane.headers(label), operation, case.given)
                require(answer, way, expected, f"{operation.name} by {way} as {label}: {case.given} {answer.body}")


def _ways_for(label: str) -> Iterator[tuple[str, Way]]:
    """All ways for an operator; roles differ before the way matters, so two are enough for the others."""
    yield from ((way, call) for way, call in WAYS.items() if label == "operator" or way in ("route", "tool"))


def require(answer: Answer, way: str, reason: str, about: str) -> None:
    assert answer.outcome == reason, about
    assert answer.status == (200 if way in ("tool", "intent") else STATUS[reason]), about


async def test_operations_call_adds_no_rights(full: World) -> None:
    """It does not call itself, and what it calls is judged as if it had been called directly."""
    call = WAYS["call"]
    itself = {"name": "operations.call", "arguments": {"name": "tokens.list", "arguments": {}}}
    for label in ("viewer", "agent", "admin of all"):
        answer = await call(full.client, full.plane.headers(label), OPERATIONS["operations.call"], itself)
        assert answer.outcome == "INVALID_VALUE"


async def test_a_star_is_no_namespace_to_call(full: World) -> None:
    """It stands in tokens only: whoever does not reach all is refused like anywhere else, and nobody acts on it."""
    for operation in OPERATIONS.values():
        if "namespace" not in operation.input.model_fields or operation.role == "admin":
            continue
        given = {**cases.own_input(operation, full), "namespace": "*"}
        for label, reason in (("operator of two", "FOREIGN_NAMESPACE"), ("admin of all", "INVALID_NAME")):
            answer = await WAYS["call"](full.client, full.plane.headers(label), operation, given)
            assert answer.outcome == reason, (operation.name, label, answer.body)
