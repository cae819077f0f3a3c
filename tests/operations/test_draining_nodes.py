"""A node that is drained in batches: closed, left by its agents so many at a time, emptied; stopped by a miss.

The gate here moves whom it is told to move, but for those that it holds; what the real one does is in tests/gate.
"""

from typing import Any

import pytest

from controlplane.operations.living import nodes
from controlplane.store.unit import Unit
from schemas.problem import Refusal
from tests.operations.mover import Mover, five, owners, tick
from tests.operations.plane import Plane, agent

pytestmark = pytest.mark.anyio


async def on_two_nodes(plane: Plane) -> None:
    """The five of `five`, of which one is of another namespace; and the other host is of another node."""
    await five(plane)
    await plane.apply(agent("a-u", "elsewhere"))
    unit = (
        Unit().raw("UPDATE agent SET owner = 'h-1'", []).raw("UPDATE host SET node = 'far' WHERE host_id = 'h-2'", [])
    )
    await plane.store.write(unit)


async def test_a_node_is_left_a_batch_at_a_time(plane: Plane, mover: Mover) -> None:
    """Closed first, then left by the agents of all namespaces, then emptied; over a restart of the plane."""
    await on_two_nodes(plane)
    before = await plane.dump()
    would = await plane.call("nodes.drain", node="local", batch=4, dry_run=True)
    assert would["would"] == ["node local would be left by 6 agents, 4 at once, and take none"]
    assert [it["action"] for it in would["steps"]] == ["drain", *["migrate"] * 6, "drain"]
    measures = [it["measure"] for it in would["claims"]]
    assert measures == ["closed", *["off_host.h-1"] * 6, "drained"]
    assert [it["verify_within_s"] for it in would["claims"]] == [60, *[120] * 4, *[180] * 2, 240]
    assert await plane.dump() == before
    mover.held = {f"a-{n}" for n in "uvwxyz"}
    change_id = (await plane.call("nodes.drain", node="local", batch=4))["change_id"]
    await tick(plane)
    assert set(mover.told) == {"close local", "a-v", "a-w", "a-x", "a-y"}
    plane.restart()
    assert (await plane.call("nodes.drain", node="local", batch=4))["change_id"] == change_id
    mover.held = {"a-z"}
    await tick(plane)
    assert "local" not in mover.told, "one agent is left"
    mover.held = set()
    await tick(plane)
    assert mover.told[-1] == "local"
    assert set((await owners(plane)).values()) == {"h-2"}
    await mover.write("UPDATE host SET ended_at = 1 WHERE node = 'local'", [])
    await tick(plane)
    change = await plane.call("changes.get", change_id=change_id)
    assert (change["outcome"], [it["done"] for it in change["steps"]]) == ("verified", [True] * 8)
    told = await plane.rows("SELECT namespace, type FROM event WHERE change_id = :it ORDER BY cursor", it=change_id)
    mine = [it["type"] for it in told if it["namespace"] == "elsewhere"]
    assert mine == ["change.committed", "claim.verified", "change.done"]
    assert (await plane.call("nodes.drain", node="local", batch=4))["change_id"] is None


@pytest.mark.parametrize("how", ["late", "refused"])
async def test_a_node_that_one_does_not_leave_is_not_emptied(plane: Plane, mover: Mover, how: str) -> None:
    """The change is missed; the rest stays, the node is closed; and the same again is a change for the rest."""
    await on_two_nodes(plane)
    (mover.held if how == "late" else mover.refused).add("a-v")
    asked = {"node": "local", "batch": 2}
    change_id = (await plane.call("nodes.drain", **asked))["change_id"]
    if how == "late":
        mover.held |= {"a-x", "a-y", "a-z"}
        await tick(plane)
        plane.now += 130
    await tick(plane, 4)
    change = await plane.call("changes.get", change_id=change_id)
    verdicts = {it["claim_id"]: it["verdict"] for it in change["claims"]}
    if how == "refused":
        assert list(verdicts.values()) == ["held", "missed", "held", *["unverifiable"] * 5]
        assert (change["done"], change["outcome"]) == (True, "missed")
    assert (verdicts["c1"], verdicts["c7"]) == ("missed", "unverifiable")
    assert {"local", "a-z"}.isdisjoint(mover.told)
    nodes_of = (await plane.call("nodes.list"))["items"]
    assert [(it["draining"], it["agents"]) for it in nodes_of if it["node"] == "local"] == [(True, 5)]
    plane.now += 300
    await tick(plane)
    mover.held, mover.refused = set(), set()
    again = await plane.call("nodes.drain", **asked)
    assert again["change_id"] != change_id
    await tick(plane, 6)
    assert "close local" not in mover.told[mover.told.index("a-z") :], "it is closed already"
    assert (set((await owners(plane)).values()), mover.told[-1]) == ({"h-2"}, "local")


