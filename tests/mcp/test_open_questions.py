"""Which questions a call finds, and which answers it takes: no more than it asked, whatever else goes wrong."""

import asyncio
from types import SimpleNamespace as Of
from typing import Any

import mcp_types as types
import orjson
import pytest

from controlplane.resources.problems import refuse
from mcp_server.eliciting import InputNeededError, Returning
from mcp_server.open_questions import QUESTIONS_MAX, OpenQuestions
from schemas.principal import Principal
from schemas.question import QuestionView

pytestmark = pytest.mark.anyio
WHO = Principal("op", "operator", ("default",))


def question(question_id: str, agent: str) -> QuestionView:
    given: dict[str, Any] = {"question_id": question_id, "namespace": "default", "agent": agent, "question": "Go?"}
    return QuestionView.model_construct(**given, choices=None)


class Reads:
    """The operations that looking for questions calls."""

    def __init__(self, waiting: dict[str, list[str]]) -> None:
        self.waiting, self.open = waiting, dict[str, QuestionView]()
        self.answered: list[str] = []

    async def __call__(self, _: Principal, operation: str, given: dict[str, Any]) -> Any:
        if given.get("namespace", "default") != "default":
            raise refuse("FOREIGN_NAMESPACE", "it is of another namespace", namespace=given["namespace"])
        match operation:
            case "questions.list":
                return Of(items=[it for it in self.open.values() if given.get("agent") in (None, it.agent)])
            case "agents.inspect":
                return Of(waiting_on=[Of(kind="ask", on=it) for it in self.waiting.get(given["name"], [])])
            case "questions.answer":
                self.answered.append(given["question_id"])
                return None
            case "system.brief":
                return Of(cursor="0")
        await asyncio.sleep(0.01)
        return Of(cursor="0")


async def test_an_agent_of_another_namespace_hides_no_question_of_the_others() -> None:
    """Of those that an agent waits for, one is not seen; what the next one asks is shown."""
    reads = Reads({"asked": ["guests/ann", "default/below"]})
    reads.open = {"q1": question("q1", "below")}
    assert list(await OpenQuestions(reads, reads, WHO, "default", "asked").open()) == ["q1"]


async def test_only_what_was_asked_is_answered_and_a_few_at_most() -> None:
    """However many answers come with a call, and whatever its state says."""
    accepted = types.ElicitResult(action="accept", content={"answer": "yes"})
    asked = [f"q{n}" for n in range(50)]
    reads = Reads({})
    reads.open = {"next": question("next", "asked")}
    params = types.CallToolRequestParams(
        name="act",
        input_responses=dict.fromkeys([*asked, "never asked"], accepted),
        request_state=orjson.dumps({"request_id": "r", "seen": asked}).decode(),
    )
    with pytest.raises(InputNeededError):
        await Returning(reads, reads, WHO, params)._meet(OpenQuestions(reads, reads, WHO, "default", "asked"))
    assert reads.answered == asked[-QUESTIONS_MAX:]
