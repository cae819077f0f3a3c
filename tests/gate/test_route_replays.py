"""Routes that read their sources again: holes are filled, repeats are meant, a newer replay goes before an older."""

import time
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from controlplane.mesh.again import Again
from controlplane.mesh.delivery import Lagging
from controlplane.mesh.events import Place
from controlplane.operations.living import places
from schemas.problem import Refusal
from tests.gate.routed import POLL, apply, came, ended, publish, read, routed
from tests.gate.running import RunningGate
from tests.gate.test_moving import step
from tests.operations.plane import Plane, channel, route
from tests.protocols.database import Database, database

pytestmark = pytest.mark.anyio
ALL = route("all", source={"channel": "orders"}, sink={"channel": "done"})
PLACES = (
    "SELECT channel, position FROM subscription JOIN agent ON agent.uid = subscription.agent"
    " UNION ALL SELECT watch, position FROM feedback_watch"
)
SOLD = {
    "effect": "sql.execute",
    "connection": "shop",
    "arguments": {"statement": "UPDATE item SET stock = stock + 1 WHERE id = :id"},
}


@pytest.fixture
async def far(anyio_backend: str, tmp_path: Path) -> AsyncIterator[Database]:
    (tmp_path / "far").mkdir()
    async with database("sqlite", tmp_path / "far", None) as found:
        yield found


async def replay(plane: Plane, name: str, **given: Any) -> dict[str, Any]:
    """The replay once its change is done, which was verified."""
    answered = await plane.call("routes.replay", name=name, **given)
    change = await ended(plane, answered["change_id"])
    assert change["outcome"] == "verified", change
    found = await plane.call("routes.get", name=name)
    again: dict[str, Any] = found["status"]["replay"]
    assert again["replay_id"] == answered["replay"]["replay_id"]
    return again


async def test_holes_are_filled_and_nothing_is_doubled(database_url: str, far: Database) -> None:
    """What came before the route was there is passed on; what it has passed on already is not, unless it is meant."""
    async with routed(database_url, far) as (gate, plane):
        for n in range(3):
            await publish(gate, "orders", n, n)
        await apply(plane, ALL)
        for n in range(3, 5):
            await publish(gate, "orders", n, n)
        assert await came(gate, "done", 2) == [3, 4]
        told = await plane.call("routes.replay", name="all", dry_run=True)
        assert "5 messages" in told["would"][0]
        assert (told["claims"][0]["fidelity"], told["steps"][0]["action"]) == ("estimated", "replay")
        again = await replay(plane, "all")
        assert (again["state"], again["keys"], again["total"], again["left"]) == ("done", "same", 5, 0)
        assert await came(gate, "done", 5) == [3, 4, 0, 1, 2]
        await publish(gate, "orders", 5, 5)
        assert await came(gate, "done", 6) == [3, 4, 0, 1, 2, 5]
        again = await replay(plane, "all", after="3", keys="new")
        assert again["total"] == 3
        assert await came(gate, "done", 9) == [3, 4, 0, 1, 2, 5, 3, 4, 5], "a repeat that is meant"
        nothing = await plane.call("routes.replay", name="all", after="6")
        assert nothing["change_id"] is None
        status = (await plane.call("routes.get", name="all"))["status"]
        assert (status["passed"], status["filtered"], status["dead"], status["behind"]) == (9, 0, 0, 0)
        assert status["last_at"] is not None


async def test_a_sink_that_honours_keys_is_not_done_twice(quick_url: str, far: Database) -> None:
    """Also where the turns are off record by now, which is what keys are for; under new keys it is."""
    async with routed(quick_url, far) as (gate, plane):
        sales = route("sales", source={"channel": "orders"}, sink=SOLD, transform='{"parameters": {"id": n}}',
                      reply={"channel": "replies"})  # fmt: skip
        await apply(plane, sales)
        await publish(gate, "orders", 1, {"n": 7})
        await came(gate, "replies", 1)
        before = far.do("SELECT stock FROM item WHERE id = 7")[0][0]
        await forget_turns(gate)
        await replay(plane, "sales")
        await publish(gate, "orders", 2, {"n": 8})
        assert len(await came(gate, "replies", 2)) == 2
        assert far.do("SELECT stock FROM item WHERE id = 7") == [(before,)]
        await replay(plane, "sales", keys="new")
        await came(gate, "replies", 4)
        assert far.do("SELECT stock FROM item WHERE id = 7") == [(before + 1,)]
        last = (await read(gate, "replies"))[-2]
        assert last["causationid"].startswith("msg_"), "another message, because of the one that it repeats"


