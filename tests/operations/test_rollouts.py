"""A newer template in batches: so many at once, not one more after a failure, and back again by the same way."""

from typing import Any

import orjson
import pytest

from controlplane.store import statements
from controlplane.store.unit import Unit
from tests.operations.plane import STARTS, Plane, fleet

pytestmark = pytest.mark.anyio
FAILED = {"reason": "HANDLER_ERROR", "detail": "on purpose"}
AGENTS = "SELECT spec FROM resource WHERE kind = 'Agent' AND deleted_at IS NULL"


def zoo(replicas: int, batch: int | None, **spec: Any) -> dict[str, Any]:
    found = fleet("zoo", replicas, **spec)
    found["spec"]["upgrade"] = {"batch": batch}
    return found


async def newer(plane: Plane) -> int:
    return sum(orjson.loads(row["spec"])["suspend_after_ms"] == 7 for row in await plane.rows(AGENTS))


async def tick(plane: Plane, many: int = 4) -> None:
    """The reconciler alone; no agent gets on."""
    for _ in range(many):
        plane.now += 0.01
        await plane.reconciler.tick()


async def stopped(plane: Plane) -> list[dict[str, Any]]:
    rows = await plane.rows("SELECT data FROM event WHERE type = 'fleet.upgrade_stopped'")
    return [orjson.loads(row["data"]) for row in rows]


async def begin(plane: Plane, batch: int | None) -> str:
    """Five agents, and a newer template that is committed and nothing more."""
    assert (await plane.apply(zoo(5, batch)))["outcome"] == "verified"
    plan = await plane.propose(zoo(5, batch, suspend_after_ms=7))
    return str((await plane.commit(plan))["change_id"])


async def test_a_batch_waits_for_the_one_before(plane: Plane) -> None:
    """Two, two and one; the claim gets its verdict at the end, and not while older agents are ready."""
    change_id = await begin(plane, 2)
    for wanted in (2, 4, 5):
        await tick(plane)
        assert await newer(plane) == wanted
        status = (await plane.call("fleets.get", name="zoo"))["status"]
        assert (status["upgraded_replicas"], status["ready_replicas"]) == (wanted, wanted - (1 if wanted == 5 else 2))
        if wanted < 5:
            assert "its upgrade waits for zoo-" in status["conditions"][0]["message"]
        await plane.verifier.tick()
        assert (await plane.call("changes.get", change_id=change_id))["outcome"] == "open"
        await plane.finish_starts()
    await plane.settle()
    assert (await plane.call("changes.get", change_id=change_id))["outcome"] == "verified"
    assert await stopped(plane) == []


async def test_without_batches_all_go_at_once(plane: Plane) -> None:
    await begin(plane, None)
    await tick(plane)
    assert await newer(plane) == 5


async def test_the_first_failure_stops_it_and_a_revert_takes_it_back(plane: Plane) -> None:
    """It is told once, also by a plane that was started again; the rest stays on the older template."""
    change_id = await begin(plane, 2)
    await tick(plane)
    await plane.finish_starts("failed", FAILED)
    for _ in range(2):
        await tick(plane)
        plane.restart()
    assert await newer(plane) == 2
    (told,) = await stopped(plane)
    assert (told["agent"][:4], told["reason"], told["detail"]) == ("zoo-", "HANDLER_ERROR", "on purpose")
    (ready,) = (await plane.call("fleets.get", name="zoo"))["status"]["conditions"]
    assert (ready["status"], ready["reason"]) == ("false", "UpgradeStopped")
    back = await plane.commit(await plane.call("changes.revert", change_id=change_id))
    for _ in range(4):
        await plane.settle()
    assert await newer(plane) == 0
    assert (await plane.call("changes.get", change_id=back["change_id"]))["outcome"] == "verified"
    assert (await plane.call("fleets.get", name="zoo"))["status"]["ready_replicas"] == 5
    assert len(await stopped(plane)) == 1
    await plane.delete("Fleet", "zoo")
    assert await plane.rows("SELECT key FROM meta WHERE key LIKE 'fleet.%'") == []


async def test_who_was_begun_first_holds_its_place_and_may_fail_last(plane: Plane) -> None:
    """One of the first batch is slow, while others come and go: one more at a time, and none once it has failed."""
    await begin(plane, 2)
    await tick(plane)
    slow, *quick = [row["name"] for row in await plane.rows(f"{STARTS} ORDER BY a.name")]
    for reached in (3, 4):
        await plane.finish_starts(only=quick)
        await tick(plane)
        assert await newer(plane) == reached, "one place is held"
        quick = [row["name"] for row in await plane.rows(STARTS) if row["name"] != slow]
        message = (await plane.call("fleets.get", name="zoo"))["status"]["conditions"][0]["message"]
        assert f"its upgrade waits for {slow}" in message
    await plane.finish_starts("failed", FAILED, only=[slow])
    await plane.finish_starts()
    await tick(plane)
    assert await newer(plane) == 4, "nobody is begun after a failure"
    (told,) = await stopped(plane)
    assert (told["agent"], told["reason"]) == (slow, "HANDLER_ERROR")


@pytest.mark.parametrize(("decided", "reached"), [("differs", 1), ("proved", 5), ("pinned", 1)])
async def test_a_parked_turn_counts_by_what_was_decided(plane: Plane, decided: str, reached: int) -> None:
    """One that differs stops the rollout, one that was proved lets it go on, one that is pinned holds it up."""
    await begin(plane, 1)
    await tick(plane)
    (row,) = await plane.rows("SELECT agent FROM inbox WHERE \"trigger\" = 'start'")
    values = ["turn_open", row["agent"], "m1", "message", "{}", "parked", 0, 1, "sha256:old", plane.now]
    problem = orjson.dumps({"reason": "UPGRADE_DIFFERS", "detail": "at position 0"}).decode()
    unit = Unit().raw(statements.TURN_OPEN, [*values, None, 0, 1, None, None, None], 1)
    unit.raw("UPDATE turn SET decided = ?, looked_for = 2, differs = ?", [decided, problem])
    assert await plane.store.write(unit)
    for _ in range(6):
        await tick(plane)
        unit = Unit().raw("DELETE FROM inbox WHERE agent <> ?", [row["agent"]])
        assert await plane.store.write(unit)
    assert await newer(plane) == reached
    assert [it["reason"] for it in await stopped(plane)] == ["UPGRADE_DIFFERS"] * (decided == "differs")
    message = (await plane.call("fleets.get", name="zoo"))["status"]["conditions"][0]["message"]
    assert ("waits for zoo-" in message) == (decided == "pinned")
