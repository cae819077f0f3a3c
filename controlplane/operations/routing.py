"""Whether a route can work: its expressions, the shapes on both sides, circles; what it loses, what it promises. Pure.

A shape is known by a channel's dataschema, by an effect's arguments, by samples. Where no transform is given and shapes
differ, one is drafted, and stands in the plan like anything else that a commit would write. Circles through
the far side are not seen; those through agents are looked for in `circles`.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from controlplane.mesh.dataschema import data_fault
from controlplane.operations.drafting import Shape, drafted, shape_of
from controlplane.operations.workers import worker_name
from controlplane.operations.world import Key, Wanted, World
from controlplane.resources.problems import refuse
from schemas.base import short_id
from schemas.ports import EffectKnown, Routing, Tried
from schemas.problem import Next

EDGE = "|"


def keys_read(it: Wanted) -> set[Key]:
    """The names that a route rests on."""
    source, sink, reply = it.spec["source"], it.spec["sink"], it.spec["reply"]
    channels = {one["channel"] for one in (source, sink, reply) if one is not None and "channel" in one}
    connections = {source["poll"]["connection"]} if "poll" in source else set()
    connections |= {sink["connection"]} if sink.get("connection") else set()
    found: set[Key] = {("Channel", it.namespace, name) for name in channels}
    found |= {("Connection", it.namespace, name) for name in connections}
    return found | ({("Agent", it.namespace, sink["agent"])} if "agent" in sink else set())


def edges(name: str, spec: Mapping[str, Any]) -> list[str]:
    """From which channel to which a route leads: `route|from|to`."""
    source, ends = spec["source"], (spec["sink"], spec["reply"])
    if "channel" not in source:
        return []
    return [EDGE.join((name, source["channel"], it["channel"])) for it in ends if it is not None and "channel" in it]


def trial(spec: Mapping[str, Any]) -> str:
    """What is tried with a route's samples, by a name."""
    return short_id("trial", spec["filter"], spec["transform"], spec["samples"])


def to_try(wanted: Sequence[Wanted], routing: Routing) -> dict[str, Mapping[str, Any]]:
    """The specs whose samples are to be tried; none of an expression that has a fault."""
    found: dict[str, Mapping[str, Any]] = {}
    for it in wanted:
        if _applied(it) and it.spec["samples"] and not any(_faults(it, routing).values()):
            found[trial(it.spec)] = it.spec
    return found


def completed(wanted: Sequence[Wanted], world: World, routing: Routing | None) -> tuple[Wanted, ...]:
    """The decisions, with transforms drafted where shapes differ and none is given."""
    if routing is None:
        return tuple(wanted)
    return tuple(_with_draft(it, wanted, world, routing) if _applied(it) else it for it in wanted)


def check_route(
    it: Wanted, wanted: Sequence[Wanted], world: World, routing: Routing, tried: Mapping[str, Sequence[Tried]]
) -> None:
    """Refuse a route that could not work."""
    _check_expressions(it, routing)
    known = _effect(it, wanted, world, routing)
    if it.spec["source"].get("channel") == worker_name(it.name):
        detail = f"channel {it.spec['source']['channel']} is named like the route's own agent"
        raise refuse("INVALID_NAME", detail, field=f"{it.place}/metadata/name", name=it.name)
    _check_samples(it, wanted, world, tried.get(trial(it.spec), ()), known)
    _check_circle(it, wanted, world)


def _applied(it: Wanted) -> bool:
    return it.kind == "Route" and it.action == "apply"


def _faults(it: Wanted, routing: Routing) -> dict[str, str | None]:
    accept = it.spec["sink"].get("accept")
    return {
        "filter": routing.filter_fault(it.spec["filter"]) if it.spec["filter"] else None,
        "transform": routing.transform_fault(it.spec["transform"]) if it.spec["transform"] else None,
        "sink/accept": routing.accept_fault(accept) if accept else None,
    }


def _check_expressions(it: Wanted, routing: Routing) -> None:
    for field, fault in _faults(it, routing).items():
        if fault is not None:
            raise refuse("INVALID_VALUE", fault, field=f"{it.place}/spec/{field}", fault=fault)


