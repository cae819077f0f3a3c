"""`llm.request`: one request to a language model over a connection of protocol `llm`, and its answer.

The credential is the connection's, and stays in the gate. Asking a model changes nothing, so what breaks
has failed; it is asked again only where it said that it took nothing. The adapters are loaded with the
first request.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from math import inf
from typing import Any

from pydantic import BaseModel

from controlplane.protocols.http import secret_headers, traced
from controlplane.protocols.llm_offers import Offers
from schemas.endpoint import ConnectionSpec
from schemas.llm import OUTPUT_TOKENS_MAX, OUTPUT_TOOL, LlmAnswer, LlmRequest, ToolCall
from schemas.llm_connection import LlmConnection
from schemas.ports import EffectCall, Link, Pins, Used
from schemas.protocols import Declaration, Performer

Parameters = dict[str, dict[str, Any]]  # tool → JSON schema
Fault = Callable[[dict[str, Any], Any], str | None]  # what is wrong with data by a schema
Tell = Callable[[str], None]
Count = Callable[[dict[str, float]], None]
Ask = Callable[
    [LlmRequest, Parameters, Link, dict[str, str], Count, Tell | None], Awaitable[tuple[LlmAnswer, dict[str, float]]]
]


class LlmEffector:
    """Asks models for agents. `performers` are those whose effects can be offered to a model as tools."""

    name = "llm.request"
    protocol: str | None = "llm"
    timeout_s = 120.0
    reads_only = True
    arguments: type[BaseModel] = LlmRequest

    def __init__(self, performers: Mapping[str, Performer], fault_of: Fault) -> None:
        self._fault_of = fault_of
        self._ask: Ask | None = None
        self._offers = Offers(performers)

    def bind(self, pins: Pins) -> None:
        self._offers.bind(pins)

    def repeats_for_s(self, arguments: BaseModel, spec: ConnectionSpec | None) -> float:
        """After a crash it is asked once more: that costs, and changes nothing."""
        return inf

    def most(self, arguments: BaseModel, spec: ConnectionSpec | None) -> dict[str, float]:
        """No token is less than a byte of what is asked; unlimited answers have as many as may be asked for."""
        assert isinstance(arguments, LlmRequest)
        tools = sum(self._offers.bytes_of(it) for it in arguments.tools)
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
        shown = {it.name: await self._offers.shown(it, call.link) for it in arguments.tools}
        parameters = {name: it.parameters for name, it in shown.items()}
        told = [it.model_copy(update={"description": shown[it.name].description}) for it in arguments.tools]
        await self.ready()
        assert self._ask is not None
        own = _own_headers(call) | traced(call)
        asked = arguments.model_copy(update={"tools": told})
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
