"""Operations that act at once are changes: predicted, carried on over restarts, verified, stopped by a miss.

The gate here moves whom it is told to move, but for those that it holds; what the real one does is in tests/gate.
"""

from typing import Any

import pytest

from controlplane.operations.living import moving, selecting
from schemas.principal import Principal
from schemas.problem import Refusal
from tests.operations.mover import Mover, five, owners, tick
from tests.operations.plane import Plane, agent, fleet

pytestmark = pytest.mark.anyio


async def test_several_go_a_batch_at_a_time_and_every_claim_is_held(plane: Plane, mover: Mover) -> None:
    """Predicted by a dry run that changes nothing; over a restart of the plane too; told as one change."""
    await five(plane)
    before = await plane.dump()
    would = await plane.call("agents.migrate", labels={"part": "a"}, batch=2, dry_run=True)
    assert would["would"][:2] == ["5 of 5 agents would move, 2 at once", "default/a-v would go to any other host"]
    assert [it["action"] for it in would["steps"]] == ["migrate"] * 5
    assert {it["measure"] for it in would["claims"]} == {"off_host.h-1"}
    assert [it["verify_within_s"] for it in would["claims"]] == [60, 60, 120, 120, 180]
    assert await plane.dump() == before
    mover.held = {f"a-{n}" for n in "vwxyz"}
    answer = await plane.call("agents.migrate", labels={"part": "a"}, batch=2)
    about = {"change_id": answer["change_id"]}
    await tick(plane)
    assert set(mover.told) == {"a-v", "a-w"}, "two at once"
    plane.restart()
    mover.held = set()
    await tick(plane, 6)
    assert set((await owners(plane)).values()) == {"h-2"}
    change = await plane.call("changes.get", **about)
    assert (change["outcome"], change["operation"]) == ("verified", "agents.migrate")
    assert all(it["done"] for it in change["steps"])
    plan = await plane.call("plans.get", plan_id=change["plan_id"])
    assert plan["claims"] == would["claims"]
    assert plan["steps"] == would["steps"]
    told = await plane.rows("SELECT type FROM event WHERE change_id = :it ORDER BY cursor", it=answer["change_id"])
    assert [it["type"] for it in told] == ["change.committed", *["claim.verified"] * 5, "change.done"]
    with pytest.raises(Refusal) as refused:
        await plane.call("changes.revert", **about)
    assert refused.value.problem.reason == "NOT_REVERTIBLE"
    assert (await plane.commit(plan))["outcome"] == "already_committed"


@pytest.mark.parametrize("selector", [{"from_host": "h-1"}, {"node": "local"}], ids=["host", "node"])
@pytest.mark.parametrize("how", ["late", "refused"])
async def test_a_miss_stops_what_was_not_begun(plane: Plane, mover: Mover, how: str, selector: dict[str, str]) -> None:
    """What was begun goes on; the rest stays where it is, and the answer says so of each."""
    await five(plane)
    (mover.held if how == "late" else mover.refused).add("a-w")
    asked: dict[str, Any] = {"fleet": None, "batch": 2} | selector
    answer = await plane.call("agents.migrate", **asked)
    assert (answer["name"], answer["moved"], answer["from_host"]) == (None, False, selector.get("from_host"))
    again = (await plane.call("agents.migrate", **asked))["change_id"]
    assert again == answer["change_id"], "the same asked again is the same"
    await tick(plane, 2)
    if how == "late":
        assert (await owners(plane))["a-x"] == "h-2", "one place of two is held"
        mover.held |= {"a-y", "a-z"}
        plane.now += 70
    await tick(plane, 4)
    change = await plane.call("changes.get", change_id=again)
    verdicts = [it["verdict"] for it in change["claims"]]
    if how == "refused":
        assert verdicts == ["held", "missed", *["unverifiable"] * 3]
        assert change["claims"][1]["observed"] == "UNFIT_HOST: it serves other code"
        assert await owners(plane) == {"a-v": "h-2"} | {f"a-{n}": "h-1" for n in "wxyz"}
    else:
        assert verdicts[:3] == ["held", "missed", "held"]
        assert verdicts[4] == "unverifiable"
        assert "a-z" not in mover.told
        plane.now += 200
        await tick(plane, 4)
        change = await plane.call("changes.get", change_id=again)
    assert (change["done"], change["outcome"]) == (True, "missed")
    assert [it["done"] for it in change["steps"]] == [it["verdict"] == "held" for it in change["claims"]]
    found = await plane.store.read(lambda session: selecting.outcomes(session, again))
    states = {it.shown.name: it.shown.state for it in found}
    assert (states["a-v"], states["a-w"], states["a-z"]) == ("moved", "missed", "not_begun")