def _effect(it: Wanted, wanted: Sequence[Wanted], world: World, routing: Routing) -> EffectKnown | None:
    """What is known of the sink's effect; refused where there is none, or not over that connection."""
    source, sink = it.spec["source"], it.spec["sink"]
    if "poll" in source:
        _check_protocol(it, "source/poll/connection", source["poll"]["connection"], "sql", wanted, world)
    if "effect" not in sink:
        return None
    known = routing.effect(sink["effect"])
    place = f"{it.place}/spec/sink"
    if known is None:
        step = Next(operation="operations.describe", arguments={"name": "routes.propose"}, why="shows an example")
        detail = f"there is no effect {sink['effect']}"
        raise refuse("UNKNOWN_EFFECT", detail, field=f"{place}/effect", next=[step], effect=sink["effect"])
    if (known.protocol is None) != (sink["connection"] is None):
        detail = f"{sink['effect']} takes " + (
            f"a connection of protocol {known.protocol}" if known.protocol else "none"
        )
        raise refuse(
            "INVALID_VALUE", detail, field=f"{place}/connection", effect=sink["effect"], protocol=known.protocol
        )
    if known.protocol is not None:
        _check_protocol(it, "sink/connection", sink["connection"], known.protocol, wanted, world)
    return known


def _check_protocol(
    it: Wanted, field: str, connection: str, protocol: str, wanted: Sequence[Wanted], world: World
) -> None:
    spec = spec_of(("Connection", it.namespace, connection), wanted, world)
    if spec is not None and spec["protocol"] != protocol:
        detail = f"connection {connection} is of protocol {spec['protocol']}, and {protocol} is needed"
        about = {"connection": connection, "protocol": spec["protocol"], "wanted": protocol}
        raise refuse("INVALID_VALUE", detail, field=f"{it.place}/spec/{field}", **about)


def effect_of(it: Wanted, routing: Routing) -> EffectKnown | None:
    """What is known of the effect that a route leads to, if it leads to one."""
    return routing.effect(it.spec["sink"]["effect"]) if "effect" in it.spec["sink"] else None


def spec_of(key: Key, wanted: Sequence[Wanted], world: World) -> dict[str, Any] | None:
    """The spec of a name as it will be; None where there is none."""
    decided = next((one for one in wanted if one.key == key), None)
    if decided is not None:
        return decided.spec if decided.action == "apply" else None
    known = world.at(*key)
    return known.spec if known.live else None


def _schema_of(it: Wanted, end: Mapping[str, Any], wanted: Sequence[Wanted], world: World) -> dict[str, Any] | None:
    if "channel" not in end:
        return None
    spec = spec_of(("Channel", it.namespace, end["channel"]), wanted, world)
    return spec["dataschema"] if spec is not None else None


def _sink_schema(
    it: Wanted, wanted: Sequence[Wanted], world: World, known: EffectKnown | None
) -> dict[str, Any] | None:
    if known is not None:
        return known.schema
    return _schema_of(it, it.spec["sink"], wanted, world)


def _check_samples(
    it: Wanted, wanted: Sequence[Wanted], world: World, tried: Sequence[Tried], known: EffectKnown | None
) -> None:
    """Each sample is as the source says, goes through, and is as the sink wants it."""
    of_source = _schema_of(it, it.spec["source"], wanted, world)
    of_sink = _sink_schema(it, wanted, world, known)
    fixed = it.spec["sink"].get("arguments") or {}
    for number, (sample, (passed, made, unfit)) in enumerate(zip(it.spec["samples"], tried, strict=False)):
        place = f"{it.place}/spec/samples/{number}"
        if of_source is not None and (fault := data_fault(of_source, sample)) is not None:
            detail = f"the sample is not as the source's schema says: {fault}"
            raise refuse("SCHEMA_MISMATCH", detail, field=place, fault=fault, side="source")
        if unfit:
            raise refuse("INVALID_VALUE", unfit, field=place, fault=unfit)
        if not passed:
            continue
        if known is not None and not isinstance(made, dict):
            detail = "the sample becomes no object, as the arguments of an effect are"
            raise refuse("SCHEMA_MISMATCH", detail, field=place, fault=detail, side="sink")
        given = {**made, **fixed} if known is not None else made
        if of_sink is not None and (fault := data_fault(of_sink, given)) is not None:
            detail = f"what becomes of the sample is not what the sink takes: {fault}"
            raise refuse("SCHEMA_MISMATCH", detail, field=place, fault=fault, side="sink")


