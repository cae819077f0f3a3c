"""Which questions a call finds, and which answers it takes: no more than it asked, whatever else goes wrong."""

import asyncio
from types import SimpleNamespace as Of
from typing import Any

import mcp_types as types
import orjson
import pytest

from controlplane.resources.problems import refuse
from mcp_server.back_channel import BackChannel, Requests
from mcp_server.eliciting import InputNeededError, Listening, Returning
from mcp_server.open_questions import QUESTIONS_MAX, OpenQuestions
from schemas.principal import Principal
from schemas.question import QuestionView

pytestmark = pytest.mark.anyio
WHO = Principal("op", "operator", ("default",))


def question(question_id: str, agent: str, namespace: str = "default") -> QuestionView:
    given: dict[str, Any] = {"question_id": question_id, "namespace": namespace, "agent": agent, "question": "Go?"}
    return QuestionView.model_construct(**given, choices=None)


class Reads:
    """The operations that looking for questions calls."""

    def __init__(self, waiting: dict[str, list[str]]) -> None:
        self.waiting, self.open = waiting, dict[str, QuestionView]()
        self.answered: list[str] = []

    async def __call__(self, who: Principal, operation: str, given: dict[str, Any]) -> Any:
        namespace = given.get("namespace")
        if namespace is not None and not who.reaches(namespace):
            raise refuse("FOREIGN_NAMESPACE", "it is of another namespace", namespace=namespace)
        match operation:
            case "questions.list":
                seen = [it for it in self.open.values() if who.reaches(it.namespace)]
                within = [it for it in seen if namespace in (None, it.namespace)]
                return Of(items=[it for it in within if given.get("agent") in (None, it.agent)])
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


@pytest.mark.parametrize(("reached", "shown"), [(("default",), []), (("default", "guests"), ["q1"]), (("*",), ["q1"])])
async def test_a_question_of_another_namespace_is_found_by_who_reaches_it(
    reached: tuple[str, ...], shown: list[str]
) -> None:
    """Also where it is the only one that is open; to all others it is as if it were not there."""
    reads = Reads({"asked": ["guests/ann"]})
    reads.open = {"q1": question("q1", "ann", "guests"), "q2": question("q2", "nobody asked", "guests")}
    who = Principal("op", "operator", reached)
    assert list(await OpenQuestions(reads, reads, who, "default", "asked").open()) == shown


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


async def test_more_questions_than_are_shown_at_once_are_shown_one_after_the_other() -> None:
    """A form stays as long as its question is open, whatever comes before it; when one is over, the next is shown."""
    below = [f"below{n}" for n in range(QUESTIONS_MAX + 1)]
    reads = Reads({"asked": [f"default/{it}" for it in below]})
    reads.open = {f"q-{it}": question(f"q-{it}", it) for it in below}
    asked, cancelled = list[str](), list[str]()

    class Client:
        async def ask(self, _: str, params: dict[str, Any]) -> Any:
            asked.append(params["message"])
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                cancelled.append(params["message"])
                raise

    async def until(number: int) -> None:
        async with asyncio.timeout(10):
            while len(asked) < number:  # noqa: ASYNC110 - the forms come when they come
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)
        assert len(asked) == number

    client: Any = Client()
    meeting = asyncio.ensure_future(
        Listening(reads, reads, WHO, client)._meet(OpenQuestions(reads, reads, WHO, "default", "asked"))
    )
    await until(QUESTIONS_MAX)
    reads.open = {"q-first": question("q-first", "asked"), **reads.open}
    await asyncio.sleep(0.1)
    assert cancelled == []
    del reads.open["q-below0"]
    await until(QUESTIONS_MAX + 1)
    assert cancelled == ["default/below0 asks: Go?"]
    assert asked[-1] == "default/asked asks: Go?"
    meeting.cancel()
    await asyncio.gather(meeting, return_exceptions=True)


async def test_what_was_never_sent_is_not_taken_back() -> None:
    """Who stops waiting before the answer to the call has begun leaves nothing in it, and waits for nothing."""
    sent = list[Any]()

    async def send(message: Any) -> None:
        sent.append(message)

    channel = BackChannel(Requests(), WHO.identity, send)
    asking = asyncio.ensure_future(channel.ask("elicitation/create", {}))
    await asyncio.sleep(0)
    asking.cancel()
    async with asyncio.timeout(5):
        await asyncio.gather(asking, return_exceptions=True)
    assert asking.cancelled()
    assert sent == []
