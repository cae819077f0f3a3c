"""The way of every call: roles, namespaces, strict input, dry runs, one answer for one request id."""

import asyncio
from typing import Any

import pytest

from schemas.principal import Principal
from schemas.problem import Problem, Refusal
from schemas.records import Role
from tests.operations.plane import SOURCE, Plane, agent, channel, secret

pytestmark = pytest.mark.anyio


def principal(role: Role, *namespaces: str, agent: str | None = None) -> Principal:
    return Principal("somebody", role, namespaces or ("*",), agent)


async def refused(plane: Plane, operation: str, raw: Any, by: Principal | None = None) -> Problem:
    with pytest.raises(Refusal) as refusal:
        await (plane.answer(operation, raw, by) if by else plane.answer(operation, raw))
    return refusal.value.problem


@pytest.mark.parametrize(
    ("role", "operation", "allowed"),
    [
        ("viewer", "channels.list", True),
        ("viewer", "channels.propose", False),
        ("viewer", "tokens.list", False),
        ("operator", "channels.propose", True),
        ("operator", "tokens.create", False),
        ("admin", "tokens.create", True),
        ("agent", "channels.list", True),
        ("agent", "channels.propose", False),
        ("agent", "changes.list", False),
        ("agent", "tokens.list", False),
    ],
)
async def test_a_role_reaches_what_its_operation_asks(plane: Plane, role: Role, operation: str, allowed: bool) -> None:
    """A role that is too small is FORBIDDEN before the input is looked at; a large enough one gets to validation."""
    problem = await refused(plane, operation, {"no-such-field": 1}, principal(role))
    assert problem.reason == ("UNKNOWN_FIELD" if allowed else "FORBIDDEN")


async def test_a_foreign_namespace_is_refused_before_the_input_is_validated(plane: Plane) -> None:
    """Whoever does not reach a namespace learns nothing about the input that names it."""
    local = principal("operator", "mine")
    assert (await refused(plane, "channels.get", {"namespace": "other", "x": 1}, local)).field == "/namespace"
    assert (await refused(plane, "channels.get", {"name": "x"}, local)).reason == "FOREIGN_NAMESPACE"
    manifests = [channel("a", "mine"), channel("b", "other")]
    problem = await refused(plane, "resources.propose", {"manifests": manifests}, local)
    assert (problem.reason, problem.field) == ("FOREIGN_NAMESPACE", "/manifests/1/metadata/namespace")
    problem = await refused(plane, "channels.propose", {"manifest": {"metadata": {}}}, local)
    assert problem.reason == "FOREIGN_NAMESPACE"


async def test_a_list_shows_the_namespaces_that_the_principal_reaches(plane: Plane) -> None:
    """Without a namespace a list shows what the principal may see, page by page, on a mark that is ours."""
    await plane.apply(*(channel(f"c{n}", namespace) for n in range(3) for namespace in ("mine", "other")))
    local = principal("viewer", "mine")
    page = await plane.call("channels.list", local, limit=2)
    assert [it["metadata"]["name"] for it in page["items"]] == ["c0", "c1"]
    rest = await plane.call("channels.list", local, limit=2, page=page["next_page"])
    assert [it["metadata"]["name"] for it in rest["items"]] == ["c2"]
    assert rest["next_page"] is None
    assert len((await plane.call("channels.list"))["items"]) == 6
    assert (await refused(plane, "channels.list", {"page": "x"})).reason == "INVALID_CURSOR"


async def test_ids_of_foreign_records_are_answered_like_absent_ones(plane: Plane) -> None:
    """Plans and changes of other namespaces are NOT_FOUND in the words of absent ones."""
    plan = await plane.propose(channel("a", "mine"), channel("b", "other"))
    committed = await plane.commit(plan)
    local = principal("operator", "mine")
    for operation, field, foreign in (
        ("plans.get", "plan_id", plan["plan_id"]),
        ("plans.commit", "plan_id", plan["plan_id"]),
        ("changes.get", "change_id", committed["change_id"]),
        ("changes.wait", "change_id", committed["change_id"]),
        ("changes.revert", "change_id", committed["change_id"]),
    ):
        there = await refused(plane, operation, {field: foreign}, local)
        absent = await refused(plane, operation, {field: "absent"}, local)
        assert there.model_dump_json().replace(foreign, "absent") == absent.model_dump_json()
    assert (await plane.call("changes.list", local))["items"] == []
    assert len((await plane.call("changes.list", namespace="mine"))["items"]) == 1


