"""One exchange with a model: a prompt, as many requests and calls as it takes, an answer.

Every request is an effect and every call is one, or a question to another agent, so that a replay asks
nobody again. What a call came to is told to the model, a refusal of the guard too. An answer that does not
meet its schema is told why, and asked for again, so often and no more.
"""

from datetime import datetime, timedelta
from typing import Any

import orjson

from ray_runtime.awaits import Promise
from ray_runtime.problems import refuse
from ray_runtime.sdk import Turn
from schemas.envelope import Envelope
from schemas.llm import (
    OUTPUT_TOOL,
    Answered,
    Llm,
    LlmAnswer,
    LlmRequest,
    LlmTool,
    Message,
    Offer,
    Said,
    ToolCall,
    ToolResult,
)
from schemas.problem import Refusal

EFFECT = "llm.request"
RESULT_CHARS_MAX = 8000
ASKED: dict[str, Any] = {
    "type": "object",
    "properties": {"data": {"description": "What the agent is asked."}},
    "required": ["data"],
}
QUESTION: dict[str, Any] = {
    "type": "object",
    "properties": {
        "question": {"type": "string", "minLength": 1},
        "choices": {"type": "array", "items": {"type": "string"}, "description": "If it is one of these."},
    },
    "required": ["question"],
}
DAY_S = 86_400.0
BUSY_MAX = 5  # requests that are made of one, when the model says each time when it may be asked again
_OURS = ("connection", "purpose")  # the turn's own words, which no argument of an effect may be


