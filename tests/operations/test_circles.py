"""Circles of routes that pass through agents: by who reads a channel, and by what was observed."""

from typing import Any

import pytest

from controlplane.operations import circles, loops
from controlplane.store.store import Store
from controlplane.store.unit import Unit
from schemas.principal import Principal
from tests.operations.plane import Plane, agent, channel, fleet, route

pytestmark = pytest.mark.anyio
IN = route("in", source={"channel": "orders"}, sink={"channel": "told"})
LETTERS = "message.dead_lettered"
PUT = (
    "INSERT INTO traffic (namespace, name, source, channel, messages, chars, wait_s, since, last)"
    " VALUES (?, ?, ?, ?, ?, 1, 0, ?, ?)"
)


@pytest.fixture
async def plane(quick_store: Store) -> Plane:
    return Plane(quick_store)


async def heard(
    plane: Plane, source: str, name: str, by: str = "", messages: int = 1, namespace: str = "default"
) -> None:
    """An agent was heard by another, as traffic is counted."""
    unit = Unit().raw(
        PUT, [namespace, name, f"/default/agents/{source}", by, messages, 1_700_000_000.0, 1_700_000_060.5]
    )
    assert await plane.store.write(unit)


def filtered(by: str) -> dict[str, Any]:
    """The same route as another proposal."""
    return {**IN, "spec": {**IN["spec"], "filter": by}}


def watching(name: str, *channels: str) -> dict[str, Any]:
    return agent(name, watches=[{"channel": it} for it in channels])


def found(plan: dict[str, Any], code: str = "LOOP_OBSERVED") -> dict[str, tuple[list[str], list[str], list[str]]]:
    """The circles that a plan tells of, by whom: routes, agents, types of events."""
    notes = [it for it in plan["notes"] if it["code"] == code]
    return {it["subject"]["name"]: (it["data"]["routes"], it["data"]["agents"], it["data"]["types"]) for it in notes}


async def test_an_agent_that_answers_into_the_source_is_told(plane: Plane) -> None:
    """It watches where the route leads, and was heard where the route reads: told with when and how often."""
    await plane.apply(channel("orders"), channel("told"), watching("clerk", "told"), watching("ear", "orders"))
    assert found(await plane.propose(IN)) == {}, "nothing was heard of the clerk"
    await heard(plane, "clerk", "ear", "orders", 7)
    await heard(plane, "clerk", "other", "orders", 5)
    plan = await plane.propose({**IN, "metadata": {"namespace": "default", "name": "in", "labels": {"a": "b"}}})
    assert found(plan) == {"in": (["in"], ["clerk"], [])}
    assert found(plan, "LOOP") == {}
    (note,) = [it for it in plan["notes"] if it["code"] == "LOOP_OBSERVED"]
    assert note["data"]["channels"] == ["told", "orders"]
    assert note["data"]["observed"] == [
        {"agent": "clerk", "channel": "orders", "by": None, "messages": 7,
         "since": "2023-11-14T22:13:20Z", "last": "2023-11-14T22:14:20.500000Z"},
    ]  # fmt: skip
    assert "in -> told -> clerk -> orders -> in" in note["message"]
    assert (await plane.commit(plan))["outcome"] == "committed"


async def test_it_goes_over_further_agents_and_routes(plane: Plane) -> None:
    """An agent tells another straight, that one a channel, which another route leads to the first; by a sink, too."""
    await plane.apply(
        watching("clerk", "told"), channel("mid"), route("on", source={"channel": "mid"}, sink={"channel": "orders"})
    )
    await heard(plane, "clerk", "boss")
    await heard(plane, "boss", "ear", "mid")
    assert found(await plane.propose(IN)) == {"in": (["in", "on"], ["clerk", "boss"], [])}
    handed = route("hands", source={"channel": "orders"}, sink={"agent": "boss"})
    assert found(await plane.propose(handed)) == {"hands": (["hands", "on"], ["boss"], [])}
    away = route("on", source={"channel": "mid"}, sink={"channel": "else"})
    assert found(await plane.propose(IN, away)) == {}, "by what is proposed beside it, nothing leads back"


