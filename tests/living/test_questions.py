"""Questions of agents to people, through a real gate to a real host, on both databases."""

import asyncio
from typing import Any

import pytest
from sqlmodel import col, select

from controlplane.operations.asked import open_questions
from controlplane.store.tables import EventRow
from schemas.calls import AskInput, Named, SendInput
from schemas.problem import Problem, Refusal
from schemas.question import AnswerInput, QuestionListInput
from tests.living import world
from tests.living.conftest import Living

pytestmark = pytest.mark.anyio

ANN, BOB = world.operator("ann"), world.operator("bob")


async def asked(living: Living, count: int = 1, **filters: Any) -> list[Any]:
    """So many open questions, once they are there."""

    async def there() -> Any:
        found = await living.call("questions.list", QuestionListInput(**filters))
        return [found.items] if len(found.items) == count else None

    return list((await living.until(there))[0])


async def answer(living: Living, question_id: str, given: Any, principal: Any = ANN, **about: Any) -> Any:
    return await living.call(
        "questions.answer", AnswerInput(question_id=question_id, answer=given), principal=principal, **about
    )


async def refused(living: Living, question_id: str, given: Any, principal: Any = ANN) -> Problem:
    with pytest.raises(Refusal) as caught:
        await answer(living, question_id, given, principal)
    return caught.value.problem


async def events(living: Living) -> list[tuple[str, str | None]]:
    """What the feedback log says of questions."""
    query = select(EventRow.type, EventRow.principal).where(col(EventRow.type).startswith("question."))
    rows = await living.store.read(lambda session: list(session.exec(query.order_by(col(EventRow.cursor)))))
    return [(kind, principal) for kind, principal in rows]


async def test_a_question_is_answered_once(living: Living) -> None:
    """It says who asks what; an answer is one of the choices, the first one counts, and the same again is the same."""
    await living.agent("person", "Person")
    whole = AskInput(name="person", data={"choices": ["yes", "no"], "forever": True})
    asking = asyncio.ensure_future(living.call("agents.ask", whole))
    question = (await asked(living, namespace="default", agent="person"))[0]
    assert (question.agent, question.question, question.choices, question.until) == (
        "person", "Shall I?", ["yes", "no"], None
    )  # fmt: skip
    assert (await living.call("agents.inspect", Named(name="person"))).waiting_on[0].kind == "question"
    for principal, count in ((ANN, 1), (world.operator("ann", "elsewhere"), 0)):
        assert await living.store.read(lambda session, who=principal: open_questions(session, who)) == count
    abroad = world.operator("ann", "elsewhere")
    told = [await refused(living, it, "yes", abroad) for it in (question.question_id, "question_none")]
    assert told[0].detail.replace(question.question_id, "question_none") == told[1].detail
    assert (await living.call("questions.list", QuestionListInput(), principal=abroad)).items == []
    wrong = await refused(living, question.question_id, "maybe")
    assert (wrong.reason, wrong.field, wrong.metadata["choices"]) == ("INVALID_VALUE", "/answer", ["yes", "no"])
    preview = await answer(living, question.question_id, "yes", dry_run=True)
    assert preview.would
    first = await answer(living, question.question_id, "yes")
    assert (await asking).reply == "yes"
    assert await answer(living, question.question_id, "yes") == first
    for given, who in (("no", ANN), ("yes", BOB)):
        assert (await refused(living, question.question_id, given, who)).reason == "NOT_OPEN"
    assert await asked(living, 0) == []
    assert await events(living) == [("question.asked", None), ("question.answered", "ann")]


async def test_questions_are_gathered_and_listed_by_pages(living: Living) -> None:
    """Several at once beside an ask, the longest open first, page by page; each has an id of its own."""
    await living.agent("echo", "Echo")
    await living.agent("several", "Several")
    asking = asyncio.ensure_future(living.call("agents.ask", AskInput(name="several", data=["a?", "b?", "c?"])))
    whole = await asked(living, 3)
    first = await living.call("questions.list", QuestionListInput(limit=2))
    rest = await living.call("questions.list", QuestionListInput(limit=2, page=first.next_page))
    assert [*first.items, *rest.items] == whole
    assert rest.next_page is None
    for it in reversed(whole):
        await answer(living, it.question_id, it.question.upper())
    assert (await asking).reply == [1, "A?", "B?", "C?"]


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_the_first_of_answers_deadline_and_deletion_stands(living: Living) -> None:
    """Of several at once one is taken; after DEADLINE it is not open; of an agent that was deleted there is none."""
    uid = await living.agent("person", "Person")
    asking = asyncio.ensure_future(living.call("agents.ask", AskInput(name="person", data={})))
    (question,) = await asked(living)
    people = [world.operator(f"p{number}") for number in range(8)]
    told = await asyncio.gather(
        *(answer(living, question.question_id, it.name, it) for it in people), return_exceptions=True
    )
    stands = [it.answer for it in told if not isinstance(it, BaseException)]
    assert stands == [(await asking).reply]
    assert {it.problem.reason for it in told if isinstance(it, Refusal)} == {"NOT_OPEN"}

    asking = asyncio.ensure_future(living.call("agents.ask", AskInput(name="person", data={"deadline_s": 0.3})))
    (question,) = await asked(living)
    assert (await asking).reply == "DEADLINE"
    late = await refused(living, question.question_id, "yes")
    assert (late.reason, late.metadata["why"]) == ("NOT_OPEN", "its time is over")
    assert (await events(living))[-2:] == [("question.asked", None), ("question.expired", None)]

    await living.call("agents.send", SendInput(name="person", data={}))
    (question,) = await asked(living)
    await living.gate.control("remove", uid, {})
    assert (await refused(living, question.question_id, "yes")).reason == "NOT_FOUND"
    assert await asked(living, 0) == []
