"""What a plan says of a route beside its steps: what is drafted, gets lost, is promised, may go in a circle. Pure."""

from collections.abc import Iterator, Sequence
from typing import Any

from controlplane.operations.drafting import Shape
from controlplane.operations.hourly import band
from controlplane.operations.loops import Ways, leads
from controlplane.operations.routing import effect_of, source_shape, spec_of
from controlplane.operations.sources import source_name
from controlplane.operations.world import Wanted, World
from schemas.plan import PlanNote
from schemas.ports import Routing

INSIDE = "What comes is acted on exactly once: consumption and what becomes of it commit together."
POLLED = "A row is read once if {} grows in the order of commits; one that comes later with less is missed."


def notes(given: Sequence[Wanted], wanted: Sequence[Wanted], world: World, routing: Routing | None) -> list[PlanNote]:
    """The notes of the routes among the decisions; `given` is as they were before transforms were drafted."""
    if routing is None:
        return []
    before = {it.key: it for it in given}
    routes = [it for it in wanted if it.kind == "Route" and it.action == "apply"]
    ways = {name: _ways(name, wanted, world) for name in {it.namespace for it in routes}}
    found: list[PlanNote] = []
    for it in routes:
        found += _drafted(before[it.key], it)
        found += _lost(it, source_shape(it, wanted, world), routing)
        found += _promised(it, wanted, world, routing)
        found += _polled(it, world)
        found += _circling(it, ways[it.namespace])
    return found


def _note(it: Wanted, code: Any, message: str, **data: Any) -> PlanNote:
    return PlanNote(subject=it.ref, code=code, message=message, data=data)


def _drafted(before: Wanted, it: Wanted) -> Iterator[PlanNote]:
    text = it.spec["transform"]
    if before.spec["transform"] is None and text is not None:
        yield _note(it, "DRAFTED", f"the shapes differ, so this transform was drafted: {text}", transform=text)


def _lost(it: Wanted, source: Shape | None, routing: Routing) -> Iterator[PlanNote]:
    """Fields that nothing reads, and numbers that lose their fraction."""
    text = it.spec["transform"]
    if text is None or source is None:
        return
    read = routing.fields_read(text)
    dropped = [] if "*" in read else sorted(source.fields.keys() - read)
    if dropped:
        yield _note(it, "DROPPED", f"the transform does not read {', '.join(dropped)}", fields=dropped)
    if "$round(" in text or "$floor(" in text or "$ceil(" in text:
        yield _note(it, "NARROWED", "numbers lose their fraction")


def _promised(it: Wanted, wanted: Sequence[Wanted], world: World, routing: Routing) -> Iterator[PlanNote]:
    """The weakest guarantee on the way."""
    source, sink = it.spec["source"], it.spec["sink"]
    known = effect_of(it, routing)
    if known is None:
        weakest, message = "exactly_once", INSIDE
    else:
        spec = spec_of(("Connection", it.namespace, sink["connection"]), wanted, world) if sink["connection"] else None
        keyed = known.repeats(spec)
        if keyed:
            weakest, message = (
                "once_by_key",
                f"{sink['effect']} may be repeated: it is done once.",
            )
        elif keyed is None:
            weakest, message = "unknown", f"Whether {sink['effect']} may be repeated is known only when it is asked."
        else:
            weakest = "at_most_once"
            message = f"{sink['effect']} is done at most once: in doubt, it is held until an operator settles it."
    if "poll" in source:
        message = f"{message} {POLLED.format(source['poll']['cursor'])}"
    yield _note(it, "GUARANTEE", message, weakest=weakest)


def _polled(it: Wanted, world: World) -> Iterator[PlanNote]:
    """How often it asks; what that brings is claimed, if it is known at all."""
    if "poll" not in it.spec["source"]:
        return
    cron = it.spec["source"]["poll"]["cron"]
    if (many := world.firings.get(cron)) is None:
        return
    known = world.traffic.get((it.namespace, source_name(it.spec["source"])), ())
    message = f"By its schedule it asks {many} times in the next hour; how many rows come is "
    message += f"not known before: {len(known)} hours of it are on record." if band(known) is None else "estimated."
    yield _note(it, "POLLS", message, polls_per_hour=many, hours_known=len(known))


def _ways(namespace: str, wanted: Sequence[Wanted], world: World) -> Ways:
    """Which routes set which to work, once this is committed."""
    decided = [it for it in wanted if it.kind == "Route" and it.namespace == namespace]
    names = {it.name for it in decided}
    there = [it for it in world.leads.get(namespace, ()) if it.name not in names]
    return Ways([*there, *(leads(it.name, it.spec) for it in decided if it.action == "apply")])


def _circling(it: Wanted, ways: Ways) -> Iterator[PlanNote]:
    """A circle that goes by events, of which nobody knows before whether they come."""
    circle = ways.circle(leads(it.name, it.spec))
    types = sorted({type_ for step in circle for type_ in step.types})
    if not types:
        return
    names = [step.route for step in circle]
    what = ", ".join(types)
    message = (
        f"what the work of {', '.join(names)} may make ({what}) comes back to {it.name}, and may be made again without "
        "end; a filter that leaves out what is told of their agents ends that"
    )
    yield _note(it, "LOOP", message, routes=names, types=types)
