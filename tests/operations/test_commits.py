"""Plans and commits: one base, one use, and a way on when something moved."""

import asyncio
from typing import Any

import pytest

from schemas.principal import Principal
from schemas.problem import Refusal
from tests.operations.plane import Plane, agent, channel, fleet, secret

pytestmark = pytest.mark.anyio


async def reason(plane: Plane, operation: str, **raw: Any) -> str:
    with pytest.raises(Refusal) as refusal:
        await plane.call(operation, **raw)
    return refusal.value.problem.reason


async def test_the_same_proposal_answers_the_stored_plan_to_the_byte(plane: Plane) -> None:
    """On an unmoved read set the plan stays as it was proposed, whatever the clock and the agents do."""
    await plane.commit(await plane.propose(agent("echo")))
    first = await plane.answer("resources.propose", {"manifests": [agent("echo", suspend_after_ms=9)]})
    await plane.settle()
    plane.now += 100
    again = await plane.answer("resources.propose", {"manifests": [agent("echo", suspend_after_ms=9)]})
    assert again.model_dump_json() == first.model_dump_json()
    stored = await plane.answer("plans.get", {"plan_id": first.model_dump()["plan_id"]})
    assert stored.model_dump_json() == first.model_dump_json()
    other = Principal("other", "operator", ("*",))
    assert (await plane.propose(agent("echo", suspend_after_ms=9), principal=other))["plan_id"] != first.plan_id  # type: ignore[attr-defined]


async def test_create_delete_create_are_three_plans(plane: Plane) -> None:
    """An absent name is read with its last generation."""
    first = await plane.propose(channel("c"))
    assert first["read_set"] == [{"kind": "Channel", "namespace": "default", "name": "c", "uid": None, "generation": 0}]
    await plane.commit(first)
    await plane.settle()
    await plane.delete("Channel", "c")
    second = await plane.propose(channel("c"))
    assert second["read_set"][0]["generation"] == 1
    assert second["plan_id"] != first["plan_id"]
    await plane.commit(second)
    assert (await plane.call("channels.get", name="c"))["metadata"]["generation"] == 2


async def test_what_is_so_already_is_a_plan_without_steps(plane: Plane) -> None:
    """Its claims stay, and are verified by its commit."""
    await plane.apply(channel("c", labels={"a": "b"}))
    plan = await plane.propose(channel("c", labels={"a": "b"}))
    assert plan["steps"] == []
    assert len(plan["claims"]) == 1
    committed = await plane.commit(plan)
    assert committed["outcome"] == "committed"
    await plane.settle()
    assert (await plane.call("changes.get", change_id=committed["change_id"]))["outcome"] == "verified"


async def test_a_step_shows_the_smallest_fields_that_differ(plane: Plane) -> None:
    """Changes are pointers into the resource, with before and after."""
    await plane.apply(agent("echo", config={"deep": {"a": 1, "b": [1, 2]}}, labels={"app": "x", "old": "1"}))
    wanted = agent("echo", config={"deep": {"a": 1, "b": [1]}, "new/key": True}, labels={"app": "y"})
    step = (await plane.propose(wanted))["steps"][0]
    assert step["changes"] == [
        {"path": "/spec/config/deep/b", "before": [1, 2], "after": [1]},
        {"path": "/spec/config/new~1key", "before": None, "after": True},
        {"path": "/metadata/labels/app", "before": "x", "after": "y"},
        {"path": "/metadata/labels/old", "before": "1", "after": None},
    ]


async def test_true_and_one_are_not_the_same(plane: Plane) -> None:
    """Values are compared as JSON, not as Python."""
    await plane.apply(agent("echo", config={"a": True}))
    assert len((await plane.propose(agent("echo", config={"a": 1})))["steps"]) == 1


async def test_a_plan_is_used_once(plane: Plane) -> None:
    """The second commit says so and changes nothing."""
    plan = await plane.propose(channel("c"))
    first = await plane.commit(plan)
    before = await plane.dump()
    again = await plane.commit(plan)
    assert again == first | {"outcome": "already_committed"}
    assert await plane.dump() == before


