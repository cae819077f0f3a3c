"""Questions: what agents ask of people, and people's answers."""

from controlplane.resources.operation import Operation
from schemas.calls import ListOutput
from schemas.question import Answered, AnswerInput, QuestionListInput, QuestionView


class QuestionList(ListOutput[QuestionView]):
    """A page of open questions, the longest open first."""


OPERATIONS = (
    Operation(
        "questions.list",
        "List the questions that wait for a person",
        "What agents ask of people (`turn.ask_human`) and nobody has answered yet, the longest open first.",
        QuestionListInput,
        QuestionList,
        "GET",
        "/v1/questions",
        "read",
        "viewer",
        "namespace",
        problems=("INVALID_CURSOR",),
        untrusted=("/items/*/question", "/items/*/choices"),
        example={"namespace": "default", "limit": 20},
    ),
    Operation(
        "questions.answer",
        "Answer a question of an agent",
        "The first answer counts, and the turn goes on with it. The same answer of the same principal again is "
        "accepted as the same; another one is refused. Where the question has choices, it must be one of them.",
        AnswerInput,
        Answered,
        "POST",
        "/v1/questions/{question_id}/answer",
        "change",
        "operator",
        "record",
        imperative=True,
        problems=("NOT_FOUND", "NOT_OPEN", "TOO_LARGE", "NOT_READY"),
        example={"question_id": "question_1", "answer": "yes"},
    ),
)
