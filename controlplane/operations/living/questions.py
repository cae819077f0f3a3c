"""`questions.list` and `questions.answer`: what agents ask of people. The gate decides whether one is open, and writes.

A question of a namespace that the caller does not reach is answered exactly like one that is not there.
"""

from typing import Any

import orjson
from sqlmodel import Session, and_, col, select, tuple_

from controlplane.operations.living import paging
from controlplane.operations.living.envelopes import encode, moment
from controlplane.operations.visibility import within
from controlplane.resources.problems import refuse
from controlplane.resources.questions import QuestionList
from controlplane.store.store import Store
from controlplane.store.tables import AgentRow, AwaitRow, JournalRow
from schemas.plan import Preview
from schemas.ports import GatePort, Handler
from schemas.principal import Call, Principal
from schemas.problem import Next, Refusal
from schemas.question import FOREVER, Answered, AnswerInput, QuestionListInput, QuestionView

Found = tuple[AwaitRow, str, str, str]


def handlers(store: Store, gate: GatePort) -> dict[str, Handler]:
    """The handlers of `questions.list` and `questions.answer`."""

    async def list_questions(call: Call, given: QuestionListInput) -> QuestionList:
        after = None if given.page is None else paging.decode(given.page, (float, str))
        rows = await store.read(lambda session: _page(session, given, after, call.principal))
        shown = rows[: given.limit]
        last = shown[-1][0] if len(rows) > given.limit else None
        return QuestionList(
            items=[_view(row) for row in shown],
            next_page=None if last is None else paging.encode([last.since, last.await_id]),
        )

    async def answer(call: Call, given: AnswerInput) -> Answered | Preview:
        encoded = encode(given.answer, "/answer")
        agent = await store.read(lambda session: _agent(session, given.question_id, call.principal))
        if agent is None:
            raise _absent(given.question_id)
        asked = {
            "question_id": given.question_id,
            "answer": orjson.loads(encoded),
            "principal": call.principal.name,
            "dry_run": call.dry_run,
        }
        told = await gate.control("answer", agent, asked)
        if call.dry_run:
            would = f"question {given.question_id} of {told['namespace']}/{told['agent']} would be answered"
            return Preview(operation=call.operation, would=[would], undo="none")
        return Answered(
            question_id=given.question_id,
            namespace=told["namespace"],
            agent=told["agent"],
            turn_id=told["turn_id"],
            answer=given.answer,
            answered_by=call.principal.name,
            answered_at=moment(told["answered_at"]),
        )

    return {"questions.list": list_questions, "questions.answer": answer}


def _page(session: Session, given: QuestionListInput, after: list[Any] | None, principal: Principal) -> list[Found]:
    asked = and_(
        col(JournalRow.turn_id) == col(AwaitRow.turn_id),
        col(JournalRow.branch) == col(AwaitRow.branch),
        col(JournalRow.position) == col(AwaitRow.position),
    )
    query = (
        select(AwaitRow, AgentRow.namespace, AgentRow.name, JournalRow.body)
        .join(AgentRow, col(AgentRow.uid) == col(AwaitRow.agent))
        .join(JournalRow, asked)
        .where(AwaitRow.kind == "question", col(AwaitRow.resolved_at).is_(None))
        .where(*within(principal, AgentRow.namespace))
    )
    if given.namespace is not None:
        query = query.where(AgentRow.namespace == given.namespace)
    if given.agent is not None:
        query = query.where(AgentRow.name == given.agent)
    place = tuple_(col(AwaitRow.since), col(AwaitRow.await_id))
    if after is not None:
        query = query.where(place > tuple_(*after))
    ordered = query.order_by(col(AwaitRow.since), col(AwaitRow.await_id)).limit(given.limit + 1)
    return list(session.exec(ordered))


def _view(found: Found) -> QuestionView:
    row, namespace, name, text = found
    body = orjson.loads(text)
    return QuestionView(
        question_id=row.await_id,
        namespace=namespace,
        agent=name,
        turn_id=row.turn_id or "",
        question=body["question"],
        choices=body["choices"],
        since=moment(row.since),
        until=None if row.until >= FOREVER else moment(row.until),
    )


def _agent(session: Session, question_id: str, principal: Principal) -> str | None:
    """The uid of who asks; None where the caller sees no such question."""
    query = (
        select(AgentRow.uid)
        .join(AwaitRow, col(AwaitRow.agent) == col(AgentRow.uid))
        .where(AwaitRow.await_id == question_id, AwaitRow.kind == "question")
        .where(*within(principal, AgentRow.namespace))
    )
    return session.exec(query).first()


def _absent(question_id: str) -> Refusal:
    return refuse(
        "NOT_FOUND",
        f"there is no question {question_id}",
        field="/question_id",
        next=[Next(operation="questions.list", why="shows the questions that are open")],
        kind="Question",
        question_id=question_id,
    )
