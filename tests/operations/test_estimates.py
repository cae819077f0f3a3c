"""What is estimated of a route: its source's traffic, judged once and when its time is over, binding nothing."""

from itertools import product
from typing import Any

import orjson
import pytest

from controlplane.mesh.events import Happened, Place, matches
from controlplane.operations import sources
from controlplane.operations.hourly import HOUR_S, band
from controlplane.store import statements
from controlplane.store.store import Store
from controlplane.store.unit import Unit
from schemas.watch import EventsWatched
from tests.operations.plane import Plane, channel, connection, route

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


async def happened(plane: Plane, *told: tuple[str, str, str, str], at: float, by: str | None = None) -> None:
    """Events by type, kind, namespace and name."""
    unit = Unit()
    for type_, kind, namespace, name in told:
        unit.event(type_, kind=kind, namespace=namespace, name=name, now=at, principal=by, data={})
    assert await plane.store.write(unit)


async def test_events_are_estimated_by_those_that_the_route_would_be_given(
    plane: Plane, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of its namespace, of its types, and not its own; what came is told when the hour is over."""
    monkeypatch.setattr("controlplane.operations.views.time.time", lambda: plane.now)
    await plane.apply(channel("alarms"))
    began = plane.now
    for hour in range(3):
        at = began + 60 + hour * HOUR_S + 5
        for _ in range(hour + 4):
            await happened(plane, ("turn.failed", "Agent", "default", "some"), at=at)
        await happened(
            plane, ("turn.failed", "Agent", "elsewhere", "some"), ("turn.failed", "Agent", "default", "letters-0"),
            ("work.done", "Agent", "default", "some"), ("channel.gap", "Channel", "default", "some"), at=at,
        )  # fmt: skip
        await happened(plane, ("turn.failed", "Agent", "default", "other"), at=at, by="default/letters-0")
    plane.now = began + 60 + 3 * HOUR_S
    plan = await plane.propose(route("letters", source={"events": {"types": ["turn.*"], "kind": "Agent"}}))
    (claim,) = [it for it in plan["claims"] if not it["binding"]]
    assert (claim["fidelity"], claim["basis"], claim["expected"]["value"]) == ("estimated", "precedent", 6)
    change_id = (await plane.commit(plan))["change_id"]
    await plane.settle()
    await happened(plane, *[("turn.failed", "Agent", "default", "some")] * 5, at=plane.now + 60)
    plane.now += HOUR_S
    await plane.settle()
    last = (await plane.call("changes.get", change_id=change_id))["claims"][-1]
    assert (last["verdict"], last["observed"]) == ("held", 5)
    assert (await plane.call("routes.get", name="letters"))["status"]["source_per_hour"] == 5


async def test_where_too_much_happened_nothing_is_said(plane: Plane, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reads are bounded: what would take longer is unknown."""
    monkeypatch.setattr(sources.Bound.__init__, "__defaults__", (10,))
    await happened(plane, ("work.done", "Agent", "default", "some"), at=plane.now)
    plane.now += 4 * HOUR_S
    for at in (plane.now - 60, plane.now - HOUR_S - 60):
        await happened(plane, *[("work.done", "Agent", "default", "some")] * 6, at=at)
    plan = await plane.propose(route("all", source={"events": {}}))
    (claim,) = [it for it in plan["claims"] if not it["binding"]]
    assert (claim["fidelity"], claim["expected"]["value"]) == ("unknown", None)


async def test_what_is_counted_is_what_is_delivered(plane: Plane) -> None:
    """The condition in the database and the gate's are one, for each filter and each event."""
    events = list(product(
        ("turns.summary", "turn.failed", "turn", "turns_summary", "work.done"), ("Agent", "Channel"),
        ("watch-0", "other"), (None, "default/watch-0", "admin"),
    ))  # fmt: skip
    now = plane.now
    await happened(plane, ("begin", "Plane", "", "plane"), at=now - HOUR_S)
    for type_, kind, name, by in events:
        await happened(plane, (type_, kind, "default", name), at=now - 60, by=by)
    for types, about, name, own in product(
        ([], ["turn.*"], ["turns.*", "work.done"], ["turn.failed"], ["*"]), (None, "Channel"), (None, "watch-0"),
        (True, False),
    ):  # fmt: skip
        given = EventsWatched.model_validate({"types": types, "kind": about, "name": name, "own": own})
        wanted = given.model_dump(mode="json")
        place = Place("uid", "w", 0, 0, 0, "", 0, 1, "default", "watch-0", 0)
        heard = sum(
            matches(wanted, place, Happened(1, type_, 0, kind, whose, by, None, None, "{}", None))
            for type_, kind, whose, by in events
        )
        (found,) = await plane.store.read(
            lambda session, it=wanted: sources.brought(
                session, "default", "watch", {"events": it}, now, sources.Bound(), 1
            )
        )
        assert found == heard, wanted


POLL = {
    "connection": "shop", "statement": "SELECT id FROM item WHERE id >= :cursor ORDER BY id", "cursor": "id",
    "id": "id", "begin": 0, "cron": "*/5 * * * * *",
}  # fmt: skip


async def took(plane: Plane, *told: tuple[str, Any], at: float) -> None:
    """Turns of the worker of route `rows`: what triggered them, and the data."""
    (agent,) = await plane.rows("SELECT uid FROM agent WHERE name = 'rows-0'")
    unit = Unit()
    for n, (trigger, data) in enumerate(told):
        body = {
            "specversion": "1.0", "id": f"m{at}-{n}", "source": "/default/agents/rows-0", "type": "steward.message",
            "subject": "default/rows-0", "time": "2026-01-01T00:00:00Z", "datacontenttype": "application/json",
            "data": data,
        }  # fmt: skip
        values = [f"turn{at}-{n}", agent["uid"], f"m{at}-{n}", trigger, orjson.dumps(body).decode()]
        unit.raw(statements.TURN_OPEN, [*values, "committed", 1, 1, "", at, at, 0, 0, None, None, None], 1)
    assert await plane.store.write(unit)


async def test_of_a_poll_its_schedule_is_known_and_its_rows_are_by_those_that_came(
    plane: Plane, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A new one: how often it asks, and that its rows are not known. Another that reads the same: by what that got."""
    monkeypatch.setattr("controlplane.operations.views.time.time", lambda: plane.now)
    await plane.apply(connection("shop", protocol="sql", endpoint="sqlite:///shop.db"), channel("alarms"))
    plan = await plane.propose(route("rows", source={"poll": POLL}))
    (claim,) = [it for it in plan["claims"] if not it["binding"]]
    (note,) = [it for it in plan["notes"] if it["code"] == "POLLS"]
    assert (claim["fidelity"], claim["expected"]["value"]) == ("unknown", None)
    assert (note["data"], "not known" in note["message"]) == ({"polls_per_hour": 720, "hours_known": 0}, True)
    await plane.commit(plan)
    await plane.settle()
    began = plane.now
    for hour in range(3):
        rows = [("message", {"id": n}) for n in range(20 - hour)]
        await took(plane, ("timer", None), *rows, ("message", "more"), at=began + 60 + hour * HOUR_S)
    plane.now = began + 3 * HOUR_S + 1
    same = {**POLL, "begin": 7, "cron": "0 * * * *"}
    plan = await plane.propose(route("again", source={"poll": same}), route("rows", source={"poll": POLL}))
    claims = {it["subject"]["name"]: it for it in plan["claims"] if not it["binding"]}
    assert {name: it["expected"]["value"] for name, it in claims.items()} == {"again": 18, "rows": 18}
    notes = {it["subject"]["name"]: it for it in plan["notes"] if it["code"] == "POLLS"}
    assert {name: it["data"]["polls_per_hour"] for name, it in notes.items()} == {"again": 1, "rows": 720}
    assert notes["again"]["message"].endswith("estimated.")
    assert (await plane.call("routes.get", name="rows"))["status"]["source_per_hour"] == 18
    other = await plane.propose(route("rows", source={"poll": {**POLL, "statement": POLL["statement"] + " LIMIT 9"}}))
    (claim,) = [it for it in other["claims"] if not it["binding"]]
    assert claim["fidelity"] == "unknown", "what another statement brought says nothing of this one"
    state = '{"failing":{"since":1,"fault":"away","reason":"EFFECT_FAILED","detail":"x"}}'
    assert await plane.store.write(Unit().raw("UPDATE agent SET state = ? WHERE name = 'rows-0'", [state]))
    plan = await plane.propose(route("again", source={"poll": {**same, "begin": 8}}))
    (claim,) = [it for it in plan["claims"] if not it["binding"]]
    (note,) = [it for it in plan["notes"] if it["code"] == "POLLS"]
    assert (claim["fidelity"], note["data"]["failing"], note["data"]["hours_known"]) == ("unknown", "rows", 0)
    status = (await plane.call("routes.get", name="rows"))["status"]
    assert (status["source_per_hour"], status["poll_failing"]["fault"]) == (None, "away")
    await plane.apply(route("rows", source={"channel": "readings"}))
    assert (await plane.call("routes.get", name="rows"))["status"]["poll_failing"] is None, "it polls no more"
