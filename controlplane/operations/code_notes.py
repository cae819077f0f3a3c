"""What a plan says of the agents that it makes. Pure.

Of their code, that turns of it differed when they were run again; of their mandates, what they grant in vain.
"""

from collections.abc import Sequence

from controlplane.operations.world import Wanted, World
from schemas.compute import COMPUTE
from schemas.plan import PlanNote

_COMPUTES = (COMPUTE, f"{COMPUTE.partition('.')[0]}.*")


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


def in_vain(wanted: Sequence[Wanted]) -> list[PlanNote]:
    """A note for each confined agent that may have functions run by Ray, which confines none."""
    found = []
    for it in wanted:
        spec = it.agent_spec
        if spec is None or spec["isolation"] != "confined":
            continue
        grants = [grant["effect"] for grant in spec["mandate"]["grants"] if grant["effect"] in _COMPUTES]
        if grants:
            message = (
                f"its mandate grants {', '.join(grants)}, and {COMPUTE} is refused to a confined agent"
                " (NO_CONFINEMENT): Ray would run its code unconfined"
            )
            found.append(PlanNote(subject=it.ref, code="NO_COMPUTE", message=message, data={"grants": grants}))
    return found