async def test_the_answer_says_what_came_of_each(plane: Plane, mover: Mover, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who waits, and why, first; bounded, with counts; more than may be is refused."""
    await five(plane)
    mover.held = {"a-x"}
    await plane.call("agents.migrate", node="local", batch=5)
    await tick(plane)
    monkeypatch.setattr(selecting, "SHOWN_MAX", 2)
    answer = await plane.call("agents.migrate", node="local", batch=5)
    found = answer["selection"]
    assert (found["moved"], found["waiting"], found["shown"], found["total"]) == (4, 1, 2, 5)
    assert found["items"][0] == {
        "name": "a-x", "state": "waiting", "from_host": "h-1", "to_host": None, "waits_for": "it waits for effect 0",
    }  # fmt: skip
    assert found["items"][1]["to_host"] == "h-2"
    monkeypatch.setattr(moving, "AGENTS_MAX", 4)
    with pytest.raises(Refusal) as refused:
        await plane.call("agents.migrate", labels={"part": "a"})
    assert refused.value.problem.reason == "OUT_OF_RANGE"


async def test_who_is_selected(plane: Plane, mover: Mover) -> None:
    """All selectors that are given must match, within one namespace; none is refused."""
    await five(plane)
    await plane.apply(fleet("zoo", 2), agent("a-v", "elsewhere", labels={"part": "a"}))

    async def selected(**given: Any) -> int:
        would = await plane.call("agents.migrate", to_host="h-3", dry_run=True, **given)
        return len(would["steps"])

    assert await selected(fleet="zoo") == await selected(labels={"part": "zoo"}) == 2
    assert await selected(from_host="h-1") == await selected(node="local") == await selected(labels={"part": "a"}) == 5
    assert await selected(name="a-v", labels={"part": "a"}) == await selected(name="a-v", node="local") == 1
    assert await selected(namespace="elsewhere", from_host="h-1") == await selected(name="a-v", fleet="zoo") == 0
    nobody = await plane.call("agents.migrate", fleet="nowhere")
    assert (nobody["change_id"], nobody["moved"], nobody["selection"]["selected"]) == (None, True, 0)
    for given in ({}, {"labels": {}}, {"name": None, "to_host": "h-1"}):
        with pytest.raises(Refusal) as refused:
            await plane.call("agents.migrate", **given)
        assert refused.value.problem.status == 422
    with pytest.raises(Refusal) as refused:
        await plane.call("agents.migrate", Principal("op", "operator", ("elsewhere",)), labels={"part": "a"})
    assert refused.value.problem.reason == "FOREIGN_NAMESPACE"


async def test_one_is_moved_in_the_call_and_is_a_change(plane: Plane, mover: Mover) -> None:
    """The answer is what it was; what is where it shall be is no change; what is suspended is placed."""
    await five(plane)
    moved = await plane.call("agents.migrate", name="a-v", to_host="h-2")
    expected = {"namespace": "default", "name": "a-v", "moved": True, "from_host": "h-1", "to_host": "h-2", "epoch": 1}
    assert {key: moved[key] for key in expected} == expected
    await tick(plane)
    assert (await plane.call("changes.get", change_id=moved["change_id"]))["outcome"] == "verified"
    assert (await plane.call("agents.migrate", name="a-v", to_host="h-2"))["change_id"] is None
    await mover.write("UPDATE agent SET owner = NULL WHERE name = 'a-w'", [])
    for to in ("h-2", None):
        placed = await plane.call("agents.migrate", name="a-w", to_host=to)
        await tick(plane)
        assert (await plane.call("agents.get", name="a-w"))["status"]["placement"] == to
        assert (await plane.call("changes.get", change_id=placed["change_id"]))["outcome"] == "verified"


async def test_who_is_asked_otherwise_meanwhile_is_not_verified(plane: Plane, mover: Mover) -> None:
    """Only the claim about that agent ends; a new spec ends none, and a deletion is no miss."""
    await five(plane)
    mover.held = {"a-v", "a-w", "a-x"}
    first = (await plane.call("agents.migrate", labels={"part": "a"}, to_host="h-2"))["change_id"]
    other = await plane.call("agents.migrate", name="a-v", to_host="h-3")
    assert other["change_id"] != first
    assert (await plane.call("agents.migrate", name="a-v", to_host="h-3"))["change_id"] == other["change_id"]
    await tick(plane)
    await plane.apply(agent("a-w", labels={"part": "a"}, suspend_after_ms=7))
    await plane.delete("Agent", "a-x")
    await tick(plane)
    change = await plane.call("changes.get", change_id=first)
    verdicts = [it["verdict"] for it in change["claims"]]
    assert (change["done"], verdicts) == (False, ["unverifiable", None, "unverifiable", "held", "held"])
    mover.held = set()
    await tick(plane)
    assert (await owners(plane)) == {"a-v": "h-3", "a-w": "h-2", "a-y": "h-2", "a-z": "h-2"}


async def test_hosts_and_nodes_that_are_drained_are_changes(plane: Plane, mover: Mover) -> None:
    """Claimed, verified, and visible to who reaches what they are about."""
    await five(plane)
    near, far = Principal("op", "operator", ("default",)), Principal("op", "operator", ("elsewhere",))
    would = await plane.call("hosts.drain", near, host_id="h-1", dry_run=True)
    assert [(it["subject"]["kind"], it["measure"]) for it in would["claims"]] == [("Host", "ended")]
    drained = await plane.call("hosts.drain", near, host_id="h-1")
    await tick(plane)
    change = await plane.call("changes.get", near, change_id=drained["change_id"])
    assert (change["outcome"], change["operation"]) == ("verified", "hosts.drain")
    with pytest.raises(Refusal):
        await plane.call("changes.get", far, change_id=drained["change_id"])
    assert (await plane.call("hosts.drain", host_id="h-1"))["change_id"] is None
    closing = await plane.call("nodes.drain", node="local")
    assert not closing["done"]
    await tick(plane)
    assert not (await plane.call("changes.get", change_id=closing["change_id"]))["done"]
    with pytest.raises(Refusal):
        await plane.call("changes.get", near, change_id=closing["change_id"])
    opened = await plane.call("nodes.drain", node="local", undo=True)
    again = await plane.call("nodes.drain", node="local", undo=True)
    assert opened["change_id"] is not None
    assert again["change_id"] in (None, opened["change_id"])
