"""Delayed messages: what waits for its time, as it is looked at and cancelled."""

from typing import Any, Literal

from pydantic import Field

from schemas.base import Frozen, Identifier, Name, Output, Time
from schemas.calls import Imperative, Limit, Page

Target = Literal["Agent", "Channel"]


class DelayedListInput(Frozen):
    """A page of delayed messages, in the order in which they were taken in."""

    namespace: Name | None = None
    kind: Target | None = Field(default=None, description="Only what goes to agents, or to channels.")
    name: Name | None = Field(default=None, description="Only what goes to the agent or channel of this name.")
    limit: Limit = 100
    page: Page | None = None


class DelayedView(Output):
    """A message that waits for its time, and how it goes then."""

    message_id: str
    kind: Target
    namespace: str
    name: str
    due_at: Time
    key: str | None
    priority: int
    expires_at: Time | None
    envelope: dict[str, Any]


class CancelDelayedInput(Imperative):
    """One delayed message."""

    namespace: Name = "default"
    kind: Target = Field(description="Whether it goes to an agent or to a channel.")
    name: Name
    message_id: Identifier


class CancelledDelayed(Output):
    """What came first: `cancelled`, and it goes nowhere; or `due`, and it has taken its place."""

    message_id: str
    outcome: Literal["cancelled", "due"]
