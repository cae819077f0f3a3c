"""After a committed deletion nothing that names what is gone succeeds, whichever operation it is."""

import pytest

from controlplane.resources.catalogue import OPERATIONS
from fuzz.rules import KINDS
from schemas.problem import Refusal
from tests.authorization import cases
from tests.authorization.worlds import ROOT, World, manifest, standing

pytestmark = pytest.mark.anyio

# They look among what was given up, or is not due yet: that outlives whatever it was for, as it shall, and there may be
# another one by now.
OUTLIVING = {"channels.dead_letters", "channels.redrive", "channels.delayed"}
MAKING = {"channels.publish", "channels.join"}  # what makes a channel that is not there


async def reason_of(world: World, operation: str, **given: object) -> str:
    try:
        await world.call(operation, ROOT, **given)
    except Refusal as refusal:
        return refusal.problem.reason
    return "ok"


@pytest.mark.parametrize(("noun", "kind"), KINDS.items())
async def test_what_is_deleted_is_gone_for_every_operation(
    anyio_backend: str, quick_url: str, noun: str, kind: str
) -> None:
    """Each that names one of its kind by namespace and name, and each that names it as an agent: NOT_FOUND."""
    async with standing(quick_url, full=False) as world:
        await world.apply(manifest(kind, "gone"))
        plan = await world.call(f"{noun}.delete", name="gone")
        await world.settle((await world.call("plans.commit", plan_id=plan["plan_id"]))["change_id"])
        tried = []
        for operation in OPERATIONS.values():
            fields = set(operation.input.model_fields)
            if operation.name in OUTLIVING or (kind == "Channel" and operation.name in MAKING):
                continue
            if operation.noun == noun and {"namespace", "name"} <= fields and not operation.name.endswith(".propose"):
                given = {**cases.own_input(operation, world), "name": "gone"}
            elif kind == "Agent" and operation.noun == "channels" and "agent" in fields:
                given = {**cases.own_input(operation, world), "name": "reports", "agent": "gone"}
            else:
                continue
            tried.append(operation.name)
            assert await reason_of(world, operation.name, **given) == "NOT_FOUND", operation.name
        assert f"{noun}.get" in tried
        listed = (await world.call(f"{noun}.list", namespace="default", limit=500))["items"]
        assert "gone" not in [it["metadata"]["name"] for it in listed]
