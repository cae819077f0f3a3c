"""How many members from elsewhere come and go in a second, and that those that went have left nothing."""

import asyncio
import time

from benchmarks import loads
from benchmarks.targets import at_least, at_most
from benchmarks.timing import IN_FLIGHT, rate
from controlplane.operations.living import elsewhere
from schemas.calls import NamedAct
from schemas.member import RegisterInput
from schemas.principal import Call, Principal

A_SECOND = 1_000.0
ORPHANS = "SELECT (SELECT COUNT(*) FROM member) + (SELECT COUNT(*) FROM trait)"
WHO = Principal("bench", "operator", ("default",))
WHY = "each is a unit of its own, with an event: the plane's way to the gate, and the gate's to its writer and back"


async def measured(load: loads.Loaded, kind: str, seconds: float) -> float:
    """Registrations and removals a second, by so many who come and go at once."""
    handlers, left = elsewhere.handlers(load.gate.store), await _rows(load)

    async def life(number: int) -> None:
        for operation, given in (
            ("discovery.register", RegisterInput(name=f"far-{number}", lease_s=60, capabilities=["judge"])),
            ("discovery.unregister", NamedAct(name=f"far-{number}")),
        ):
            await handlers[operation](Call(WHO, operation, time.time(), None, False), given)  # noqa: FBT003

    await asyncio.gather(*map(life, range(IN_FLIGHT)))  # what is done once, is done
    found = 2 * await rate(life, IN_FLIGHT, seconds)
    at_least(f"members that come or go a second, {kind}", found, A_SECOND, WHY)
    at_most(f"what is left of members that went, {kind}", await _rows(load) - left, 0)
    return found


async def _rows(load: loads.Loaded) -> int:
    return int((await load.gate.rows(ORPHANS))[0][0])
