"""What a plan says of the code that it makes agents run: that turns of it differed when they were run again. Pure."""

from collections.abc import Sequence

from controlplane.operations.world import Wanted, World
from schemas.plan import PlanNote


def diverged(wanted: Sequence[Wanted], world: World) -> list[PlanNote]:
    """A note for each decision whose code is marked in its namespace."""
    found = []
    for it in wanted:
        kinds = world.diverged.get((it.namespace, it.code or ""))
        if kinds:
            message = (
                f"turns of this code came to something else when they were run again (first: {', '.join(kinds)}); "
                "a turn of it may fail where it is replayed; agents.inspect shows more, of an agent that runs it"
            )
            data = {"digest": it.code, "first": kinds}
            found.append(PlanNote(subject=it.ref, code="DIVERGED", message=message, data=data))
    return found
