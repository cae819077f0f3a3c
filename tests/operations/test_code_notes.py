"""What a plan says of code that came to something else when turns of it were run again."""

from typing import Any

import pytest

from controlplane.store.store import Store
from controlplane.store.unit import Unit
from tests.operations.plane import Plane, agent, fleet

pytestmark = pytest.mark.anyio
MARK = (
    "INSERT INTO divergence (digest, namespace, kind, agent, turn_id, problem, at)"
    " SELECT digest, ?, ?, 'echo', 'turn_1', '{}', 1 FROM code"
)


async def test_a_plan_says_that_its_code_is_marked(store: Store) -> None:
    """Of the namespace it was marked in, by every kind of difference; it can be committed all the same."""
    plane = Plane(store)
    await plane.commit(await plane.propose(agent("echo")))
    unit = Unit()
    for namespace, kind in (("default", "state"), ("default", "effect"), ("secret", "reply")):
        unit.raw(MARK, [namespace, kind], 1)
    assert await store.write(unit)
    fleet = {"kind": "Fleet", "metadata": {"name": "many"}, "spec": {"replicas": 2, "template": agent("x")}}
    del fleet["spec"]["template"]["kind"], fleet["spec"]["template"]["metadata"]  # type: ignore[index]
    other = agent("other")
    other["spec"]["code"]["files"]["echo.py"] += "# another one\n"
    plan = await plane.propose(agent("echo", config={"n": 2}), agent("far", "elsewhere"), fleet, other)
    noted = [(it["subject"]["kind"], it["subject"]["name"], it["code"], it["data"]["first"]) for it in plan["notes"]]
    assert sorted(noted) == [
        ("Agent", "echo", "DIVERGED", ["effect", "state"]),
        ("Fleet", "many", "DIVERGED", ["effect", "state"]),
    ]
    assert "first: effect, state" in plan["notes"][0]["message"]
    assert (await plane.commit(plan))["outcome"] == "committed"


async def test_a_plan_says_that_a_confined_agent_is_granted_computes_in_vain(store: Store) -> None:
    """By its name or with its whole protocol, in a fleet's template too; others are told nothing."""
    plane = Plane(store)

    def granted(effect: str, isolation: str) -> dict[str, Any]:
        return {"isolation": isolation, "mandate": {"grants": [{"effect": effect}]}}

    plan = await plane.propose(
        agent("by-name", **granted("compute.run", "confined")),
        agent("free", **granted("compute.run", "dedicated")),
        agent("other", **granted("http.*", "confined")),
        fleet("many", 2, **granted("compute.*", "confined")),
    )
    noted = [(it["subject"]["name"], it["code"], it["data"]["grants"]) for it in plan["notes"]]
    assert sorted(noted) == [("by-name", "NO_COMPUTE", ["compute.run"]), ("many", "NO_COMPUTE", ["compute.*"])]
    assert (await plane.commit(plan))["outcome"] == "committed"
