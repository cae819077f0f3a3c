"""What is estimated of a route: its source's traffic, judged once and when its time is over, binding nothing."""

from typing import Any

import pytest

from controlplane.operations.hourly import HOUR_S, band
from controlplane.store.store import Store
from controlplane.store.unit import Unit
from tests.operations.plane import Plane, channel, route

pytestmark = pytest.mark.anyio


@pytest.fixture
async def plane(store: Store) -> Plane:
    return Plane(store)


async def came(plane: Plane, *moments: float) -> None:
    """Messages of channel `readings`, accepted then."""
    found = await plane.rows("SELECT uid, next_position FROM channel WHERE name = 'readings'")
    uid, first = found[0]["uid"], found[0]["next_position"]
    put = "INSERT INTO channel_message (channel, position, message_id, body, accepted_at) VALUES (?, ?, ?, '{}', ?)"
    unit = Unit()
    for position, at in enumerate(moments, first):
        unit.raw(put, [uid, position, f"m{position}", at], 1)
    unit.raw("UPDATE channel SET next_position = ? WHERE uid = ?", [first + len(moments), uid], 1)
    assert await plane.store.write(unit)


async def estimated(plane: Plane) -> tuple[dict[str, Any], str]:
    """The estimate of a route that is committed now, and its change."""
    plan = await plane.propose(route("alarms", filter="data.celsius > 90.0"))
    (claim,) = [it for it in plan["claims"] if not it["binding"]]
    committed = await plane.commit(plan)
    await plane.settle()
    return claim, committed["change_id"]


async def with_hours(plane: Plane, *many: int) -> None:
    """So many messages in each of the last hours, the newest first."""
    await plane.apply(channel("readings"))
    began = plane.now
    plane.now = began + len(many) * HOUR_S + 60
    await came(
        plane,
        *(
            plane.now - (hour + 1) * HOUR_S + 10 + n * 0.01
            for hour in reversed(range(len(many)))
            for n in range(many[hour])
        ),
    )


async def test_traffic_is_expected_within_a_band_and_judged_when_the_hour_is_over(
    plane: Plane, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The change is done without it; its one verdict comes an hour later, and does not undo what was verified."""
    monkeypatch.setattr("controlplane.operations.views.time.time", lambda: plane.now)
    await with_hours(plane, 9, 4, 16)
    claim, change_id = await estimated(plane)
    assert (claim["fidelity"], claim["basis"], claim["verify_within_s"]) == ("estimated", "precedent", HOUR_S)
    assert claim["expected"] == {"value": 9, "low": 0.0, "high": 25.0}
    change = await plane.call("changes.get", change_id=change_id)
    assert (change["outcome"], change["done"], change["claims"][-1]["verdict"]) == ("verified", True, None)
    await came(plane, *(plane.now + 60 + n for n in range(30)))
    plane.now += HOUR_S
    await plane.settle()
    change = await plane.call("changes.get", change_id=change_id)
    assert change["claims"][-1] | {"verified_at": None} == {
        "claim_id": claim["claim_id"], "verdict": "missed", "observed": 30, "verified_at": None,
    }  # fmt: skip
    assert (change["outcome"], change["reverted_by"]) == ("verified", None)


async def test_where_nothing_is_known_nothing_is_claimed_to_be(plane: Plane, monkeypatch: pytest.MonkeyPatch) -> None:
    """Too few hours: fidelity unknown, without any number; what came is told, and judged by nobody."""
    monkeypatch.setattr("controlplane.operations.views.time.time", lambda: plane.now)
    await with_hours(plane, 5)
    claim, change_id = await estimated(plane)
    assert (claim["fidelity"], claim["expected"]) == ("unknown", {"value": None, "low": None, "high": None})
    await came(plane, plane.now + 60)
    plane.now += HOUR_S
    await plane.settle()
    last = (await plane.call("changes.get", change_id=change_id))["claims"][-1]
    assert (last["verdict"], last["observed"]) == ("unverifiable", 1)


async def test_of_a_route_that_is_gone_nothing_can_be_said(plane: Plane) -> None:
    await with_hours(plane, 9, 4, 16)
    _, change_id = await estimated(plane)
    await plane.delete("Route", "alarms")
    plane.now += HOUR_S
    await plane.settle()
    last = (await plane.call("changes.get", change_id=change_id))["claims"][-1]
    assert (last["verdict"], last["observed"]) == ("unverifiable", None)


def test_a_band_is_as_wide_as_the_hours_before_and_chance() -> None:
    assert band((1, 2)) is None
    assert band((0, 0, 0)) == (0, 0, 2)
    assert band((100, 90, 120)) == (100, 70, 142)