async def forget_turns(gate: RunningGate) -> None:
    """As retention does in time."""
    from controlplane.store.unit import Unit

    unit = Unit().raw("DELETE FROM journal", []).raw("DELETE FROM turn WHERE \"trigger\" = 'message'", [])
    assert await gate.store.write(unit)


async def test_paused_overtaken_and_cancelled(quick_url: str, far: Database) -> None:
    """It is begun while the route is paused; a newer one takes its place; cancelled, the route goes on where it was."""
    async with routed(quick_url, far, inbox_messages_max=2) as (gate, plane):
        await apply(plane, ALL)
        for n in range(6):
            await publish(gate, "orders", n, n)
        await came(gate, "done", 6)
        await plane.call("routes.pause", name="all")
        for n in range(6, 9):
            await publish(gate, "orders", n, n)
        await gate.until("SELECT 1 FROM inbox", lambda rows: len(rows) == 2)  # it is full: nothing is delivered
        first = await plane.call("routes.replay", name="all", keys="new")
        assert (await ended(plane, first["change_id"]))["outcome"] == "verified", "that it was begun is all it claims"
        assert first["replay"]["state"] == "running"
        second = await plane.call("routes.replay", name="all", after="4", keys="new")
        assert second["replay"]["replay_id"] != first["replay"]["replay_id"]
        third = await plane.call("routes.replay", name="all", cancel=True)
        assert third["replay"]["state"] == "cancelled"
        assert (await ended(plane, third["change_id"]))["outcome"] == "verified"
        await plane.call("routes.resume", name="all")
        await publish(gate, "orders", 9, 9)
        assert await came(gate, "done", 10) == list(range(10))
        assert (await plane.call("routes.replay", name="all", cancel=True))["change_id"] is None


