"""What a spec watches becomes records, follows the spec, and leaves with it."""

from typing import Any

import pytest

from schemas.problem import Refusal
from tests.operations.plane import Plane, agent, channel, fleet

pytestmark = pytest.mark.anyio
TIMERS = "SELECT name, cron, zone, missed, version, due_at FROM timer ORDER BY name"
PLACES = "SELECT watch, position, filter, debounce_s, batch_max FROM feedback_watch"
DAY = 86_400.0


async def test_times_follow_the_spec(plane: Plane) -> None:
    """A timer for each, due next in its zone; what is as it was keeps its time, what has changed is set anew."""
    daily = {"cron": "0 9 * * *", "zone": "Europe/Berlin", "name": "daily"}
    await plane.apply(agent("a", watches=[daily, {"cron": "* * * * *", "name": "often", "missed": "all"}]))
    first, often = await plane.rows(TIMERS)
    assert (first["name"], first["cron"], first["zone"], first["missed"]) == (
        "watch:daily", "0 9 * * *", "Europe/Berlin", "fire_once",
    )  # fmt: skip
    assert plane.now < first["due_at"] <= plane.now + DAY
    assert (often["zone"], often["missed"], often["due_at"] % 60) == ("UTC", "all", 0)
    plane.now += DAY * 2
    await plane.apply(agent("a", suspend_after_ms=5, watches=[daily, {"cron": "*/5 * * * *", "name": "often"}]))
    kept, changed = await plane.rows(TIMERS)
    assert kept == first
    assert (changed["version"], changed["missed"]) == (often["version"] + 1, "fire_once")
    assert changed["due_at"] > plane.now - 60
    await plane.apply(agent("a"))
    assert await plane.rows(TIMERS) == []


async def test_places_in_the_log_follow_the_spec(plane: Plane) -> None:
    """A place stays where it is while what is watched is the same; how it is delivered may change."""
    watched = {"types": ["turn.*"], "kind": "Agent"}
    await plane.apply(agent("a", watches=[{"feedback": watched}]))
    (place,) = await plane.rows(PLACES)
    (newest,) = await plane.rows("SELECT MAX(cursor) AS cursor FROM event")
    assert 0 < place["position"] <= newest["cursor"]
    assert place["filter"] == '{"kind":"Agent","name":null,"own":false,"types":["turn.*"]}'
    await plane.apply(agent("a", watches=[{"feedback": watched, "debounce_s": 5, "batch_max": 10}]))
    (same,) = await plane.rows(PLACES)
    assert same == {**place, "debounce_s": 5.0, "batch_max": 10}
    await plane.apply(agent("a", watches=[{"feedback": {**watched, "name": "b"}}]))
    (other,) = await plane.rows(PLACES)
    assert other["watch"] != place["watch"]
    assert other["position"] > place["position"]
    await plane.apply(agent("a"))
    assert await plane.rows(PLACES) == []


async def test_how_a_channel_is_delivered_follows_the_spec(plane: Plane) -> None:
    """Window and batches are the subscription's; its position stays."""
    await plane.apply(channel("news"), agent("a", watches=[{"channel": "news", "start": "beginning"}]))
    query = "SELECT position, debounce_s, batch_max FROM subscription"
    (before,) = await plane.rows(query)
    assert (before["debounce_s"], before["batch_max"]) == (0.0, 1)
    await plane.apply(agent("a", watches=[{"channel": "news", "debounce_s": 2.5, "batch_max": 7}]))
    assert await plane.rows(query) == [{**before, "debounce_s": 2.5, "batch_max": 7}]


async def test_agents_of_a_fleet_watch_each_for_itself(plane: Plane) -> None:
    """And nothing is left of it when they go."""
    watched = [{"cron": "0 9 * * *", "name": "daily"}, {"feedback": {}}]
    await plane.apply(fleet("zoo", 3, watches=watched))
    assert len(await plane.rows(TIMERS)) == len(await plane.rows(PLACES)) == 3
    await plane.apply(fleet("zoo", 1, watches=watched[:1]))
    assert (len(await plane.rows(TIMERS)), await plane.rows(PLACES)) == (1, [])
    await plane.delete("Fleet", "zoo")
    assert await plane.rows(TIMERS) == []


@pytest.mark.parametrize(
    ("watched", "reason", "field"),
    [
        ([{"cron": "* * *", "name": "x"}], "INVALID_VALUE", "/0/cron"),
        ([{"cron": "0 0 30 2 *", "name": "x"}], "INVALID_VALUE", "/0/cron"),
        ([{"cron": "0 9 * * *", "name": "x", "zone": "Europe/Atlantis"}], "INVALID_VALUE", "/0/zone"),
        ([{"cron": "0 9 * * *", "name": "x", "missed": "never"}], "INVALID_VALUE", "/0/missed"),
        ([{"cron": "0 9 * * *"}], "MISSING_FIELD", "/0/name"),
        ([{"cron": "0 9 * * *", "name": "x", "debounce_s": 1}], "UNKNOWN_FIELD", "/0/debounce_s"),
        ([{"feedback": {"typo": 1}}], "UNKNOWN_FIELD", "/0/feedback/typo"),
        ([{"feedback": {}, "batch_max": 101}], "OUT_OF_RANGE", "/0/batch_max"),
        ([{"channel": "news", "debounce_s": -1}], "OUT_OF_RANGE", "/0/debounce_s"),
        ([{"chanel": "news"}], "UNKNOWN_FIELD", "/0/chanel"),
        ([{}], "MISSING_FIELD", "/0/channel"),
        ([{"cron": "0 9 * * *", "name": "x"}, {"cron": "0 8 * * *", "name": "x"}], "INVALID_VALUE", ""),
    ],
)
async def test_what_makes_no_watch_is_refused(plane: Plane, watched: list[Any], reason: str, field: str) -> None:
    """With the place where it is wrong."""
    with pytest.raises(Refusal) as refused:
        await plane.propose(agent("a", watches=watched))
    found = refused.value.problem
    assert (found.reason, found.field) == (reason, f"/manifests/0/spec/watches{field}")