@pytest.mark.parametrize(
    ("operation", "raw", "reason", "field"),
    [
        ("channels.get", [], "NOT_AN_OBJECT", None),
        ("channels.get", {}, "MISSING_FIELD", "/name"),
        ("channels.get", {"name": "A b"}, "INVALID_NAME", "/name"),
        ("channels.get", {"name": "a" * 64}, "INVALID_NAME", "/name"),
        ("channels.get", {"name": "a\n"}, "INVALID_NAME", "/name"),
        ("channels.get", {"name": 7}, "INVALID_VALUE", "/name"),
        ("channels.list", {"limit": 0}, "OUT_OF_RANGE", "/limit"),
        ("channels.list", {"limit": "5"}, "INVALID_VALUE", "/limit"),
        ("channels.list", {"limit": 2**70}, "OUT_OF_RANGE", "/limit"),
        ("channels.list", {"labels": {"a/b": 1}}, "INVALID_VALUE", "/labels/a~1b"),
        ("resources.propose", {"manifests": []}, "OUT_OF_RANGE", "/manifests"),
        ("resources.propose", {"manifests": [{"kind": "Ship"}]}, "UNKNOWN_KIND", "/manifests/0/kind"),
        ("resources.propose", {"manifests": [{}]}, "MISSING_FIELD", "/manifests/0/kind"),
        ("agents.send", {"name": "x", "data": {"a": [2**70]}}, "OUT_OF_RANGE", "/data/a/0"),
        ("agents.send", {"name": "x", "data": "\ud800"}, "INVALID_VALUE", "/data"),
        ("no.such", {}, "UNKNOWN_OPERATION", "/name"),
    ],
)
async def test_bad_input_is_refused_with_its_place(
    plane: Plane, operation: str, raw: Any, reason: str, field: str | None
) -> None:
    """Each wrong input gets its reason and a pointer into the input as it was given, and executable steps."""
    problem = await refused(plane, operation, raw)
    assert (problem.reason, problem.field) == (reason, field)
    for step in problem.next:
        await plane.answer(step.operation, step.arguments)


async def test_a_misspelt_field_is_told_by_its_name(plane: Plane) -> None:
    """A typo is an unknown field in its place, not a missing one elsewhere."""
    spec = {"replica": 3, "template": {"spec": agent("x")["spec"]}}
    manifest = {"kind": "Fleet", "metadata": {"name": "f"}, "spec": spec}
    problem = await refused(plane, "resources.propose", {"manifests": [manifest]})
    assert (problem.reason, problem.field) == ("UNKNOWN_FIELD", "/manifests/0/spec/replica")
    assert problem.detail == "spec has no field replica"


@pytest.mark.parametrize("values", [{"p": ["top-secret"]}, {"p": {"set": "top-secret"}}, {"p": "top-secret" * 7_000}])
async def test_a_refused_secret_is_not_repeated(plane: Plane, values: dict[str, Any]) -> None:
    """No Problem quotes what was sent."""
    problem = await refused(plane, "secrets.propose", {"manifest": secret("s", **values)})
    assert "top-secret" not in problem.model_dump_json()


async def test_the_same_request_id_gives_the_first_answer(plane: Plane) -> None:
    """One id, one execution, one answer; the token in it is shown once."""
    raw = {"principal": "bot", "role": "viewer", "request_id": "r1"}
    first = await plane.call("tokens.create", **raw)
    again = await plane.call("tokens.create", **raw)
    assert first["token"]
    assert again == first | {"token": None}
    assert len(await plane.rows("SELECT * FROM token")) == 1
    assert first["token"] not in await plane.dump()
    assert (await refused(plane, "tokens.create", raw | {"principal": "other"})).reason == "REQUEST_ID_REUSED"
    plane.now += 8 * 86_400
    await plane.call("tokens.create", **(raw | {"principal": "other"}))


async def test_concurrent_calls_with_one_request_id_execute_once(plane: Plane) -> None:
    """Of many calls at the same time exactly one executes; the others get its answer."""
    raw = {"principal": "bot", "role": "viewer", "request_id": "r1"}
    answers = await asyncio.gather(*(plane.call("tokens.create", **raw) for _ in range(20)))
    assert len({it["token_id"] for it in answers}) == 1
    assert sum(it["token"] is not None for it in answers) == 1
    assert len(await plane.rows("SELECT * FROM token")) == 1


async def test_a_refusal_frees_the_request_id(plane: Plane) -> None:
    """A call that failed leaves its id for the next try, with other input too."""
    bad = {"files": {"a.py": "class ("}, "request_id": "r1"}
    assert (await refused(plane, "code.put", bad)).reason == "INVALID_CODE"
    assert (await plane.call("code.put", files={"a.py": SOURCE}, request_id="r1"))["digest"]


async def test_a_reservation_that_a_crash_left_does_not_block_for_ever(plane: Plane) -> None:
    """While it may still be running the caller is asked to wait; then the same input may execute."""
    raw = {"principal": "bot", "role": "viewer", "request_id": "r1"}
    await plane.call("tokens.create", **raw)
    from controlplane.store.unit import Unit

    left = Unit().raw("UPDATE accepted SET output = NULL, expires_at = ?", [plane.now + 30], expect=1)
    assert await plane.store.write(left)
    problem = await refused(plane, "tokens.create", raw)
    assert (problem.reason, problem.retry_after_s) == ("CONFLICT", 1.0)
    plane.now += 31
    assert (await refused(plane, "tokens.create", raw | {"role": "admin"})).reason == "REQUEST_ID_REUSED"
    assert (await plane.call("tokens.create", **raw))["token"]


async def test_a_dry_run_changes_nothing_and_checks_everything(plane: Plane) -> None:
    """A dry run answers a preview, or what the call would refuse; not even its request id is kept."""
    preview = await plane.call("code.put", files={"a.py": SOURCE}, dry_run=True, request_id="r1")
    assert (preview["dry_run"], preview["changed"]) == (True, "none")
    assert await plane.rows("SELECT * FROM code") == []
    assert await plane.rows("SELECT * FROM accepted") == []
    bad = {"files": {"a.py": "class ("}, "dry_run": True}
    assert (await refused(plane, "code.put", bad)).reason == "INVALID_CODE"
    await plane.call("code.put", files={"a.py": SOURCE}, request_id="r1")
    other = {"files": {"b.py": SOURCE}, "request_id": "r1", "dry_run": True}
    assert (await refused(plane, "code.put", other)).reason == "REQUEST_ID_REUSED"