async def test_a_route_that_goes_on_meanwhile_is_set_back_and_goes_on_from_there(
    quick_url: str, far: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What comes between the look and the unit, as it does at all times on a busy route: nothing of it comes twice."""

    def behind(*given: Any) -> Any:
        source, back = look(*given)
        return replace(source, position=source.position - 1), back

    look = places.look
    async with routed(quick_url, far, inbox_messages_max=2) as (gate, plane):
        log = route("log", source={"events": {"types": ["resource.created"], "kind": "Channel"}},
                    transform="$.subject.name", sink={"channel": "replies"})  # fmt: skip
        await apply(plane, ALL, log)
        for n in range(4):
            await publish(gate, "orders", n, n)
        await apply(plane, channel("made"))
        assert await came(gate, "done", 4) == [0, 1, 2, 3]
        assert await came(gate, "replies", 1) == ["made"]
        monkeypatch.setattr(places, "look", behind)
        was = dict(await gate.rows(PLACES))
        await replay(plane, "all", after="0", keys="new")
        await replay(plane, "log", keys="new")
        assert await came(gate, "done", 8) == [0, 1, 2, 3] * 2
        kept = dict(await gate.rows("SELECT source, resume_position FROM replay"))
        assert all(kept[source] >= position for source, position in was.items() if source in kept)
        await plane.call("routes.pause", name="all")
        for n in (4, 5):
            await publish(gate, "orders", n, n)
        await gate.until("SELECT 1 FROM inbox", lambda rows: len(rows) == 2)  # it is full: nothing is delivered
        await plane.call("routes.replay", name="all", after="2", keys="new")
        answered = await plane.call("routes.replay", name="all", cancel=True)
        assert answered["replay"]["state"] == "cancelled"
        await plane.call("routes.resume", name="all")
        await publish(gate, "orders", 6, 6)
        assert (await came(gate, "done", 11))[8:] == [4, 5, 6]


async def test_what_retention_took_is_told_as_a_gap(quick_url: str, far: Database) -> None:
    """In the plan, in the status, and in the log; the sink hears nothing of it."""
    async with routed(quick_url, far) as (gate, plane):
        await apply(plane, ALL)
        for n in range(4):
            await publish(gate, "orders", n, n)
        await came(gate, "done", 4)
        from controlplane.store.unit import Unit

        taken = "DELETE FROM channel_message WHERE message_id IN ('orders0', 'orders1')"
        assert await gate.store.write(Unit().raw(taken, []))
        told = await plane.call("routes.replay", name="all", after="0", keys="new", dry_run=True)
        assert any("positions 1 to 2" in it for it in told["would"])
        again = await replay(plane, "all", after="0", keys="new")
        assert (again["gap"], again["total"]) == ({"first": "1", "last": "2"}, 2)
        assert await came(gate, "done", 6) == [0, 1, 2, 3, 2, 3]
        assert await gate.rows("SELECT 1 FROM dead_letter") == []


async def test_events_and_polls_are_read_again_under_new_keys(quick_url: str, far: Database) -> None:
    """They have no keys that stay, which is said; a time, and a value of the column, say from where."""
    async with routed(quick_url, far) as (gate, plane):
        await apply(
            plane,
            route("log", source={"events": {"types": ["resource.created"], "kind": "Channel"}},
                  transform="$.subject.name", sink={"channel": "done"}),
            route("rows", source={"poll": POLL}, transform="id", filter="data.stock >= 7", sink={"channel": "replies"}),
        )  # fmt: skip
        plane.now = max(plane.now, time.time())  # as the gate's clock, by which the log is in order
        await apply(plane, channel("made"))
        assert await came(gate, "done", 1) == ["made"]
        made = await gate.rows("SELECT time FROM event WHERE type = 'resource.created' AND name = 'made'")
        begun = datetime.fromtimestamp(made[0][0] - 0.00001, UTC)
        assert await came(gate, "replies", 3) == [7, 8, 9]
        for name in ("log", "rows"):
            with pytest.raises(Refusal) as unsaid:
                await plane.call("routes.replay", name=name)
            assert unsaid.value.problem.field == "/keys"
            assert unsaid.value.problem.next[0].arguments["keys"] == "new"
        with pytest.raises(Refusal) as unfit:
            await plane.call("routes.replay", name="log", after="1", keys="new")
        assert unfit.value.problem.field == "/after"
        await replay(plane, "log", since=begun.isoformat(), keys="new")
        assert (await came(gate, "done", 2))[1:] == ["made"]
        await apply(plane, channel("later"))
        assert (await came(gate, "done", 3))[2:] == ["later"]
        await replay(plane, "rows", value=8, keys="new")
        assert await came(gate, "replies", 5) == [7, 8, 9, 8, 9]
        far.do("INSERT INTO item VALUES (10, 'item 10', 10)")
        assert await came(gate, "replies", 6) == [7, 8, 9, 8, 9, 10]


async def test_a_poll_that_does_not_go_back_is_not_claimed_to(quick_url: str, far: Database) -> None:
    """Its worker alone knows the place: of a value that lies ahead, or is of another type, nothing is read again."""
    async with routed(quick_url, far) as (gate, plane):
        await apply(plane, route("rows", source={"poll": POLL}, transform="id", sink={"channel": "replies"}))
        assert len(await came(gate, "replies", 2)) >= 2
        for n, value in enumerate((1_000_000, "b"), start=1):
            answered = await plane.call("routes.replay", name="rows", value=value, keys="new")
            await gate.until("SELECT 1 FROM dead_letter", lambda rows, n=n: len(rows) == n)
            await step(plane)
            change = await plane.call("changes.get", change_id=answered["change_id"])
            assert change["claims"][0]["verdict"] is None, change
            plane.now += 61
            assert (await ended(plane, answered["change_id"]))["outcome"] != "verified"


async def test_what_names_no_place_is_refused(quick_url: str, far: Database) -> None:
    async with routed(quick_url, far) as (_, plane):
        queued = route("queued", source={"channel": "jobs"}, sink={"channel": "done"})
        await apply(plane, ALL, channel("jobs", mode="queue"), queued)
        for name, given, field in (
            ("all", {"after": "99"}, "/after"),
            ("all", {"after": "0", "since": "2026-01-01T00:00:00Z"}, "/since"),
            ("all", {"value": 1}, "/value"),
            ("all", {"cancel": True, "keys": "new"}, "/cancel"),
            ("queued", {}, "/name"),
            ("absent", {}, "/name"),
        ):
            with pytest.raises(Refusal) as found:
                await plane.call("routes.replay", name=name, **given)
            assert found.value.problem.field == field
        await step(plane)


def test_a_replay_of_before_says_nothing_to_who_joined_anew() -> None:
    """A route that left its source and came back stands behind what an old replay was to read."""
    member = Lagging("c", "a", 3, 12, 0.0, 1, "default", "orders", "all-0", 4, None, "replay_1", "new", 5, 9)
    assert member.again == Again("a", "replay_1", 5, 9, "default", "all")
    assert member._replace(position=5).again is None
    place = Place("a", "w", 3, 0, 0.0, "{}", 0.0, 1, "default", "all-0", 3, "replay_1", 5, 9)
    assert place.again is not None
    assert place.behind
    assert not place._replace(position=5, last=5).behind
