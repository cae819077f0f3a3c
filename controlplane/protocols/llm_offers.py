"""What a model is shown of a tool: its own parameters, or the arguments of the effect that it stands for.

Of an effect whose arguments its connection says, they are what was accepted of it. Where that is nothing (yet, or any
more) the tool is shown all the same, open: a call of it comes to a Problem that the model is told, and the rest of
its work goes on.
"""

import contextlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import orjson
from pydantic import BaseModel

from controlplane.protocols.finding import is_family, performer_of
from controlplane.resources.problems import refuse
from schemas.llm import Offer
from schemas.offers import Pin
from schemas.ports import Family, Link, Offered, Pinning, Pins, Unreached
from schemas.problem import Refusal
from schemas.protocols import Performer

NO_ARGUMENTS: dict[str, Any] = {"type": "object", "properties": {}}
ANYTHING: dict[str, Any] = {"type": "object"}
OFFERED_BYTES_MAX = 16_384  # of the schema of one tool
KNOWN_MAX = 10_000


class Shown(NamedTuple):
    """A tool as the model is told of it."""

    description: str
    parameters: dict[str, Any]


class Offers:
    """The tools of all agents that are models."""

    def __init__(self, performers: Mapping[str, Performer]) -> None:
        self._performers = performers
        self._pins: Pins | None = None
        self._bytes: dict[tuple[str, str], int] = {}

    def bind(self, pins: Pins) -> None:
        self._pins = pins

    async def shown(self, offer: Offer, over: Link) -> Shown:
        """The tool of an agent whose model is asked over a connection; raises UNKNOWN_EFFECT."""
        if offer.parameters is not None or offer.effect is None:
            return Shown(offer.description, offer.parameters or NO_ARGUMENTS)
        performer = performer_of(offer.effect, self._performers)
        if performer is None:
            detail = f"tool {offer.name}: there is no effect {offer.effect}"
            raise refuse("UNKNOWN_EFFECT", detail, tool=offer.name, effect=offer.effect, known=sorted(self._performers))
        if is_family(performer):
            found = await self._of_connection(offer, performer, over)
            if len(self._bytes) >= KNOWN_MAX:
                self._bytes.clear()
            self._bytes[offer.effect, offer.connection or ""] = len(orjson.dumps(found.parameters))
            return found
        return Shown(offer.description, _bounded(without(_schema(performer), offer.fixed), offer))

    def bytes_of(self, offer: Offer) -> int:
        """How large its parameters are; of what a connection says, as they were last, or as they may be."""
        if offer.parameters is not None or offer.effect is None:
            return len(orjson.dumps(offer.parameters or NO_ARGUMENTS))
        known = self._performers.get(offer.effect)
        if known is None:
            return self._bytes.get((offer.effect, offer.connection or ""), OFFERED_BYTES_MAX)
        return len(orjson.dumps(without(_schema(known), offer.fixed)))

    async def _of_connection(self, offer: Offer, family: Any, over: Link) -> Shown:
        assert offer.effect is not None
        link = None
        if self._pins is not None and offer.connection is not None:
            link = self._pins.named(over.namespace, offer.connection)
        if link is None or link.spec.protocol != family.protocol:
            return Shown(offer.description, ANYTHING)
        pin = await self._pin(offer.effect, family, link)
        description = offer.description or (pin.accepted_as.description if pin and pin.accepted_as else "")
        effector = _resolved(family, offer.effect, link)
        schema = ANYTHING if effector is None else _bounded(without(_schema(effector), offer.fixed), offer)
        return Shown(description, schema)

    async def _pin(self, effect: str, family: Any, link: Link) -> Pin | None:
        """What is kept of the tool; its far side is asked where nothing is known of it."""
        assert self._pins is not None
        if not isinstance(family, Pinning):
            return None
        tool = effect.partition(".")[2]
        if self._pins.pin(link, tool) is None:
            with contextlib.suppress(Unreached, Refusal):
                await family.ask(self._pins.link(link))
        found: Pin | None = self._pins.pin(link, tool)
        return found


def _resolved(family: Family, effect: str, link: Link) -> Any:
    try:
        return family.resolve(effect, link)
    except Refusal:
        return None


def _schema(effector: Any) -> dict[str, Any]:
    """Of an effector's arguments, as a model is told it."""
    if isinstance(effector, Offered):
        return dict(effector.offered)
    known = effector.arguments
    if isinstance(known, type) and issubclass(known, BaseModel):
        return known.model_json_schema(by_alias=True)
    return dict(known)


def _bounded(schema: dict[str, Any], offer: Offer) -> dict[str, Any]:
    if len(orjson.dumps(schema)) > OFFERED_BYTES_MAX:
        detail = f"tool {offer.name}: the arguments of {offer.effect} are more than a model is told; give parameters"
        raise refuse("OUT_OF_RANGE", detail, tool=offer.name, effect=offer.effect, bytes_max=OFFERED_BYTES_MAX)
    return schema


def without(schema: dict[str, Any], fixed: list[str]) -> dict[str, Any]:
    """A schema of an object without some of its properties."""
    properties = {name: it for name, it in schema.get("properties", {}).items() if name not in fixed}
    required = [name for name in schema.get("required", []) if name not in fixed]
    return {**schema, "properties": properties, "required": required}
