"""Feedback: one log, with a cursor, of what happened to both kinds of writer."""

from typing import Any

from pydantic import Field

from schemas.base import Frozen, Name, Output, Text, Time
from schemas.resource import Kind


class Subject(Output):
    """What an event is about; kinds of records beside resources carry their own word."""

    kind: str
    namespace: str
    name: str


class Event(Output):
    """One event. `cursor` is opaque to readers and grows in commit order."""

    cursor: str
    id: str
    type: str
    time: Time
    subject: Subject
    principal: str | None = None
    change_id: str | None = None
    turn_id: str | None = None
    data: dict[str, Any] = Field(default_factory=dict)


class EventFilter(Frozen):
    """All that is given must match; types match whole or by a prefix that ends in a dot and a star."""

    types: list[Text] = Field(default_factory=list, max_length=50)
    kind: Kind | None = None
    namespace: Name | None = None
    name: Name | None = None
    change_id: Text | None = None


class EventsFound(Output):
    """A batch of events, and the cursor to go on from."""

    events: list[Event]
    cursor: str
