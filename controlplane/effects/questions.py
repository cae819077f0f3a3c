"""Questions to people: the first answer resolves one, once; the same one again is the same.

An answer is no message: it passes the mailbox that a parked turn holds, and goes to the await itself, in one
unit with the journal and the event that tells of it. Whoever comes second hears what came first.
"""

from dataclasses import dataclass
from typing import Any

import msgspec
import orjson

from controlplane.effects import journaling
from controlplane.effects.controls import Answer
from controlplane.effects.node import Node
from controlplane.resources.problems import problem
from controlplane.store import questions as sql
from schemas.base import canonical
from schemas.frames import Control
from schemas.problem import Next, Problem


class Given(msgspec.Struct):
    """What a person answers; `answer` is JSON."""

    question_id: str
    answer: msgspec.Raw
    principal: str
    dry_run: bool = False


@dataclass(frozen=True)
class Question:
    """A question, as it is recorded."""

    namespace: str
    name: str
    turn_id: str
    body: str
    outcome: str | None
    result: str | None
    resolved_at: float | None
    answered_by: str | None

    @property
    def told(self) -> dict[str, Any]:
        return {
            "namespace": self.namespace, "agent": self.name, "turn_id": self.turn_id, "answered_at": self.resolved_at
        }  # fmt: skip


def answer(node: Node, frame: Control, done: Answer) -> None:
    """Answer an open question."""
    given = msgspec.json.decode(frame.argument, type=Given)
    row = node.reader.one(sql.QUESTION, given.question_id)
    if row is None:
        detail = f"there is no question {given.question_id}"
        done(problem("NOT_FOUND", detail, field="/question_id", kind="Question", question_id=given.question_id))
        return
    question = Question(*row)
    if question.outcome is not None:
        done(question.told if _same(question, given) else _not_open(question, given))
    elif (wrong := _no_choice(question, given)) is not None:
        done(wrong)
    elif given.dry_run:
        done(question.told)
    else:
        _resolve(node, frame, question, given, done)


def _resolve(node: Node, frame: Control, question: Question, given: Given, done: Answer) -> None:
    now, address = node.clock(), (question.namespace, question.name)
    rows = journaling.person_answered(
        given.question_id, bytes(given.answer), given.principal, address, question.turn_id, now
    )

    def answered(outcome: str, detail: str) -> None:
        if outcome == "ok":
            node.timers.resolved(given.question_id)
            done({**question.told, "answered_at": now})
        elif outcome == "conflict":  # somebody was first: what there is to say of that is in the records now
            answer(node, frame, done)
        else:
            reason, _, text = detail.partition(": ")
            done(problem(reason, f"nothing was answered: {text}", cause=text))

    node.commit("answer", rows, answered)


def _same(question: Question, given: Given) -> bool:
    if question.outcome != "answered" or question.answered_by != given.principal:
        return False
    return canonical(orjson.loads(question.result or "null")) == canonical(orjson.loads(bytes(given.answer)))


def _no_choice(question: Question, given: Given) -> Problem | None:
    choices = orjson.loads(question.body)["choices"]
    if choices is None or orjson.loads(bytes(given.answer)) in choices:
        return None
    said = ", ".join(repr(it) for it in choices)
    detail = f"the answer to {given.question_id} is one of: {said}"
    return problem(
        "INVALID_VALUE", detail, field="/answer", next=[_look(question)],
        question_id=given.question_id, choices=choices,
    )  # fmt: skip


def _not_open(question: Question, given: Given) -> Problem:
    how = {
        "answered": f"{question.answered_by} has answered it",
        "timeout": "its time is over",
    }.get(question.outcome or "", "its turn does not wait for it any more")
    detail = f"question {given.question_id} is not open: {how}"
    return problem(
        "NOT_OPEN", detail, field="/question_id", next=[_look(question)], question_id=given.question_id, why=how
    )


def _look(question: Question) -> Next:
    arguments = {"namespace": question.namespace, "agent": question.name}
    return Next(operation="questions.list", arguments=arguments, why="shows the questions that are open")
