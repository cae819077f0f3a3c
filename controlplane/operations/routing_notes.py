"""What a plan says of a route beside its steps: what is drafted, gets lost, is promised, may go in a circle. Pure."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from itertools import islice
from typing import Any

from controlplane.operations.circles import agents_of, watched, ways_of
from controlplane.operations.drafting import Shape
from controlplane.operations.hourly import band
from controlplane.operations.loops import Node, Step, Ways
from controlplane.operations.routing import effect_of, source_shape, spec_of
from controlplane.operations.sources import source_name
from controlplane.operations.world import Wanted, World
from schemas.base import rfc3339
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
    ways = {name: ways_of(name, there, wanted, world.heard[name]) for name, there in world.leads.items()}
    found: list[PlanNote] = []
    for it in routes:
        found += _drafted(before[it.key], it)
        found += _lost(it, source_shape(it, wanted, world), routing)
        found += _promised(it, wanted, world, routing)
        found += _polled(it, world)
        found += _circling(it, ways[it.namespace])
    for it in wanted:
        if it.namespace in ways:
            found += _through(it, ways[it.namespace])
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
    place = it.namespace, source_name(it.spec["source"])
    known = world.traffic.get(place, ())
    message = f"By its schedule it asks {many} times in the next hour; how many rows come is "
    if place in world.failing:
        message += f"not known, because route {world.failing[place]} asks the same in vain: routes.get says why."
    else:
        message += f"not known before: {len(known)} hours of it are on record." if band(known) is None else "estimated."
    fails = {"failing": world.failing[place]} if place in world.failing else {}
    yield _note(it, "POLLS", message, polls_per_hour=many, hours_known=len(known), **fails)


def _circling(it: Wanted, ways: Ways) -> Iterator[PlanNote]:
    """Circles back to a route: by events, of which nobody knows before whether they come; and by what was observed."""
    start = Node("Route", it.name)
    if possible := ways.circle(start, events=True, observed=False):
        yield _possible(it, possible)
    if not ways.heard.talks:
        return
    observed = ways.circle(start, events=False, observed=True)
    if not observed and not possible:
        observed = ways.circle(start, events=True, observed=True)
    if observed:
        yield _observed(it, observed)


def _through(it: Wanted, ways: Ways) -> Iterator[PlanNote]:
    """The circle over a route that an agent's watch closes, by what agents were heard to do; one is enough."""
    if watched(it):
        heard = [name for name in agents_of(it) if name in ways.heard.talks]
        circles = (ways.circle(Node("Agent", name), events=False, observed=True) for name in heard)
        yield from (_observed(it, found) for found in islice(filter(None, circles), 1))


def _names(circle: Sequence[Step], kind: str) -> list[str]:
    return [step.node.name for step in circle if step.node.kind == kind]


def _types(circle: Sequence[Step]) -> list[str]:
    return sorted({type_ for step in circle for type_ in step.types})


def _possible(it: Wanted, circle: Sequence[Step]) -> PlanNote:
    names, agents, types = _names(circle, "Route"), _names(circle, "Agent"), _types(circle)
    who, what = ", ".join([*names, *agents]), ", ".join(types)
    message = (
        f"what the work of {who} may make ({what}) comes back to {it.name}, and may be made again without end; a "
        "filter that leaves out what is told of their agents ends that"
    )
    return _note(it, "LOOP", message, routes=names, agents=agents, types=types)


def _observed(it: Wanted, circle: Sequence[Step]) -> PlanNote:
    """What is known of it, and how: who was heard where, how often, and when last."""
    talks = [step.talk for step in circle if step.talk is not None]
    said = [
        f"{it.source} was heard {f'in {it.channel}' if it.channel else f'by {it.name}'}, last at {_at(it.last)}"
        for it in talks
    ]
    way = " -> ".join([*(step.node.name for step in circle), circle[0].node.name])
    message = (
        f"observed, not declared: {way} is a circle if agents go on as they did ({'; '.join(said)}); whether they pass "
        "on what comes this way is not known"
    )
    observed = [
        {"agent": it.source, "channel": it.channel or None, "by": None if it.channel else it.name,
         "messages": it.messages, "since": _at(it.since), "last": _at(it.last)} for it in talks
    ]  # fmt: skip
    names = {kind.lower() + "s": _names(circle, kind) for kind in ("Route", "Agent", "Channel")}
    return _note(it, "LOOP_OBSERVED", message, **names, types=_types(circle), observed=observed)


def _at(moment: float) -> str:
    return rfc3339(datetime.fromtimestamp(moment, UTC))