async def test_a_moved_read_set_makes_the_commit_stale_with_a_new_plan(plane: Plane) -> None:
    """What moved is named, and the new plan commits."""
    await plane.apply(channel("c"))
    late = await plane.propose(channel("c", retention_s=10))
    await plane.apply(channel("c", retention_s=20))
    stale = await plane.commit(late)
    assert stale["outcome"] == "stale"
    assert stale["moved"] == [
        {"kind": "Channel", "namespace": "default", "name": "c", "planned_generation": 1, "current_generation": 2}
    ]
    assert (await plane.commit({"plan_id": stale["new_plan_id"]}))["outcome"] == "committed"
    assert (await plane.call("channels.get", name="c"))["spec"]["retention_s"] == 10


async def test_labels_of_others_are_not_overwritten(plane: Plane) -> None:
    """Labels move the revision alone, and a plan that would replace them without having seen them is stale."""
    await plane.apply(channel("c"))
    late = await plane.propose(channel("c", retention_s=10))
    changed = await plane.apply(channel("c", labels={"team": "a"}))
    assert changed["outcome"] == "verified"
    found = await plane.call("channels.get", name="c")
    assert (found["metadata"]["generation"], found["metadata"]["revision"]) == (1, 2)
    stale = await plane.commit(late)
    assert stale["outcome"] == "stale"
    plan = await plane.call("plans.get", plan_id=stale["new_plan_id"])
    assert {"path": "/metadata/labels/team", "before": "a", "after": None} in plan["steps"][0]["changes"]


async def test_what_others_made_so_is_superseded(plane: Plane) -> None:
    """A late commit with nothing left to do says superseded, for a deletion too."""
    late = await plane.propose(channel("c", retention_s=10), principal=Principal("other", "operator", ("*",)))
    await plane.apply(channel("c", retention_s=10))
    assert (await plane.commit(late))["outcome"] == "superseded"
    first = await plane.call("channels.delete", name="c")
    second = await plane.call("channels.delete", Principal("other", "operator", ("*",)), name="c")
    await plane.commit(first)
    assert (await plane.commit(second))["outcome"] == "superseded"


async def test_a_newer_generation_ends_the_older_change(plane: Plane) -> None:
    """The older change is superseded, its open claims unverifiable; a change of labels alone ends nothing."""
    first = await plane.commit(await plane.propose(agent("echo")))
    await plane.commit(await plane.propose(agent("echo", labels={"a": "b"})))
    assert (await plane.call("changes.get", change_id=first["change_id"]))["outcome"] == "open"
    second = await plane.commit(await plane.propose(agent("echo", labels={"a": "b"}, suspend_after_ms=1)))
    old = await plane.call("changes.get", change_id=first["change_id"])
    assert (old["outcome"], old["done"], old["claims"][0]["verdict"]) == ("superseded", True, "unverifiable")
    await plane.settle()
    assert (await plane.call("changes.get", change_id=second["change_id"]))["outcome"] == "verified"


async def test_an_expired_plan_says_so_and_can_be_proposed_again(plane: Plane) -> None:
    """Its values died with it; the same proposal is a new plan under the same id."""
    plan = await plane.propose(secret("s", password="pw"))
    plane.now += 90_000
    assert await reason(plane, "plans.commit", plan_id=plan["plan_id"]) == "PLAN_EXPIRED"
    again = await plane.propose(secret("s", password="pw"))
    assert again["expires_at"] > plan["expires_at"]
    assert (await plane.commit(again))["outcome"] == "committed"


async def test_of_two_plans_for_one_name_one_commits(plane: Plane) -> None:
    """Concurrent commits of different plans: one wins, the others are stale with a plan of their own."""
    plans = [await plane.propose(channel("c", retention_s=60 + n)) for n in range(5)]
    results = await asyncio.gather(*(plane.commit(plan) for plan in plans))
    assert sorted(it["outcome"] for it in results) == ["committed", "stale", "stale", "stale", "stale"]
    assert all(it["new_plan_id"] for it in results if it["outcome"] == "stale")


