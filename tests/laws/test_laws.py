"""The laws of the design that hold between operators and the plane, as properties on both databases."""

import os
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from controlplane.store.packed import unpack
from controlplane.store.store import Store
from tests.laws.acts import HISTORY, VALUE, Act, Story, acts
from tests.operations.plane import Plane

pytestmark = pytest.mark.anyio
bounded = settings(
    max_examples=int(os.environ.get("STEWARD_TEST_EXAMPLES", "12")),  # a soak asks for more
    deadline=None,
    database=None,
    phases=(Phase.explicit, Phase.generate, Phase.shrink),
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)
WRITES = acts("apply", "delete", "revert")


@pytest.fixture
def store(quick_store: Store) -> Store:
    """SQLite, in a soak both: `test_crashes.py` has a law on both, and tests/store what they rest on."""
    return quick_store


@bounded
@given(history=HISTORY, act=WRITES)
async def test_law_1_what_can_be_proposed_can_be_committed(store: Store, history: list[Act], act: Act) -> None:
    """On an unmoved read set a proposal fails if and only if its commit would."""
    story = await Story(Plane(store)).go(history)
    plan = await story.plan(act)
    if plan is not None:
        again = await story.plan(act)
        assert again == plan
        result = await story.commit(plan)
        assert result is not None
        assert result["outcome"] in ("committed", "already_committed")
        assert result["outcome"] == "committed" or not plan["steps"]


@bounded
@given(history=HISTORY, act=WRITES, between=st.lists(acts("apply", "delete", "settle"), min_size=1, max_size=4))
async def test_law_1_a_plan_commits_only_where_it_would_be_proposed_again(
    store: Store, history: list[Act], act: Act, between: list[Act]
) -> None:
    """After others acted, a commit goes through exactly if the same proposal would still answer the same plan."""
    story = await Story(Plane(store)).go(history)
    plan = await story.plan(act)
    if plan is None:
        return
    await story.go(between)
    if act.verb == "revert":
        return  # which change an index means has changed
    if any(it["plan_id"] == plan["plan_id"] for it in story.plans):
        return  # committed in between already
    again = await story.plan(act)
    result = await story.commit(plan)
    assert result is not None
    same = again is not None and again["plan_id"] == plan["plan_id"]
    assert same == (result["outcome"] == "committed")


@bounded
@given(history=HISTORY, act=WRITES)
async def test_law_2_committing_twice_changes_nothing(store: Store, history: list[Act], act: Act) -> None:
    """The second commit answers already_committed, and no table has changed."""
    story = await Story(Plane(store)).go(history)
    plan = await story.plan(act)
    if plan is None:
        return
    first = await story.commit(plan)
    before = await story.plane.dump()
    again = await story.commit(plan)
    assert first is not None
    assert again == first | {"outcome": "already_committed"}
    assert await story.plane.dump() == before


@bounded
@given(history=HISTORY)
async def test_law_4_every_claim_gets_exactly_one_verdict(store: Store, history: list[Act]) -> None:
    """When all deadlines have passed, each claim has its verdict, told by exactly one event, and changes are done."""
    story = await Story(Plane(store)).go(history)
    await story.end()
    told = await _events(story, "claim.verified")
    verdicts = {(it["change_id"], orjson.loads(it["data"])["claim_id"]): orjson.loads(it["data"]) for it in told}
    assert len(verdicts) == len(told)
    claims = await _of_namespace(story, "SELECT k.* FROM claim k JOIN change c ON c.change_id = k.change_id")
    assert {(it["change_id"], it["claim_id"]) for it in claims} == verdicts.keys()
    assert all(it["verdict"] == verdicts[it["change_id"], it["claim_id"]]["verdict"] for it in claims)
    page = await story.plane.call("changes.list", story.principal, limit=500)
    assert all(it["done"] and it["outcome"] != "open" and it["waits_on"] == [] for it in page["items"])


@bounded
@given(history=HISTORY)
async def test_law_5_the_records_of_changes_rebuild_what_is_declared(store: Store, history: list[Act]) -> None:
    """Applying what every change wrote, in the order of their commits, gives the declared resources.

    Ephemeral channels are left out, which are made by first use and vanish by themselves.
    """
    story = await Story(Plane(store)).go(history)
    await story.end()
    rebuilt: dict[tuple[str, str], Any] = {}
    changes = "SELECT c.* FROM change c JOIN event e ON e.change_id = c.change_id AND e.type = 'change.committed'"
    for change in await _of_namespace(story, changes, order="e.cursor"):
        for write in orjson.loads(unpack(change["undo"])):
            key = write["kind"], write["name"]
            if write["action"] == "delete":
                del rebuilt[key]
            else:
                rebuilt[key] = (write["uid"], write["generation"], write["labels"], write["spec"])
    found = await story.plane.rows(
        "SELECT * FROM resource WHERE namespace = :namespace AND deleted_at IS NULL AND owner IS NULL",
        namespace=story.namespace,
    )
    there = {
        (it["kind"], it["name"]): (it["uid"], it["generation"], orjson.loads(it["labels"]), orjson.loads(it["spec"]))
        for it in found
    }
    assert _lasting(rebuilt) == _lasting(there)


