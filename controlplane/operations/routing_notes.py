"""What a plan says of a route beside its steps: what is drafted, gets lost, is promised. Pure."""

from collections.abc import Iterator, Sequence
from typing import Any

from controlplane.operations.drafting import Shape
from controlplane.operations.routing import effect_of, source_shape, spec_of
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
    found: list[PlanNote] = []
    for it in wanted:
        if it.kind == "Route" and it.action == "apply":
            found += _drafted(before[it.key], it)
            found += _lost(it, source_shape(it, wanted, world), routing)
            found += _promised(it, wanted, world, routing)
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