async def test_concurrent_commits_of_one_plan_make_one_change(plane: Plane) -> None:
    """One committed, the others already_committed, all with the same change."""
    plan = await plane.propose(channel("c"))
    results = await asyncio.gather(*(plane.commit(plan) for _ in range(8)))
    assert sorted(it["outcome"] for it in results) == ["already_committed"] * 7 + ["committed"]
    assert len({it["change_id"] for it in results}) == 1


async def test_a_watched_channel_is_part_of_the_read_set(plane: Plane) -> None:
    """An agent's plan rests on the channels that it watches."""
    plan = await plane.propose(agent("a", watches=[{"channel": "news"}]))
    assert [it["name"] for it in plan["read_set"]] == ["a", "news"]
    await plane.apply(channel("news"))
    stale = await plane.commit(plan)
    assert (stale["outcome"], stale["moved"][0]["name"]) == ("stale", "news")


async def test_a_fleet_finds_its_names_taken_at_commit_too(plane: Plane) -> None:
    """What would make the commit fail makes the proposal fail: the membership is read again."""
    plan = await plane.propose(fleet("zoo", 2))
    await plane.apply(agent("zoo-1"))
    assert await reason(plane, "fleets.propose", manifest=fleet("zoo", 2)) == "OWNED"
    late = await plane.commit(plan)
    assert (late["outcome"], late["new_plan_id"]) == ("stale", None)


async def test_a_revert_restores_its_own_fields_only(plane: Plane) -> None:
    """What others wrote since stays; what they moved of the change's own makes the revert stale."""
    await plane.apply(channel("c"))
    mine = await plane.apply(channel("c", retention_s=10))
    await plane.apply(channel("c", retention_s=10, attempts_max=9, labels={"x": "y"}))
    plan = await plane.call("changes.revert", change_id=mine["change_id"])
    await plane.commit(plan)
    found = await plane.call("channels.get", name="c")
    assert (found["spec"]["retention_s"], found["spec"]["attempts_max"]) == (604800, 9)
    assert found["metadata"]["labels"] == {"x": "y"}
    await plane.apply(channel("c", retention_s=77))
    assert await reason(plane, "changes.revert", change_id=mine["change_id"]) == "STALE_REVERT"


async def test_a_revert_of_a_creation_deletes_and_of_a_deletion_creates(plane: Plane) -> None:
    """Both ways, with the fields and labels as they were; a used name makes it stale."""
    made = await plane.apply(channel("c", retention_s=10, labels={"x": "y"}))
    gone = await plane.delete("Channel", "c")
    assert await reason(plane, "changes.revert", change_id="chg_absent") == "NOT_FOUND"
    nothing = await plane.call("changes.revert", change_id=made["change_id"])
    assert nothing["steps"] == []
    plan = await plane.call("changes.revert", change_id=gone["change_id"])
    await plane.commit(plan)
    found = await plane.call("channels.get", name="c")
    assert (found["spec"]["retention_s"], found["metadata"]["labels"]) == (10, {"x": "y"})
    assert await reason(plane, "changes.revert", change_id=gone["change_id"]) == "STALE_REVERT"


async def test_waiting_for_a_change_ends_with_the_bell_or_the_time(plane: Plane) -> None:
    """A timeout is no error; a change that gets done is answered at once."""
    committed = await plane.commit(await plane.propose(channel("c")))
    change = await plane.call("changes.wait", change_id=committed["change_id"], timeout_s=0.05)
    assert change["done"] is False
    waiting = asyncio.create_task(plane.call("changes.wait", change_id=committed["change_id"], timeout_s=30))
    await asyncio.sleep(0.05)
    await plane.settle()
    plane.doorbell.ring()
    async with asyncio.timeout(3):
        assert (await waiting)["outcome"] == "verified"