@bounded
@given(history=st.lists(acts("apply", "delete", "revert", "settle"), min_size=3, max_size=12))
async def test_law_6_every_next_step_can_be_executed(store: Store, history: list[Act]) -> None:
    """Whatever is refused, its next steps are valid for the same principal, and do what they say."""
    plane = Plane(store)
    story = Story(plane)
    for act in history:
        seen = len(story.problems)
        await story.do(act)
        for problem in story.problems[seen:]:
            for step in problem.next:
                answer = await plane.answer(step.operation, step.arguments, story.principal)
                assert answer is not None


@bounded
@given(history=HISTORY)
async def test_law_8_changes_and_events_speak_of_each_other(store: Store, history: list[Act]) -> None:
    """Each change has its place in the feedback log, and no event speaks of a change that is not there."""
    story = await Story(Plane(store)).go(history)
    await story.end()
    changes = {it["change_id"]: it for it in await _of_namespace(story, "SELECT c.* FROM change c")}
    events = await _events(story)
    of_change = [it for it in events if it["change_id"] is not None]
    assert {it["change_id"] for it in of_change} <= changes.keys()
    for change_id, change in changes.items():
        types = [it["type"] for it in of_change if it["change_id"] == change_id]
        assert types.count("change.committed") == 1
        assert types.count("change.done") + types.count("change.superseded") == 1
        wrote = sum(it.startswith("resource.") for it in types)
        assert wrote == len(orjson.loads(unpack(change["undo"])))


@bounded
@given(history=HISTORY, act=acts("apply"))
async def test_rule_o1_status_decides_no_plan(store: Store, history: list[Act], act: Act) -> None:
    """Whatever agents do and however late it is, the same proposal answers the same plan."""
    story = await Story(Plane(store)).go([it for it in history if it.which % 3 != 1])  # no plan that reverts itself
    before = await story.plan(act)
    await story.plane.settle(starts=False)
    await story.plane.finish_starts("failed", {"reason": "HANDLER_ERROR", "detail": "on purpose"})
    await story.plane.settle()
    assert await story.plan(act) == before


@bounded
@given(history=HISTORY, act=WRITES)
async def test_rule_o5_a_revert_brings_back_what_was_declared(store: Store, history: list[Act], act: Act) -> None:
    """Committing an act and then its revert leaves everything declared as it was before."""
    story = await Story(Plane(store)).go(history)
    before = await _declared(story)
    plan = await story.plan(act)
    if plan is None or not plan["steps"]:
        return
    result = await story.commit(plan)
    assert result is not None
    back = await story.asked("changes.revert", change_id=result["change_id"])
    if back is None:
        assert story.problems[-1].reason in ("OWNED", "IN_USE"), story.problems[-1]
        return
    assert (await story.plane.commit(back))["outcome"] == "committed"
    assert await _declared(story) == before


@bounded
@given(history=HISTORY)
async def test_rule_o7_no_record_holds_a_secret(store: Store, history: list[Act]) -> None:
    """Neither plans nor changes, events, Problems or answers hold a value."""
    story = await Story(Plane(store)).go(history)
    await story.end()
    assert VALUE not in await story.plane.dump()
    assert not any(VALUE in it.model_dump_json() for it in story.problems)
    page = await story.plane.answer("secrets.list", {}, story.principal)
    assert VALUE not in page.model_dump_json()


def _lasting(resources: dict[tuple[str, str], Any]) -> dict[tuple[str, str], Any]:
    return {key: it for key, it in resources.items() if not it[3].get("ephemeral")}


async def _declared(story: Story) -> list[Any]:
    found = await story.plane.rows(
        "SELECT kind, name, labels, spec FROM resource WHERE namespace = :namespace AND deleted_at IS NULL"
        " AND owner IS NULL ORDER BY kind, name",
        namespace=story.namespace,
    )
    return [tuple(it.values()) for it in found]


async def _of_namespace(story: Story, sql: str, order: str = "c.change_id") -> list[dict[str, Any]]:
    return await story.plane.rows(f"{sql} WHERE c.namespace = :namespace ORDER BY {order}", namespace=story.namespace)


async def _events(story: Story, kind: str | None = None) -> list[dict[str, Any]]:
    found = await story.plane.rows("SELECT * FROM event WHERE namespace = :namespace", namespace=story.namespace)
    return [it for it in found if kind is None or it["type"] == kind]