async def test_the_last_stage_does_not_begin_after_a_miss(plane: Plane, mover: Mover) -> None:
    """All others have left, and one is late: it is not put out with what is left."""
    await on_two_nodes(plane)
    mover.held = {"a-v"}
    change_id = (await plane.call("nodes.drain", node="local", batch=20))["change_id"]
    await tick(plane)
    plane.now += 130
    await tick(plane, 4)
    change = await plane.call("changes.get", change_id=change_id)
    verdicts = [it["verdict"] for it in change["claims"]]
    assert (verdicts, change["outcome"]) == (["held", "missed", *["held"] * 5, "unverifiable"], "missed")
    assert "local" not in mover.told
    assert (await owners(plane))["a-v"] == "h-1"


@pytest.mark.parametrize("otherwise", [{"undo": True}, {}, {"batch": 3}], ids=["undo", "at_once", "batch"])
async def test_a_node_that_is_asked_for_otherwise(plane: Plane, mover: Mover, otherwise: dict[str, Any]) -> None:
    """All that the older change has not done ends, also the moves, which were for that alone."""
    await on_two_nodes(plane)
    mover.held = {"a-v", "a-w"}
    first = (await plane.call("nodes.drain", node="local", batch=2))["change_id"]
    await tick(plane)
    other = (await plane.call("nodes.drain", node="local", **otherwise))["change_id"]
    assert other not in (None, first)
    mover.told.clear()
    await tick(plane)
    change = await plane.call("changes.get", change_id=first)
    assert (change["done"], change["outcome"]) == (True, "unverifiable")
    if "batch" not in otherwise:
        assert set(mover.told) <= {"local"}, "nobody is moved for the older one"


async def test_who_undoes_it_while_it_is_carried_on_ends_it_there(
    plane: Plane, mover: Mover, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was about to be told to the gate is not: neither the moves that were left of the batch, nor the emptying."""
    await on_two_nodes(plane)
    mover.held = {f"a-{n}" for n in "uvwxyz"}
    await plane.call("nodes.drain", node="local", batch=6)
    await tick(plane)
    mover.told.clear()
    control, undone = mover.control, False

    async def undoes(verb: str, uid: str, argument: dict[str, Any]) -> dict[str, Any]:
        nonlocal undone
        found = await control(verb, uid, argument)
        if verb == "migrate" and not undone:
            undone = True
            await plane.call("nodes.drain", node="local", undo=True)
        return found

    monkeypatch.setattr(mover, "control", undoes)
    await tick(plane)
    assert undone
    assert len([it for it in mover.told if it.startswith("a-")]) == 1


async def test_more_agents_than_a_change_holds_are_refused(
    plane: Plane, mover: Mover, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In batches; at once a node is emptied whatever is on it."""
    await on_two_nodes(plane)
    monkeypatch.setattr(nodes, "AGENTS_MAX", 5)
    with pytest.raises(Refusal) as refused:
        await plane.call("nodes.drain", node="local", batch=2)
    assert (refused.value.problem.reason, refused.value.problem.field) == ("OUT_OF_RANGE", "/batch")
    assert mover.told == []
    assert (await plane.call("nodes.drain", node="local"))["draining"]
