"""Dead letters: messages that were given up, as they are looked at and put back."""

from typing import Annotated, Any

from pydantic import Field

from schemas.base import Frozen, Identifier, Name, Output, Time
from schemas.calls import Imperative, Limit, Page

REDRIVEN_MAX = 1000
Letters = Annotated[list[Identifier], Field(min_length=1, max_length=REDRIVEN_MAX)]


class DeadLetterListInput(Frozen):
    """A page of dead letters, the oldest first."""

    namespace: Name | None = None
    name: Name | None = Field(
        default=None, description="A channel that they came by, an agent, whose inbox is one, or a route."
    )
    reason: Identifier | None = Field(default=None, description="Only those that were given up for this reason.")
    limit: Limit = 100
    page: Page | None = None


class DeadLetterView(Output):
    """A message that was given up: whose, which way it came, why, and the message itself."""

    dead_letter_id: str
    namespace: str
    name: str = Field(description="The agent that gave it up, or what it was for and did not find.")
    channel: str | None = Field(description="The channel that it came by; null where it was sent to the inbox.")
    message_id: str
    trigger: str = Field(
        description="message, reply, batch, timer or start; queue, of which a member gave it up; publish, where a "
        "channel was not there, or no member of a queue had it in time."
    )
    reason: str
    detail: str
    turn_id: str | None
    at: Time
    envelope: dict[str, Any]


class RedriveInput(Imperative):
    """Which dead letters shall be put back: some by their ids, or the oldest of a channel, an agent, a namespace."""

    namespace: Name = "default"
    name: Name | None = Field(
        default=None, description="A channel that they came by, an agent, whose inbox is one, or a route."
    )
    reason: Identifier | None = Field(default=None, description="Only those that were given up for this reason.")
    dead_letter_ids: Letters | None = Field(default=None, description="Only these.")
    limit: Annotated[int, Field(ge=1, le=REDRIVEN_MAX)] = 100


class RedrivenLetter(Output):
    """A dead letter that is a message again, under an id of its own."""

    dead_letter_id: str
    namespace: str
    name: str
    message_id: str


class LeftLetter(Output):
    """A dead letter that stays one, and why."""

    dead_letter_id: str
    reason: str
    detail: str


class Redriven(Output):
    """What came of each; `remaining` are those that were asked for and are beyond the limit."""

    redriven: list[RedrivenLetter]
    left: list[LeftLetter]
    remaining: int
