"""Envelope: everything inside is a CloudEvent 1.0, with our extensions in lower case."""

from typing import Any, Literal

from pydantic import Field

from schemas.base import Frozen, Time


class Envelope(Frozen):
    """A message. Extension attributes are lower-case scalars, as CloudEvents 1.0 asks."""

    specversion: Literal["1.0"] = "1.0"
    id: str
    source: str
    type: str
    subject: str | None = None
    time: Time
    datacontenttype: Literal["application/json"] = "application/json"
    data: Any = None
    traceparent: str | None = None
    causationid: str | None = None
    onbehalfof: str | None = None
    deadline: Time | None = None
    intentid: str | None = None
    chainid: str | None = Field(
        default=None, description="The chain that it lies within: the id of the message which that begins with."
    )
    scope: str | None = None
    taint: str | None = None
    partitionkey: str | None = None
    position: str | None = None
    capability: str | None = Field(
        default=None, description="What of its agent's capabilities is asked for, if the sender says."
    )
    conversationid: str | None = Field(
        default=None, description="The conversation that it belongs to, as whoever sent it names it."
    )
    origin: str | None = Field(default=None, description="Of what came from outside: what it calls itself.")
    priority: int | None = Field(default=None, description="From 1 to 9; the highest goes first.")
    expires: Time | None = Field(default=None, description="It is given up when no turn has begun with it by then.")
    replyto: str | None = Field(default=None, description="The await that an answer to this message resolves.")
    scheduledat: Time | None = Field(default=None, description="Of a timer: the time that it stands for.")
    missed: int | None = Field(
        default=None, description="Of a timer: how many scheduled times before it had no message of their own."
    )
    continues: str | None = Field(default=None, description="The turn that this one goes on from (`turn.continue_as`).")

    def __getitem__(self, key: Any) -> Any:
        """`envelope["x"]` is `envelope.data["x"]`."""
        return self.data[key]
