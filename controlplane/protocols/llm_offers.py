"""What a model is shown of a tool that is pinned: what was accepted of it.

Where that is nothing (yet, or any more) the tool is shown all the same, open: a call of it comes to a Problem that the
model is told, and the rest of its work goes on. A far side of whose tools nothing is known is asked first; one that is
silent must not keep the model from being asked, so it is waited for briefly, and heard of by a later request.
"""

import asyncio
import contextlib
from collections.abc import Iterable
from time import monotonic
from typing import Any, NamedTuple

from schemas.llm import Offer
from schemas.offers import Pin
from schemas.ports import Link, Pinning, Pins, Unreached
from schemas.problem import Refusal

ANYTHING: dict[str, Any] = {"type": "object", "properties": {}}
LOOK_S = 3.0  # for how long requests wait for a far side that is asked


class Shown(NamedTuple):
    """A tool as the model is told of it."""

    description: str
    parameters: dict[str, Any]


class _Look(NamedTuple):
    task: "asyncio.Task[None]"
    until: float  # nobody waits for it longer


class Looks:
    """The far sides that are being asked what they offer: each once at a time, whoever waits for it."""

    def __init__(self) -> None:
        self._looks: dict[tuple[str, int], _Look] = {}

    async def look(self, far: Iterable[tuple[Offer, Pinning, Link | None]], pins: Pins) -> None:
        """Ask those of whose tools something is not known, all at once, and wait for them, but not for long."""
        looks: dict[tuple[str, int], _Look] = {}
        for offer, family, link in far:
            if link is not None and _tool(offer, family, link) and _pin(offer, link, pins) is None:
                looks[link.uid, link.generation] = self._looking(family, link, pins)
        patience = max((it.until for it in looks.values()), default=0.0) - monotonic()
        if patience > 0:
            over, _ = await asyncio.wait([it.task for it in looks.values()], timeout=patience)
            for it in over:
                it.result()

    def _looking(self, family: Pinning, link: Link, pins: Pins) -> _Look:
        key = link.uid, link.generation
        look = self._looks.get(key)
        if look is None:
            task = asyncio.get_running_loop().create_task(_asked(family, link, pins))
            look = self._looks[key] = _Look(task, monotonic() + LOOK_S)
            task.add_done_callback(lambda _: self._looks.pop(key))
        return look


async def _asked(family: Pinning, link: Link, pins: Pins) -> None:
    with contextlib.suppress(Unreached, Refusal):
        await family.ask(pins.link(link))


def pinned(offer: Offer, family: Pinning, link: Link | None, pins: Pins) -> Shown:
    """The tool of a far side, as it was accepted."""
    pin = _pin(offer, link, pins) if link is not None and _tool(offer, family, link) else None
    if pin is None or pin.accepted_as is None:
        return Shown(offer.description, ANYTHING)
    description = offer.description or pin.accepted_as.description
    return Shown(description, pin.accepted_as.input_schema if pin.state == "accepted" else ANYTHING)


def _tool(offer: Offer, family: Pinning, link: Link) -> bool:
    """Whether it is a tool of that far side."""
    return offer.effect is not None and link.spec.protocol == family.protocol


def _pin(offer: Offer, link: Link, pins: Pins) -> Pin | None:
    pin: Pin | None = pins.pin(link, (offer.effect or "").partition(".")[2])
    return pin
