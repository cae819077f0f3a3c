"""A fleet that is upgraded and rolled back in batches, with a parked turn and states that change their shape.

The stages of operations on a real gate and real hosts, without Ray: committed like any change, and verified.
"""

import asyncio
from typing import Any

import pytest

from tests.gate.deals import BROKEN, NEWER, OLD
from tests.gate.running import RunningGate, running
from tests.gate.test_moving import step
from tests.gate.test_upgrades import answer, came, decided
from tests.operations.plane import Plane, fleet

pytestmark = pytest.mark.anyio

DOWN = """
    @downgrade(2)
    @staticmethod
    def price(state):
        return {"price": state["cents"] // 100}
"""
BACK = OLD + DOWN
STATES = "SELECT name, state_version FROM agent ORDER BY name"
QUESTION = "SELECT 1 FROM awaiting WHERE kind = 'question' AND resolved_at IS NULL"


def deals(source: str) -> dict[str, Any]:
    """Three, one after the other."""
    spec = {"code": {"files": {"deal.py": source}}, "entrypoint": "deal:Deal", "upgrade": {"parked": "prove"}}
    found = fleet("deals", 3, suspend_after_ms=50, **spec)
    found["spec"]["upgrade"] = {"batch": 1}
    return found


async def until_done(plane: Plane, change_id: str) -> dict[str, Any]:
    async with asyncio.timeout(40):
        while not (found := await plane.call("changes.get", change_id=change_id))["done"]:
            await step(plane)
    return found


async def apply(plane: Plane, source: str) -> str:
    committed = await plane.commit(await plane.propose(deals(source)))
    assert (await until_done(plane, committed["change_id"]))["outcome"] == "verified"
    return str(committed["change_id"])


async def test_up_and_back_with_a_parked_turn(quick_url: str) -> None:
    """The turn is proved there and back again, the states follow, and what breaks stops itself and is taken back."""
    async with running(quick_url, hosts=8) as gate:
        plane = Plane(gate.store)
        plane.gate = gate.client  # type: ignore[assignment]
        plane.restart()
        await apply(plane, OLD)
        await gate.send("deals-1", 5, "d1", 9e9)
        await gate.until(QUESTION, bool)
        await apply(plane, NEWER)
        assert await versions(gate) == [2, 1, 2], "that of the parked turn is as it was before it"
        assert (await decided(gate))[0] == "proved"
        newer = (await decided(gate))[1]
        await apply(plane, BACK)
        assert await versions(gate) == [1, 1, 1]
        decision, digest, _ = await decided(gate)
        assert (decision, digest != newer) == ("proved", True)
        assert await gate.ask("deals-0", "hello", "h0") == ["old", {"price": 0}]
        broken = (await plane.commit(await plane.propose(deals(BROKEN))))["change_id"]
        async with asyncio.timeout(40):
            while not await plane.rows("SELECT 1 FROM event WHERE type = 'fleet.upgrade_stopped'"):
                await step(plane)
        assert sorted(await versions(gate)) == [1, 1, 1]
        assert (await plane.call("fleets.get", name="deals"))["status"]["upgraded_replicas"] == 1
        back = await plane.commit(await plane.call("changes.revert", change_id=broken))
        assert (await until_done(plane, back["change_id"]))["outcome"] == "verified"
        assert (await decided(gate))[:2] == ("proved", digest)
        await answer(gate)
        assert await came(gate) == ["old", "yes", {"price": 5}]
        assert await gate.rows("SELECT attempts FROM turn WHERE message_id = 'd1'") == [(1,)]


async def versions(gate: RunningGate) -> list[int]:
    """Of the stored states, in the order of the agents."""
    return [row[1] for row in await gate.rows(STATES)]
