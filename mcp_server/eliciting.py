"""Bringing questions of agents to the person at the client that waits for the answer.

Only where the client says that it shows forms. A client of 2026-07-28 is asked by the result: the call ends, and comes
again with what the person said; what it brings along as its state is where to go on, and no more is believed of it than
of any argument. An older one is asked along the stream of its call. An answer is `questions.answer` of who gave it; who
declines or closes the form leaves the question to others. This is no approval: the guard does not look at it.
"""

import asyncio
import secrets
from abc import ABC, abstractmethod
from collections.abc import Awaitable
from typing import Any

import mcp_types as types
import orjson
from mcp import MCPError

from controlplane.resources.catalogue import OPERATIONS
from mcp_server.back_channel import BackChannel, ClosedError, elicits
from mcp_server.callers import Caller, Context, principal_of
from mcp_server.hints import may
from mcp_server.open_questions import QUESTIONS_MAX, OpenQuestions
from schemas.principal import Principal
from schemas.problem import Refusal
from schemas.question import QuestionView

LOOK_AFTER_S = 0.1  # what is answered at once needs nobody to look for questions
SEEN_MAX = 100
ANSWER = "questions.answer"


class InputNeededError(Exception):
    """The call ends with questions to the person, and comes again."""

    def __init__(self, result: types.InputRequiredResult) -> None:
        super().__init__()
        self.result = result


class Person(ABC):
    """Whoever sits at the client of one call."""

    def __init__(self, call: Caller, read: Caller, principal: Principal) -> None:
        self._call, self._read, self._principal = call, read, principal
        self.asked_back = False  # the call ends, and what it asked stays asked

    def named(self, given: dict[str, Any]) -> dict[str, Any]:
        """The input of `agents.ask`, so that a call that comes again is the same question."""
        return given

    async def beside(self, asking: Awaitable[Any], given: dict[str, Any]) -> Any:
        """What an agent answers; until then the person is asked. Raises InputNeededError where the call ends for it."""
        namespace, name = given.get("namespace", "default"), given.get("name")
        questions = OpenQuestions(self._call, self._read, self._principal, str(namespace), str(name))
        working = asyncio.ensure_future(asking)
        meeting = asyncio.ensure_future(self._meet(questions))
        try:
            await asyncio.wait((working, meeting), return_when=asyncio.FIRST_COMPLETED)
            if not working.done() and isinstance(needed := meeting.exception(), InputNeededError):
                self.asked_back = True
                raise needed
            if not working.done() and not isinstance(needed, Refusal):
                meeting.result()
            return await working
        finally:
            for task in (working, meeting):
                task.cancel()
            await asyncio.gather(working, meeting, return_exceptions=True)

    @abstractmethod
    async def _meet(self, questions: OpenQuestions) -> None:
        """Have the person asked; ends, or raises, when the call has to."""


class Returning(Person):
    """Asked by the result, as clients of 2026-07-28 are."""

    def __init__(self, call: Caller, read: Caller, principal: Principal, params: types.CallToolRequestParams) -> None:
        super().__init__(call, read, principal)
        self._request_id, self._seen = _state(params.request_state)
        self._responses = params.input_responses or {}
        self._faults: dict[str, str] = {}

    def named(self, given: dict[str, Any]) -> dict[str, Any]:
        if given.get("request_id") is None:
            return {**given, "request_id": self._request_id}
        return given

    async def _meet(self, questions: OpenQuestions) -> None:
        shown = [it for it in self._seen if it in self._responses]  # what was not asked is no answer
        for question_id in shown[-QUESTIONS_MAX:]:
            told = self._responses[question_id]
            if isinstance(told, types.ElicitResult) and told.action == "accept":
                fault = await questions.answer(self._principal, question_id, told.content)
                if fault is not None:
                    self._faults[question_id] = fault
        self._seen = [it for it in self._seen if it not in self._faults]
        await asyncio.sleep(LOOK_AFTER_S)
        cursor = await questions.cursor()
        while not (found := [it for it in (await questions.open()).values() if it.question_id not in self._seen]):
            cursor = await questions.changed(cursor)
        raise InputNeededError(self._asks(found[:QUESTIONS_MAX]))

    def _asks(self, found: list[QuestionView]) -> types.InputRequiredResult:
        seen = [*self._seen, *(it.question_id for it in found)][-SEEN_MAX:]
        state = orjson.dumps({"request_id": self._request_id, "seen": seen}).decode()
        forms: Any = {it.question_id: _request(it, self._faults.get(it.question_id)) for it in found}
        return types.InputRequiredResult(input_requests=forms, request_state=state)