SAMPLE = {
    "id": "msg_sample", "source": "/default/agents/sample", "type": "steward.message", "subject": "default/sample",
    "time": "2026-01-01T00:00:00Z", "specversion": "1.0", "datacontenttype": "application/json",
    "partitionkey": "key",
}  # fmt: skip


def _with_draft(it: Wanted, wanted: Sequence[Wanted], world: World, routing: Routing) -> Wanted:
    if it.spec["transform"] is not None:
        return it
    known = effect_of(it, routing)
    of_sink, fixed = _sink_schema(it, wanted, world, known), it.spec["sink"].get("arguments") or {}
    source = source_shape(it, wanted, world)
    if of_sink is None or source is None:
        return it
    draft = drafted(source, shape_of(of_sink), fixed)
    if draft.missing:
        detail = f"nothing of the source is {', '.join(draft.missing)}, which the sink needs; give a transform"
        step = Next(operation="operations.describe", arguments={"name": "routes.propose"}, why="shows a transform")
        place = f"{it.place}/spec/transform"
        raise refuse("SCHEMA_MISMATCH", detail, field=place, next=[step], missing=list(draft.missing), side="sink")
    return it if draft.text is None else replace(it, spec={**it.spec, "transform": draft.text})


def source_shape(it: Wanted, wanted: Sequence[Wanted], world: World) -> Shape | None:
    """What is known of the data: by the channel's schema, else by the samples."""
    schema = _schema_of(it, it.spec["source"], wanted, world)
    if schema is not None:
        return shape_of(schema)
    samples = [one for one in it.spec["samples"] if isinstance(one, dict)]
    return Shape.of_samples(samples) if samples and len(samples) == len(it.spec["samples"]) else None


def _check_circle(it: Wanted, wanted: Sequence[Wanted], world: World) -> None:
    """Refuse what would bring its own messages back to the channel that they came from."""
    decided = {one.name for one in wanted if one.kind == "Route" and one.namespace == it.namespace}
    others = (edge for edge in world.names("routes", it.namespace, "") if edge.split(EDGE)[0] not in decided)
    ours = (
        edge for one in wanted if _applied(one) and one.namespace == it.namespace for edge in edges(one.name, one.spec)
    )
    leads: dict[str, list[tuple[str, str]]] = {}
    for edge in (*others, *ours):
        name, begin, end = edge.split(EDGE)
        leads.setdefault(begin, []).append((end, name))
    for _, begin, end in (edge.split(EDGE) for edge in edges(it.name, it.spec)):
        if (way := _way(leads, end, begin)) is not None:
            circle = [it.name, *way]
            detail = f"the routes {', '.join(circle)} would lead from channel {begin} back to it"
            step = Next(
                operation="routes.list", arguments={"namespace": it.namespace}, why="shows the routes there are"
            )
            about = {"channel": begin, "routes": circle}
            raise refuse("ROUTE_LOOP", detail, field=f"{it.place}/spec/sink", next=[step], **about)


def _way(leads: Mapping[str, Iterable[tuple[str, str]]], begin: str, end: str) -> list[str] | None:
    """The routes that lead from one channel to another; none where it is that one, None where none do."""
    ways: dict[str, list[str]] = {begin: []}
    left = [begin]
    while left:
        here = left.pop()
        if here == end:
            return ways[here]
        for there, name in leads.get(here, ()):
            if there not in ways:
                ways[there] = [*ways[here], name]
                left.append(there)
    return None
