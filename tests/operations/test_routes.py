"""Routes, as they are proposed: what is refused, drafted, told; and the agent that a committed one makes."""

from typing import Any

import pytest

from controlplane.operations.workers import DIGEST
from controlplane.store.store import Store
from schemas.problem import Refusal
from tests.operations.plane import Plane, agent, channel, connection, route

pytestmark = pytest.mark.anyio
READING = {
    "type": "object",
    "properties": {"celsius": {"type": "number"}, "where": {"type": "string"}, "note": {"type": "string"}},
    "required": ["celsius", "where"],
    "additionalProperties": False,
}
ALARM = {
    "type": "object",
    "properties": {"celsius": {"type": "integer"}, "where": {"type": "string"}},
    "required": ["celsius", "where"],
    "additionalProperties": False,
}


@pytest.fixture
async def plane(quick_store: Store) -> Plane:
    return Plane(quick_store)


async def refused(plane: Plane, *manifests: dict[str, Any]) -> tuple[str, str | None]:
    with pytest.raises(Refusal) as found:
        await plane.propose(*manifests)
    return found.value.problem.reason, found.value.problem.field


REFUSED: list[tuple[dict[str, Any], str, str]] = [
    ({"filter": "data.x >"}, "INVALID_VALUE", "filter"),
    ({"filter": "other.x > 1"}, "INVALID_VALUE", "filter"),
    ({"filter": "now() > data.x"}, "INVALID_VALUE", "filter"),
    ({"filter": "result.x > 1"}, "INVALID_VALUE", "filter"),
    ({"transform": "{"}, "INVALID_VALUE", "transform"),
    ({"transform": '{"at": $now()}'}, "INVALID_VALUE", "transform"),
    ({"transform": "($f := $random; $f())"}, "INVALID_VALUE", "transform"),
    ({"transform": "$eval('$now()')"}, "INVALID_VALUE", "transform"),
    ({"filter": "data.x > 1", "samples": [{"x": 2}, {"y": 2}]}, "INVALID_VALUE", "samples/1"),
    ({"transform": "(  $f := function($x){ $f($x) + 1 }; $f(1) )", "samples": [1]}, "INVALID_VALUE", "samples/0"),
    ({"transform": '$pad("x", 2000000000)', "samples": [1]}, "INVALID_VALUE", "samples/0"),
    ({"transform": "$contains($, /(a+)+$/)", "samples": ["a" * 99 + "!"]}, "INVALID_VALUE", "samples/0"),
    ({"sink": {"effect": "no.such"}}, "UNKNOWN_EFFECT", "sink/effect"),
    ({"sink": {"effect": "no.such", "attempts_max": 7.0}}, "UNKNOWN_EFFECT", "sink/effect"),
    ({"sink": {"effect": "machine.read", "attempts_max": 11}}, "OUT_OF_RANGE", "sink/attempts_max"),
    ({"sink": {"effect": "machine.read", "more": 1}}, "UNKNOWN_FIELD", "sink/more"),
    ({"sink": {"effect": "http.request"}}, "INVALID_VALUE", "sink/connection"),
    ({"sink": {"effect": "machine.read", "connection": "far"}}, "INVALID_VALUE", "sink/connection"),
    ({"sink": {"effect": "sql.execute", "connection": "far"}}, "INVALID_VALUE", "sink/connection"),
    ({"sink": {"effect": "machine.read", "accept": "data.x"}}, "INVALID_VALUE", "sink/accept"),
    ({"sink": {"effect": "machine.read"}, "samples": [{"what": "no such"}]}, "SCHEMA_MISMATCH", "samples/0"),
    ({"sink": {"effect": "machine.read"}, "transform": "1", "samples": [1]}, "SCHEMA_MISMATCH", "samples/0"),
    ({"sink": {"channel": "readings"}}, "ROUTE_LOOP", "sink"),
    ({"source": {"channel": "alarms-0"}}, "INVALID_NAME", ""),
]


@pytest.mark.parametrize(("spec", "reason", "field"), REFUSED)
async def test_what_could_not_work_is_refused(plane: Plane, spec: dict[str, Any], reason: str, field: str) -> None:
    """Expressions, samples, effects, connections and circles are looked at before anything is committed."""
    await plane.apply(connection("far"))
    found = await refused(plane, route("alarms", **spec))
    place = f"/manifests/0/spec/{field}" if field else "/manifests/0/metadata/name"
    assert found == (reason, place)


