"""Questions of agents to people: what a turn may ask, and what is shown and said of it."""

from typing import Annotated, Any

from pydantic import Field

from schemas.base import Frozen, Identifier, Name, Output, Text, Time
from schemas.calls import Imperative, Limit, Page

QUESTION_CHARS_MAX = 4000
CHOICES_MAX = 20
CHOICE_CHARS_MAX = 200
FOREVER = 253_370_764_800.0  # the year 9999: the end of an await that has none


class Asking(Frozen):
    """A question as a turn asks it; the answer is one of the choices, where there are any."""

    question: Annotated[Text, Field(min_length=1, max_length=QUESTION_CHARS_MAX)]
    choices: (
        Annotated[
            list[Annotated[Text, Field(min_length=1, max_length=CHOICE_CHARS_MAX)]],
            Field(min_length=1, max_length=CHOICES_MAX),
        ]
        | None
    ) = None


class QuestionListInput(Frozen):
    """A page of open questions, the longest open first."""

    namespace: Name | None = None
    agent: Name | None = None
    limit: Limit = 100
    page: Page | None = None


class QuestionView(Output):
    """An open question: who asks what, in which turn, since when, until when."""

    question_id: str
    namespace: str
    agent: str
    turn_id: str
    question: str
    choices: list[str] | None = Field(description="The answer must be one of these; null when anything goes.")
    since: Time
    until: Time | None = Field(description="After this the turn goes on without an answer; null is never.")


class AnswerInput(Imperative):
    """The answer to one open question."""

    question_id: Identifier
    answer: Any = Field(description="Any JSON; one of the choices, where the question has choices.")


class Answered(Output):
    """A question, after it was answered."""

    question_id: str
    namespace: str
    agent: str
    turn_id: str
    answer: Any
    answered_by: str
    answered_at: Time
