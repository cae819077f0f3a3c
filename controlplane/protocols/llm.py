"""`llm.request`: one request to a language model over a connection of protocol `llm`, and its answer.

The credential is the connection's, and stays in the gate. Asking a model changes nothing, so what breaks
has failed; it is asked again only where it said that it took nothing. The adapters are loaded with the
first request.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from math import inf
from typing import Any

import orjson
from pydantic import BaseModel

from controlplane.protocols.finding import effector_of, is_family, performer_of
from controlplane.protocols.http import secret_headers, traced
from controlplane.protocols.llm_offers import Looks, Shown, pinned
from controlplane.resources.problems import refuse
from schemas.endpoint import ConnectionSpec
from schemas.llm import OUTPUT_TOKENS_MAX, OUTPUT_TOOL, LlmAnswer, LlmRequest, Offer, ToolCall
from schemas.llm_connection import LlmConnection
from schemas.ports import EffectCall, Effector, Link, Offered, Pinning, Pins, Used
from schemas.protocols import Declaration, Performer

Parameters = dict[str, dict[str, Any]]  # tool → JSON schema
Fault = Callable[[dict[str, Any], Any], str | None]  # what is wrong with data by a schema
Tell = Callable[[str], None]
Count = Callable[[dict[str, float]], None]
Ask = Callable[
    [LlmRequest, Parameters, Link, dict[str, str], Count, Tell | None], Awaitable[tuple[LlmAnswer, dict[str, float]]]
]
Sees = Callable[[str], Link | None]
OFFERED_BYTES_MAX = 16_384  # of what a model is told of one tool: its schema, and a description that is not the agent's
NO_ARGUMENTS: dict[str, Any] = {"type": "object", "properties": {}}


class LlmEffector:
    """Asks models for agents. `performers` are those whose effects can be offered to a model as tools."""

    name = "llm.request"
    description = "One request to a language model, with the tools that it may call."
    protocol: str | None = "llm"
    timeout_s = 120.0
    reads_only = True
    arguments: type[BaseModel] = LlmRequest

    def __init__(self, performers: Mapping[str, Performer], fault_of: Fault) -> None:
        self._performers = performers
        self._fault_of = fault_of
        self._ask: Ask | None = None
        self._pins: Pins | None = None
        self._looks = Looks()

    def bind(self, pins: Pins) -> None:
        self._pins = pins

    def repeats_for_s(self, arguments: BaseModel, spec: ConnectionSpec | None) -> float:
        """After a crash it is asked once more: that costs, and changes nothing."""
        return inf

    def most(self, arguments: BaseModel, spec: ConnectionSpec | None) -> dict[str, float]:
        """No token is less than a byte of what is asked; unlimited answers have as many as may be asked for."""
        assert isinstance(arguments, LlmRequest)
        tools = sum(self._size(it) for it in arguments.tools)
        asked = len(arguments.model_dump_json().encode()) + tools
        return {"tokens_in": asked, "tokens_out": arguments.output_tokens_max or OUTPUT_TOKENS_MAX, "requests": 1}

    def told_to(self, arguments: BaseModel) -> str | None:
        assert isinstance(arguments, LlmRequest)
        return arguments.stream

    async def ready(self) -> None:
        """Load the adapters, in a thread: they take some seconds, once."""
        if self._ask is None:
            self._ask = await asyncio.to_thread(_loaded)

    async def execute(self, arguments: BaseModel, call: EffectCall) -> Any:
        assert isinstance(arguments, LlmRequest)
        assert call.link is not None
        await self._look(arguments.tools, call.sees)
        shown = {it.name: self._shown(it, call.sees) for it in arguments.tools}
        parameters = {name: it.parameters for name, it in shown.items()}
        told = [it.model_copy(update={"description": shown[it.name].description}) for it in arguments.tools]
        asked = arguments.model_copy(update={"tools": told})
        await self.ready()
        assert self._ask is not None
        own = _own_headers(call) | traced(call)
        answer, meters = await self._ask(asked, parameters, call.link, own, call.count, call.tell)
        judged = answer.model_copy(update={"calls": [self._judged(arguments, it) for it in answer.calls]})
        return Used(judged.model_dump(mode="json"), meters)

    def _judged(self, asked: LlmRequest, call: ToolCall) -> ToolCall:
        """The call, and what is wrong with its arguments by a schema of the agent's own; effects judge theirs."""
        own = {it.name: it.parameters for it in asked.tools} | {OUTPUT_TOOL: asked.output}
        schema = own.get(call.tool)
        if call.fault or schema is None:
            return call
        return call.model_copy(update={"fault": self._fault_of(schema, call.arguments) or ""})

    def _size(self, offer: Offer) -> int:
        """How many bytes a model is told of a tool, at most, beside what the agent says of it."""
        if offer.parameters is not None or offer.effect is None:
            return len(orjson.dumps(offer.parameters or NO_ARGUMENTS))
        performer = performer_of(offer.effect, self._performers)
        if performer is None:
            return 0
        return OFFERED_BYTES_MAX if is_family(performer) else len(orjson.dumps(_offered(performer)))

    async def _look(self, offers: Sequence[Offer], sees: Sees) -> None:
        """Ask the far sides of tools of which nothing is known."""
        families = [(it, self._pinning(it)) for it in offers]
        far = [(it, family, _link(it, sees)) for it, family in families if family is not None]
        if self._pins is not None and far:
            await self._looks.look(far, self._pins)

    def _shown(self, offer: Offer, sees: Sees) -> Shown:
        """The tool as the model is told of it."""
        family = self._pinning(offer)
        if self._pins is None or family is None:
            return Shown(offer.description, self._parameters(offer, sees))
        found = pinned(offer, family, _link(offer, sees), self._pins)
        schema = self._bounded(offer, without(found.parameters, offer.fixed))
        room = OFFERED_BYTES_MAX - len(orjson.dumps(schema))
        return Shown(offer.description or _within(found.description, room), schema)

    def _pinning(self, offer: Offer) -> Pinning | None:
        """Whose far side says what the tool is, unless the agent does."""
        if offer.parameters is not None or offer.effect is None:
            return None
        performer = performer_of(offer.effect, self._performers)
        return performer if isinstance(performer, Pinning) else None

    def _parameters(self, offer: Offer, sees: Sees) -> dict[str, Any]:
        """What the model may say: the tool's own schema, or that of the effect's arguments, less what is fixed."""
        if offer.parameters is not None:
            return offer.parameters
        if offer.effect is None:
            return NO_ARGUMENTS
        known = effector_of(offer.effect, self._performers, _link(offer, sees))
        if known is None:
            over = f" over {offer.connection}" if offer.connection is not None else ""
            detail = f"tool {offer.name}: there is no effect {offer.effect}{over}"
            about = {"tool": offer.name, "effect": offer.effect, "connection": offer.connection}
            raise refuse("UNKNOWN_EFFECT", detail, **about, known=sorted(self._performers))
        return self._bounded(offer, without(_offered(known), offer.fixed))

    def _bounded(self, offer: Offer, schema: dict[str, Any]) -> dict[str, Any]:
        if len(orjson.dumps(schema)) > OFFERED_BYTES_MAX:
            detail = (
                f"tool {offer.name}: the arguments of {offer.effect} are more than a model is told; give parameters"
            )
            raise refuse("OUT_OF_RANGE", detail, tool=offer.name, effect=offer.effect, bytes_max=OFFERED_BYTES_MAX)
        return schema