class Listening(Person):
    """Asked along the stream of its call, as clients of the handshake era are."""

    def __init__(self, call: Caller, read: Caller, principal: Principal, channel: BackChannel) -> None:
        super().__init__(call, read, principal)
        self._channel = channel

    async def _meet(self, questions: OpenQuestions) -> None:
        await asyncio.sleep(LOOK_AFTER_S)
        cursor = await questions.cursor()
        shown: dict[str, asyncio.Task[None]] = {}
        ending: set[asyncio.Task[None]] = set()
        try:
            while True:
                found = await questions.open()
                for question_id in shown.keys() - found.keys():
                    over = shown.pop(question_id)
                    over.cancel()
                    ending.add(over)
                    over.add_done_callback(ending.discard)
                waiting = [it for it in found if it not in shown]
                room = QUESTIONS_MAX - sum(not it.done() for it in shown.values())
                for question_id in waiting[: max(room, 0)]:
                    shown[question_id] = asyncio.ensure_future(self._show(questions, found[question_id]))
                cursor = await questions.changed(cursor)
        finally:
            last = [*shown.values(), *ending]
            for task in last:
                task.cancel()
            await asyncio.gather(*last, return_exceptions=True)

    async def _show(self, questions: OpenQuestions, question: QuestionView) -> None:
        """Until it is answered, or the person does not want to."""
        fault = None
        while True:
            params = _request(question, fault).params.model_dump(mode="json", by_alias=True, exclude_none=True)
            params.pop("mode", None)  # a form is what is meant without it, and older clients know none
            try:
                told = await self._channel.ask("elicitation/create", params)
                result = types.ElicitResult.model_validate(told.result)
            except (ClosedError, ValueError):
                return
            if result.action != "accept":
                return
            fault = await questions.answer(told.principal, question.question_id, result.content)
            if fault is None:
                return


def person_at(context: Context, params: types.CallToolRequestParams, call: Caller, read: Caller) -> Person | None:
    """Whoever can be asked in a call; None where the client shows no forms, or the caller may not answer."""
    assert context.request is not None
    principal = principal_of(context)
    if not may(principal, OPERATIONS[ANSWER]) or principal.agent is not None:
        return None
    channel = context.request.scope["state"].get("back_channel")
    if channel is not None:
        return Listening(call, read, principal, channel)
    can = context.session.client_capabilities
    if can is None or not elicits(can.model_dump(mode="json", by_alias=True, exclude_none=True)):
        return None
    return Returning(call, read, principal, params)


def _request(question: QuestionView, fault: str | None) -> types.ElicitRequest:
    answer: Any = {"type": "string", "title": "Answer"}
    if question.choices:
        answer["enum"] = question.choices
    message = f"{question.namespace}/{question.agent} asks: {question.question}"
    return types.ElicitRequest(
        params=types.ElicitRequestFormParams(
            message=f"{fault}\n\n{message}" if fault else message,
            requested_schema={"type": "object", "properties": {"answer": answer}, "required": ["answer"]},
        )
    )


def _state(text: str | None) -> tuple[str, list[str]]:
    """The request id that a call goes on under, and the questions that were shown; raises MCPError."""
    if text is None:
        return secrets.token_hex(16), []
    try:
        state = orjson.loads(text)
        request_id, seen = state["request_id"], state["seen"]
    except (ValueError, KeyError, TypeError):
        raise MCPError(types.INVALID_PARAMS, "the request state is not one of ours") from None
    if not isinstance(request_id, str) or not isinstance(seen, list):
        raise MCPError(types.INVALID_PARAMS, "the request state is not one of ours")
    return request_id, [str(it) for it in seen[:SEEN_MAX]]