async def test_what_was_heard_and_leads_nowhere_is_no_circle(plane: Plane) -> None:
    """Agents that talk with each other, a worker's messages to itself, and what goes straight to a worker."""
    await plane.apply(watching("clerk", "told"), IN)
    await heard(plane, "clerk", "in-0")
    await heard(plane, "clerk", "clerk")
    await heard(plane, "in-0", "in-0")
    await heard(plane, "clerk", "boss")
    await heard(plane, "boss", "clerk")
    assert found(await plane.propose(filtered("true"))) == {}
    assert found(await plane.propose(watching("clerk", "told", "more"))) == {}


async def test_a_watch_that_closes_a_circle_is_told(plane: Plane) -> None:
    """Of an agent and of a fleet that were heard before; one that was not costs one query."""
    await plane.apply(agent("clerk"), fleet("crew", 2), IN)
    await heard(plane, "clerk", "in-0", "orders")
    assert found(await plane.propose(watching("clerk", "told"))) == {"clerk": (["in"], ["clerk"], [])}
    assert found(await plane.propose(watching("clerk", "else"))) == {}
    await heard(plane, "crew-1", "in-0", "orders")
    crew = fleet("crew", 2, watches=[{"channel": "told"}])
    assert found(await plane.propose(crew)) == {"crew": (["in"], ["crew-1"], [])}
    both = await plane.propose(
        route("in", source={"channel": "orders"}, sink={"channel": "new"}), watching("clerk", "new")
    )
    assert found(both) == {"in": (["in"], ["clerk"], []), "clerk": (["in"], ["clerk"], [])}


async def test_events_about_who_watches_are_possible_and_what_was_heard_is_observed(plane: Plane) -> None:
    """Letters into a channel that an agent watches: its own come back. Over an agent that was heard: observed."""
    letters = route("letters", source={"events": {"types": [LETTERS]}}, sink={"channel": "told"})
    await plane.apply(watching("clerk", "told"))
    plan = await plane.propose(letters)
    assert found(plan, "LOOP") == {"letters": (["letters"], ["clerk"], [LETTERS])}
    only = route("letters", source={"events": {"types": [LETTERS], "name": "boss"}}, sink={"channel": "told"})
    assert found(await plane.propose(only), "LOOP") == {}
    await heard(plane, "clerk", "boss")
    plan = await plane.propose({**only, "spec": {**only["spec"], "filter": "true"}})
    assert found(plan, "LOOP") == {}
    assert found(plan) == {"letters": (["letters"], ["clerk", "boss"], [LETTERS])}


async def test_nothing_of_another_namespace_is_followed(plane: Plane) -> None:
    """Neither who was heard there, nor who of there reads a channel; not for one who reaches both either: others read
    the plan."""
    await plane.apply(watching("clerk", "told"), agent("spy", namespace="other"))
    await heard(plane, "clerk", "spy", namespace="other")
    unit = Unit().raw(PUT, ["default", "ear", "/other/agents/spy", "orders", 1, 1.0, 2.0])
    assert await plane.store.write(unit)
    plan = await plane.propose(IN, principal=Principal("ann", "operator", ("default",)))
    assert found(plan) == {}
    assert "spy" not in str(await plane.propose(IN))


async def test_no_more_is_read_than_a_bound(plane: Plane, monkeypatch: pytest.MonkeyPatch) -> None:
    """A circle beyond so many levels, so many records, or so many steps, is not found."""
    await plane.apply(watching("clerk", "told"))
    await heard(plane, "clerk", "ear", "orders")
    assert found(await plane.propose(IN)) != {}
    monkeypatch.setattr(circles, "LEVELS_MAX", 2)
    assert found(await plane.propose(filtered("1 < 2"))) == {}
    monkeypatch.setattr(circles, "LEVELS_MAX", 40)
    monkeypatch.setattr(circles, "RECORDS_MAX", 1)
    assert found(await plane.propose(filtered("1 < 3"))) == {}
    monkeypatch.setattr(circles, "RECORDS_MAX", 5_000)
    monkeypatch.setattr(loops, "STEPS_MAX", 3)
    assert found(await plane.propose(filtered("1 < 4"))) == {}
    monkeypatch.setattr(loops, "STEPS_MAX", 4)
    assert found(await plane.propose(filtered("1 < 5"))) != {}
