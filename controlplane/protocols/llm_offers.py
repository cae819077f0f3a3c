"""What a model is shown of a tool that is pinned: what was accepted of it.

Where that is nothing (yet, or any more) the tool is shown all the same, open: a call of it comes to a Problem that the
model is told, and the rest of its work goes on.
"""

import contextlib
from typing import Any, NamedTuple

from schemas.llm import Offer
from schemas.offers import Pin
from schemas.ports import Link, Pinning, Pins, Unreached
from schemas.problem import Refusal

ANYTHING: dict[str, Any] = {"type": "object", "properties": {}}


class Shown(NamedTuple):
    """A tool as the model is told of it."""

    description: str
    parameters: dict[str, Any]


async def pinned(offer: Offer, family: Pinning, link: Link | None, pins: Pins) -> Shown:
    """The tool of a far side; that is asked where nothing is known of it."""
    if link is None or link.spec.protocol != family.protocol or offer.effect is None:
        return Shown(offer.description, ANYTHING)
    tool = offer.effect.partition(".")[2]
    pin: Pin | None = pins.pin(link, tool)
    if pin is None:
        with contextlib.suppress(Unreached, Refusal):
            await family.ask(pins.link(link))
        pin = pins.pin(link, tool)
    if pin is None or pin.accepted_as is None:
        return Shown(offer.description, ANYTHING)
    description = offer.description or pin.accepted_as.description
    return Shown(description, pin.accepted_as.input_schema if pin.state == "accepted" else ANYTHING)