class Exchange:
    """What is said in one turn; `messages` is all of it, `called` what its calls asked of the world."""

    def __init__(self, turn: Turn, llm: Llm, earlier: list[Message], until: datetime | None = None) -> None:
        self.messages: list[Message] = []
        self.called: list[tuple[ToolCall, Promise[Any]]] = []
        self._turn = turn
        self._llm = llm
        self._earlier = earlier
        self._until = until
        self._tools = {it.name: it for it in llm.tools}
        self._mistakes = 0

    async def answer(self, prompt: str) -> Any:
        """The model's answer: text, or what its schema says."""
        self.messages.append(Said(text=prompt))
        for _ in range(self._llm.requests_max):
            answered = await self._request()
            self.messages.append(Answered(text=answered.text, calls=answered.calls))
            if not answered.calls and self._llm.output is None:
                return whole(answered).text
            final = self._final(answered.calls)
            await self._call_all(answered.calls, final)
            if final is not None:
                return final.arguments
            self._require_patience(answered)
        most = self._llm.requests_max
        raise refuse("LIMIT_REACHED", f"no answer after {most} requests to the model", limit="requests_max", max=most)

    async def _request(self) -> LlmAnswer:
        asked = request(self._llm, [*self._earlier, *self.messages], [offer(it) for it in self._llm.tools])
        asked = asked.model_copy(update={"output": self._llm.output, "stream": self._llm.stream})
        for _ in range(BUSY_MAX - 1):
            try:
                return await ask(self._turn, self._llm, asked)
            except Refusal as refusal:
                await self._wait(refusal)
        return await ask(self._turn, self._llm, asked)

    async def _wait(self, refusal: Refusal) -> None:
        """Park until the model takes requests again; refused where it does not say when, or not in time."""
        after_s = refusal.problem.retry_after_s
        if refusal.problem.reason != "EFFECT_FAILED" or not after_s:
            raise refusal
        if self._until is not None and self._turn.now() + timedelta(seconds=after_s) >= self._until:
            raise refusal
        await self._turn.sleep(after_s)

    def _final(self, calls: list[ToolCall]) -> ToolCall | None:
        """The first answer that meets its schema."""
        if self._llm.output is None:
            return None
        return next((it for it in calls if it.tool == OUTPUT_TOOL and not it.fault), None)

    async def _call_all(self, calls: list[ToolCall], final: ToolCall | None) -> None:
        """What each call came to, in order. Beside a final answer nothing is done; agents alone are asked at once."""
        if final is None and len(calls) > 1 and all(self._asks(it) for it in calls):
            promises = [self._question(self._tools[it.tool], it.arguments) for it in calls]
            self.called += zip(calls, promises, strict=True)
            for call, found in zip(calls, await self._turn.gather(*promises, return_exceptions=True), strict=True):
                self._tell_of(call, found)
            return
        for call in calls:
            if final is not None:
                text = "This is the answer." if call is final else "It was not called: there is an answer already."
                self._tell(call, text, failed=False)
            elif call.fault:
                self._tell(call, call.fault, failed=True)
            else:
                await self._call(call)

    def _require_patience(self, answered: LlmAnswer) -> None:
        """Count an answer that fails its schema; refuse the one that is too many."""
        if self._llm.output is None:
            return
        wrong = [it.fault for it in answered.calls if it.tool == OUTPUT_TOOL and it.fault]
        if not answered.calls:
            wrong = ["there was text, and no call of it"]
            self.messages.append(Said(text=f"Answer by calling {OUTPUT_TOOL}."))
        self._mistakes += bool(wrong)
        most = self._llm.output_retries_max
        if self._mistakes > most:
            detail = f"the model's answer does not meet its schema, after {most} retries: {wrong[0]}"
            raise refuse("OUTPUT_MISMATCH", detail, error=wrong[0], max=most)

    async def _call(self, call: ToolCall) -> None:
        tool = self._tools.get(call.tool)
        if tool is None:
            self._tell(call, f"There is no tool {call.tool}.", failed=True)
            return
        try:
            promise = self._promise(tool, call.arguments)
            self.called.append((call, promise))
            self._tell_of(call, await promise)
        except Refusal as refusal:
            self._tell_of(call, refusal)

    def _asks(self, call: ToolCall) -> bool:
        return not call.fault and call.tool in self._tools and self._tools[call.tool].agent is not None

    def _question(self, tool: LlmTool, given: dict[str, Any]) -> Promise[Envelope]:
        assert tool.agent is not None
        asked = given if tool.parameters is not None else given.get("data")
        return self._turn.ask(tool.agent, asked, deadline_s=tool.deadline_s or DAY_S)

    def _promise(self, tool: LlmTool, given: dict[str, Any]) -> Promise[Any]:
        if tool.agent is not None:
            return self._question(tool, given)
        if tool.person:
            wait_s = tool.deadline_s or DAY_S
            return self._turn.ask_human(given.get("question", ""), given.get("choices"), deadline_s=wait_s)
        if taken := [it for it in _OURS if it in given]:
            raise refuse("INVALID_VALUE", f"{taken[0]} is no argument", field=f"/arguments/{taken[0]}", name=taken[0])
        assert tool.effect is not None
        return self._turn.perform(tool.effect, connection=tool.connection, **{**given, **tool.fixed})

    def _tell_of(self, call: ToolCall, found: Any) -> None:
        if isinstance(found, Refusal):
            problem = found.problem
            told = {"reason": problem.reason, "detail": problem.detail, "field": problem.field}
            self._tell(call, orjson.dumps(told).decode(), failed=True)
            return
        value = found.data if isinstance(found, Envelope) else found
        self._tell(call, value if isinstance(value, str) else orjson.dumps(value).decode(), failed=False)

    def _tell(self, call: ToolCall, text: str, *, failed: bool) -> None:
        if len(text) > RESULT_CHARS_MAX:
            text = f"{text[:RESULT_CHARS_MAX]}… (cut off here; it has {len(text)} characters)"
        self.messages.append(ToolResult(id=call.id, tool=call.tool, text=text, failed=failed))


def offer(tool: LlmTool) -> Offer:
    """A tool as the model is told of it."""
    by_default = QUESTION if tool.person else ASKED if tool.agent is not None else None
    return Offer(
        name=tool.name,
        description=tool.description,
        effect=tool.effect,
        fixed=sorted(tool.fixed),
        parameters=tool.parameters or by_default,
        connection=tool.connection,
    )


def request(llm: Llm, messages: list[Message], tools: list[Offer]) -> LlmRequest:
    """What the model is asked."""
    return LlmRequest(
        model=llm.model,
        instructions=llm.instructions,
        messages=messages,
        tools=tools,
        output_tokens_max=llm.output_tokens_max,
    )


async def ask(turn: Turn, llm: Llm, asked: LlmRequest) -> LlmAnswer:
    """One request to the model; raises the Refusal that it came to."""
    arguments = asked.model_dump(mode="json")
    return LlmAnswer.model_validate(await turn.perform(EFFECT, connection=llm.connection, **arguments))


def whole(answered: LlmAnswer) -> LlmAnswer:
    """The answer; refused when it broke off at its limit, so that half an answer is never told as one."""
    if answered.finish == "length":
        detail = "the model's answer was cut off: it has no more tokens"
        raise refuse("LIMIT_REACHED", detail, limit="output_tokens_max")
    return answered