async def test_shapes_that_differ_get_a_transform(plane: Plane) -> None:
    """It is drafted from both schemas, stands in the plan, and the plan says what gets lost, promised, expected."""
    await plane.apply(channel("readings", dataschema=READING), channel("alarms", dataschema=ALARM))
    plan = await plane.propose(route("alarms", samples=[{"celsius": 1.5, "where": "a"}]))
    drafted = '{"celsius": $round(`celsius`), "where": `where`}'
    assert plan["steps"][0]["changes"][0]["after"]["transform"] == drafted
    notes = {it["code"]: it for it in plan["notes"]}
    assert notes.keys() == {"DRAFTED", "DROPPED", "NARROWED", "GUARANTEE"}
    assert notes["DROPPED"]["data"] == {"fields": ["note"]}
    assert notes["GUARANTEE"]["data"] == {"weakest": "exactly_once"}
    (traffic,) = [it for it in plan["claims"] if not it["binding"]]
    assert (traffic["fidelity"], traffic["expected"]["value"]) == ("unknown", None), "of a channel of this moment"
    other = channel("alarms", dataschema={**ALARM, "required": ["celsius", "level"], "properties": {
        "celsius": {"type": "integer"}, "level": {"type": "string"}}})  # fmt: skip
    assert await refused(plane, other, route("alarms")) == ("SCHEMA_MISMATCH", "/manifests/1/spec/transform")
    bad = route("alarms", transform='{"celsius": "hot", "where": where}', samples=[{"celsius": 1, "where": "a"}])
    assert await refused(plane, bad) == ("SCHEMA_MISMATCH", "/manifests/0/spec/samples/0")
    assert await refused(plane, route("alarms", samples=[{"where": "a"}])) == (
        "SCHEMA_MISMATCH", "/manifests/0/spec/samples/0",
    )  # fmt: skip


async def test_the_weakest_guarantee_is_told(plane: Plane) -> None:
    """By what the far side of the effect promises."""
    keyed = {"idempotency_header": "Idempotency-Key", "key_lifetime_s": 60}
    sql = {"protocol": "sql", "endpoint": "sqlite:///shop.db"}
    manifests = [
        connection("keyed", options=keyed), connection("bare"), connection("shop", **sql),
        connection("logged", **sql, options={"keys_table": "keys"}),
    ]  # fmt: skip
    await plane.apply(*manifests)
    found = {}
    for name, effect in (
        ("keyed", "http.request"), ("bare", "http.request"), ("shop", "sql.execute"), ("logged", "sql.execute"),
        ("shop", "sql.query"),
    ):  # fmt: skip
        plan = await plane.propose(route("it", sink={"effect": effect, "connection": name}))
        found[name, effect] = next(it["data"]["weakest"] for it in plan["notes"] if it["code"] == "GUARANTEE")
        assert not [it for it in plan["waits_on"] if it["subject"]["kind"] == "Connection"]
    assert list(found.values()) == ["once_by_key", "at_most_once", "at_most_once", "once_by_key", "once_by_key"]
    plan = await plane.propose(route("it", sink={"effect": "http.request", "connection": "absent"}))
    assert {it["reason"] for it in plan["waits_on"]} == {"CONNECTION_ABSENT"}  # the channel is made by its first use


async def test_circles_are_found_over_several_routes(plane: Plane) -> None:
    """Those of one proposal, those that are there, and over replies; a commit sees what came meanwhile."""

    def leads(name: str, begin: str, end: str) -> dict[str, Any]:
        return route(name, source={"channel": begin}, sink={"channel": end})

    await plane.apply(leads("one", "a", "b"), leads("two", "b", "c"))
    assert await refused(plane, leads("three", "c", "a")) == ("ROUTE_LOOP", "/manifests/0/spec/sink")
    answers = route("three", source={"channel": "c"}, sink={"agent": "x"}, reply={"channel": "a"})
    assert await refused(plane, answers) == ("ROUTE_LOOP", "/manifests/0/spec/sink")
    assert (await refused(plane, leads("x", "p", "q"), leads("y", "q", "p")))[0] == "ROUTE_LOOP"
    plan = await plane.propose(leads("three", "c", "d"))
    await plane.apply(leads("four", "d", "a"))
    assert (await plane.commit(plan))["outcome"] == "stale", "it would close a circle by now"
    await plane.apply(leads("two", "b", "e"), leads("three", "c", "a"))


def loops(plan: dict[str, Any]) -> dict[str, tuple[list[str], list[str]]]:
    """The circles that a plan tells of, by the route: which routes, and by what events."""
    notes = [it for it in plan["notes"] if it["code"] == "LOOP"]
    return {it["subject"]["name"]: (it["data"]["routes"], it["data"]["types"]) for it in notes}


def hears(route_name: str, sink: dict[str, Any], *types: str, **more: Any) -> dict[str, Any]:
    return route(route_name, source={"events": {"types": list(types), **more}}, sink=sink)


LETTERS = "message.dead_lettered"


