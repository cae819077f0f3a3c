"""Asking models with pydantic-ai's adapters: a request and an answer in our words, a provider's in between.

Only the adapters are used, not its agents: what happens between two requests is the turn's. A model that
says that it took nothing (429, 503, 529) is asked again after the time that it names, while half of the
connection's timeout is left. What a provider has held back, or the model refused to say, is no answer.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import httpx2
import orjson
from pydantic_ai.direct import model_request, model_request_stream
from pydantic_ai.exceptions import AgentRunError, UserError
from pydantic_ai.messages import (
    ModelMessage,
    ModelRequest,
    ModelRequestPart,
    ModelResponse,
    ModelResponsePart,
    PartDeltaEvent,
    PartStartEvent,
    TextPart,
    TextPartDelta,
    ToolCallPart,
    ToolReturnPart,
    UserPromptPart,
)
from pydantic_ai.models import Model, ModelRequestParameters
from pydantic_ai.settings import ModelSettings
from pydantic_ai.tools import ToolDefinition, ToolDefinitionKind
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, stop_after_attempt, stop_before_delay
from tenacity.wait import wait_exponential_jitter

from controlplane.protocols.llm_wire import Busy, Wire, said_usage
from controlplane.protocols.scrubbing import encodable, shortened
from controlplane.resources.problems import refuse
from schemas.llm import OUTPUT_TOOL, Answered, LlmAnswer, LlmRequest, Message, Said, ToolCall, ToolResult, Usage
from schemas.ports import Link
from schemas.problem import Refusal

Tell = Callable[[str], None]
Count = Callable[[dict[str, float]], None]
ATTEMPTS_MAX = 4
WAIT_FIRST_S, WAIT_MOST_S = 0.2, 30.0
SAID_CHARS_MAX = 500
LEVELS_AROUND = 8  # of what arguments are kept in, at most
WITHHELD = ("content_filter", "error")  # ends of what is no answer
NO_KEY = "-"  # the SDKs demand one; ours is added where the endpoint's origin is known
_backoff = wait_exponential_jitter(multiplier=WAIT_FIRST_S, max=WAIT_MOST_S, jitter=WAIT_FIRST_S)


async def ask(
    asked: LlmRequest,
    parameters: dict[str, dict[str, Any]],
    link: Link,
    own: dict[str, str],
    count: Count,
    tell: Tell | None = None,
) -> tuple[LlmAnswer, dict[str, float]]:
    """The model's answer, and what it took; its text is told while it comes, if `tell` is given.

    What an answer took that says so is counted, also where it breaks off or can not be read.
    """
    retrying = AsyncRetrying(
        retry=retry_if_exception_type(Busy),
        stop=stop_after_attempt(ATTEMPTS_MAX) | stop_before_delay(link.spec.limits.timeout_s / 2),
        wait=_wait,
        reraise=True,
    )
    try:
        answer: LlmAnswer = await retrying(_once, asked, _offered(asked, parameters), link, own, count, tell)
    except Busy as busy:
        detail = f"{link.name} takes no request now: {busy.status}: {busy.said}"
        about: dict[str, Any] = {"connection": link.name, "http_status": busy.status, "said": busy.said}
        raise refuse("EFFECT_FAILED", detail, retry_after_s=busy.after_s or None, **about) from None
    return answer, meters_of(answer.usage)


def meters_of(usage: Usage) -> dict[str, float]:
    return {"tokens_in": float(usage.tokens_in), "tokens_out": float(usage.tokens_out), "requests": 1.0}


def _wait(state: RetryCallState) -> float:
    """As long as the endpoint says, and no less than we would wait anyway."""
    error = state.outcome.exception() if state.outcome is not None else None
    return max(error.after_s if isinstance(error, Busy) else 0.0, _backoff(state))


async def _once(
    asked: LlmRequest, offered: ModelRequestParameters, link: Link, own: dict[str, str], count: Count, tell: Tell | None
) -> LlmAnswer:
    wire = Wire(link, own, streams=tell is not None)
    settings = ModelSettings(max_tokens=asked.output_tokens_max) if asked.output_tokens_max else None
    async with httpx2.AsyncClient(transport=wire, timeout=None, trust_env=False) as client:
        model = _model(link, asked.model, client)
        given: dict[str, Any] = {"model_settings": settings, "model_request_parameters": offered}
        try:
            if tell is None:
                response = await model_request(model, history(asked), **given)
            else:
                response = await _streamed(model, history(asked), given, count, tell)
        except Exception as error:
            if wire.failure is not None:
                raise wire.failure from None
            if (said := said_usage(wire.body)) is not None:
                count(meters_of(said))
            if not isinstance(error, AgentRunError | UserError | ValueError | TypeError):
                raise
            why = shortened(encodable(str(error)), SAID_CHARS_MAX, link.secret)
            detail = f"{link.name} answered what is no answer of the API {link.spec.options.api}: {why}"
            about = {"connection": link.name, "api": link.spec.options.api, "error": why}
            raise refuse("EFFECT_FAILED", detail, **about) from error
    if tell is not None and response.finish_reason is None:
        detail = f"{link.name} broke off: its answer has no end"
        raise refuse("EFFECT_FAILED", detail, connection=link.name)
    answer = answer_of(response, link.secret)
    if (answer.finish or _said_finish(response)) in WITHHELD:
        count(meters_of(answer.usage))
        raise _withheld(response, link)
    return answer


def _withheld(response: ModelResponse, link: Link) -> Refusal:
    """Why there is no answer: a filter held it back, or the model refused; in its words, where it says any."""
    said = (response.provider_details or {}).get("refusal")
    words = shortened(encodable(said), SAID_CHARS_MAX, link.secret) if isinstance(said, str) else ""
    finish = response.finish_reason or _said_finish(response)
    why = f"the model refused: {words}" if words else f"its answer was broken off: {finish}"
    return refuse("EFFECT_FAILED", f"{link.name}: {why}", connection=link.name, finish=finish, said=words)


def _said_finish(response: ModelResponse) -> Any:
    """How it ended in the words of an endpoint that knows more ends than its API."""
    return (response.provider_details or {}).get("finish_reason")


async def _streamed(
    model: Model[Any], said: list[ModelMessage], given: dict[str, Any], count: Count, tell: Tell
) -> ModelResponse:
    """The whole answer, each piece of its text told when it came."""
    async with model_request_stream(model, said, **given) as stream:
        try:
            async for event in stream:
                if isinstance(event, PartStartEvent) and isinstance(event.part, TextPart):
                    tell(event.part.content)
                elif isinstance(event, PartDeltaEvent) and isinstance(event.delta, TextPartDelta):
                    tell(event.delta.content_delta)
        finally:
            usage = _usage(stream.get())
            if usage.tokens_in or usage.tokens_out:
                count(meters_of(usage))
        return stream.get()


def _model(link: Link, name: str, client: httpx2.AsyncClient) -> Model[Any]:
    made: Model[Any] = _maker(link.spec.options.api)(name, link.spec.endpoint.rstrip("/"), client)
    return made


@cache
def _maker(api: str) -> Any:
    """How a model of this API is made; its SDK is loaded with the first."""
    if api == "anthropic":
        from anthropic import AsyncAnthropic
        from pydantic_ai.models.anthropic import AnthropicModel
        from pydantic_ai.providers.anthropic import AnthropicProvider

        def anthropic(name: str, url: str, client: httpx2.AsyncClient) -> Model[Any]:
            sdk = AsyncAnthropic(api_key=NO_KEY, base_url=url, http_client=client, max_retries=0)
            return AnthropicModel(name, provider=AnthropicProvider(anthropic_client=sdk))

        return anthropic
    from openai import AsyncOpenAI
    from pydantic_ai.models.openai import OpenAIChatModel
    from pydantic_ai.profiles.openai import OpenAIModelProfile
    from pydantic_ai.providers.openai import OpenAIProvider

    # A stream that ends early looks like one that ends: what says no reason for its end has broken off.
    whole = OpenAIModelProfile(openai_chat_streaming_requires_finish_reason=True)

    def openai(name: str, url: str, client: httpx2.AsyncClient) -> Model[Any]:
        sdk = AsyncOpenAI(api_key=NO_KEY, base_url=url, http_client=client, max_retries=0)
        return OpenAIChatModel(name, provider=OpenAIProvider(openai_client=sdk), profile=whole)

    return openai


def _offered(asked: LlmRequest, parameters: dict[str, dict[str, Any]]) -> ModelRequestParameters:
    tools = [_tool(it.name, parameters[it.name], it.description) for it in asked.tools]
    if asked.output is None:
        return ModelRequestParameters(function_tools=tools)
    output = _tool(OUTPUT_TOOL, asked.output, "Give the final answer.", kind="output")
    return ModelRequestParameters(
        function_tools=tools, output_mode="tool", output_tools=[output], allow_text_output=False
    )


def _tool(name: str, schema: dict[str, Any], description: str, kind: ToolDefinitionKind = "function") -> ToolDefinition:
    return ToolDefinition(
        name=name, parameters_json_schema=schema, description=description or None, strict=False, kind=kind
    )


def history(asked: LlmRequest) -> list[ModelMessage]:
    """The conversation in pydantic-ai's words; what comes between two answers is one request."""
    found: list[ModelMessage] = []
    for message in asked.messages:
        if isinstance(message, Answered):
            found.append(ModelResponse(parts=_said_by_model(message)))
        elif found and isinstance(found[-1], ModelRequest):
            found[-1] = ModelRequest(parts=[*found[-1].parts, _told(message)], instructions=asked.instructions or None)
        else:
            found.append(ModelRequest(parts=[_told(message)], instructions=asked.instructions or None))
    return found