def _within(text: str, most: int) -> str:
    """The beginning of a text that has so many bytes at most, and says that it is one."""
    encoded, mark = text.encode(), "…"
    if len(encoded) <= most:
        return text
    left = most - len(mark.encode())
    return encoded[:left].decode(errors="ignore") + mark if left >= 0 else ""


def _link(offer: Offer, sees: Sees) -> Link | None:
    return sees(offer.connection) if offer.connection is not None else None


def _offered(effector: Effector) -> dict[str, Any]:
    """The schema of an effector's arguments, as a model is told it."""
    if isinstance(effector, Offered):
        return dict(effector.offered)
    known: Any = effector.arguments
    modelled = isinstance(known, type) and issubclass(known, BaseModel)
    return dict(known.model_json_schema(by_alias=True) if modelled else known)


def without(schema: dict[str, Any], fixed: list[str]) -> dict[str, Any]:
    """A schema of an object without some of its properties."""
    properties = {name: it for name, it in schema.get("properties", {}).items() if name not in fixed}
    required = [name for name in schema.get("required", []) if name not in fixed]
    return {**schema, "properties": properties, "required": required}


def _loaded() -> Ask:
    from controlplane.protocols.llm_client import ask

    return ask


def _own_headers(call: EffectCall) -> dict[str, str]:
    """The secret as the API wants it, unless the connection says otherwise."""
    link = call.link
    assert link is not None
    assert isinstance(link.spec, LlmConnection)
    options = link.spec.options
    if options.api == "anthropic" and options.secret_header == "Authorization":  # noqa: S105 - the name of a header
        options = options.model_copy(update={"secret_header": "x-api-key", "secret_scheme": ""})
    return secret_headers(link, options)


PROTOCOL = Declaration("llm", lambda around: (LlmEffector(around.performers, around.fault_of),))