async def test_circles_over_events_are_told_and_not_refused(plane: Plane) -> None:
    """What the work of a route may make, and another takes; by channels between them, and by those that are there."""
    await plane.apply(channel("told"), channel("else"), connection("far"))
    post = {"effect": "http.request", "connection": "far"}
    alone = hears("letters", {"channel": "told"}, LETTERS)
    assert loops(await plane.propose(alone)) == {}, "a channel that letters are told in makes none"
    await plane.apply(alone)
    onward = route("onward", source={"channel": "told"}, sink=post)
    assert loops(await plane.propose(onward)) == {"onward": (["onward", "letters"], [LETTERS])}
    both = await plane.propose(alone, onward)
    assert loops(both)["letters"] == (["letters", "onward"], [LETTERS])
    await plane.apply(onward)
    middle = route("middle", source={"channel": "else"}, sink={"channel": "told"})
    assert loops(await plane.propose(middle)) == {}, "no way leads back to it"
    assert loops(await plane.propose(hears("letters", {"channel": "else"}, LETTERS), middle)) == {
        "letters": (["letters", "middle"], [LETTERS]),
        "middle": (["middle", "letters"], [LETTERS]),
    }
    plan = await plane.propose({**alone, "metadata": {"namespace": "other", "name": "letters"}})
    assert loops(plan) == {}, "events are of the route's own namespace"


HEARD: list[tuple[dict[str, Any], list[str]]] = [
    (hears("one", {"effect": "machine.read"}, LETTERS), []),
    (hears("one", {"effect": "machine.read"}, LETTERS, own=True), [LETTERS]),
    (hears("one", {"agent": "x"}, "turn.*"), ["turn.failed"]),
    (hears("one", {"agent": "x"}, "turn.*", name="x"), ["turn.failed"]),
    (hears("one", {"agent": "x"}, "turn.*", name="y"), []),
    (hears("one", {"agent": "x"}, "turn.*", kind="Channel"), []),
    (hears("one", {"agent": "x"}, "resource.*", "change.*"), []),
    (hears("one", {"agent": "x"}, "turns.summary"), ["turns.summary"]),
]


@pytest.mark.parametrize(("manifest", "types"), HEARD)
async def test_a_route_that_hears_of_its_own_work_is_told(
    plane: Plane, manifest: dict[str, Any], types: list[str]
) -> None:
    """Of its own worker only if it says so; of the agent that it hands on to in any case."""
    assert loops(await plane.propose(manifest)) == ({"one": (["one"], types)} if types else {})


async def test_two_that_hear_of_each_other_are_told(plane: Plane) -> None:
    """Each fails, and the other hears of it. Many routes cost a moment."""
    sink = {"effect": "machine.read"}
    plan = await plane.propose(hears("one", sink, LETTERS), hears("two", sink, "message.*"))
    assert loops(plan) == {"one": (["one", "two"], [LETTERS]), "two": (["two", "one"], [LETTERS])}
    await plane.apply(*(hears(f"r{n}", sink, LETTERS, name=f"r{n + 1}-0") for n in range(100)))
    closed = await plane.propose(hears("r100", sink, LETTERS, name="r0-0"))
    assert len(loops(closed)["r100"][0]) == 101


async def test_a_route_is_done_by_an_agent_of_its_own(plane: Plane) -> None:
    """It watches the source, may do what the sink needs, belongs to the route, and goes with it."""
    await plane.apply(channel("readings"), connection("far"))
    sink = {"effect": "http.request", "connection": "far", "arguments": {"method": "POST"}}
    await plane.apply(route("alarms", sink=sink))
    worker = await plane.call("agents.get", name="alarms-0")
    assert worker["metadata"]["owner"] == {"kind": "Route", "namespace": "default", "name": "alarms"}
    assert worker["spec"]["code"] == {"files": None, "digest": DIGEST}
    assert worker["spec"]["mandate"]["grants"] == [{"effect": "http.request", "connection": "far"}]
    assert [it["channel"] for it in worker["spec"]["watches"]] == ["readings"]
    found = await plane.call("routes.get", name="alarms")
    assert {it["type"]: it["status"] for it in found["status"]["conditions"]} == {"Ready": "true", "Paused": "false"}
    assert await refused(plane, agent("alarms-0")) == ("OWNED", "/manifests/0/metadata/name")
    with pytest.raises(Refusal) as held:
        await plane.call("channels.delete", name="readings")
    assert held.value.problem.metadata["watchers"] == ["Route/alarms"]
    both = await plane.apply(channel("others"), route("other", source={"channel": "others"}))
    back = await plane.call("changes.revert", change_id=both["change_id"])
    kinds = [it["target"]["kind"] for it in back["steps"]]
    assert kinds == ["Channel", "Channel", "Route"], "what goes together goes, and the sink that was made with it"
    await plane.apply(route("alarms", sink=sink, filter="data.celsius > 90.0"))
    worker = await plane.call("agents.get", name="alarms-0")
    assert worker["spec"]["config"]["spec"]["filter"] == "data.celsius > 90.0"
    await plane.delete("Route", "alarms")
    with pytest.raises(Refusal) as gone:
        await plane.call("agents.get", name="alarms-0")
    assert gone.value.problem.reason == "NOT_FOUND"