def _told(message: Message) -> ModelRequestPart:
    if isinstance(message, ToolResult):
        outcome: Any = "failed" if message.failed else "success"
        return ToolReturnPart(message.tool, message.text, message.id, outcome=outcome)
    assert isinstance(message, Said)
    return UserPromptPart(message.text)


def _said_by_model(message: Answered) -> list[ModelResponsePart]:
    text: list[ModelResponsePart] = [TextPart(message.text)] if message.text else []
    return [*text, *(ToolCallPart(it.tool, it.arguments, it.id) for it in message.calls)]


def answer_of(response: ModelResponse, secret: str = "") -> LlmAnswer:
    """An answer in our words; thinking and whatever else a provider adds is left out."""
    return LlmAnswer(
        text=encodable("".join(it.content for it in response.parts if isinstance(it, TextPart))),
        calls=[_call(it, secret) for it in response.parts if isinstance(it, ToolCallPart)],
        finish=response.finish_reason,
        model=encodable(response.model_name or ""),
        usage=_usage(response),
    )


def _usage(response: ModelResponse) -> Usage:
    return Usage(tokens_in=response.usage.input_tokens, tokens_out=response.usage.output_tokens)


def _call(part: ToolCallPart, secret: str) -> ToolCall:
    """A call; arguments that nobody here could hold are a fault, which the model is told."""
    args = encodable(part.args) if isinstance(part.args, str) else part.args
    call = ToolCall(id=encodable(part.tool_call_id), tool=encodable(part.tool_name))
    shown = f": {shortened(args, SAID_CHARS_MAX, secret)}" if isinstance(args, str) else ""
    try:
        arguments = replace(part, args=args).args_as_dict(raise_if_invalid=True)
    except (ValueError, TypeError, AssertionError):
        return call.model_copy(update={"fault": f"the arguments are no JSON object{shown}"})
    if why := _unfit(arguments):
        return call.model_copy(update={"fault": f"the arguments can not be used, {why}{shown}"})
    return call.model_copy(update={"arguments": arguments})


def _unfit(arguments: Any) -> str:
    """Why they can not be kept as JSON, in a journal and within another request; empty where they can."""
    for _ in range(LEVELS_AROUND):
        arguments = [arguments]
    try:
        orjson.dumps(arguments)
    except (orjson.JSONEncodeError, RecursionError) as error:
        return str(error)
    return ""
