"""What the body of an entry may be, by its kind. Pure.

The SDK refuses at the call what is not so, with better words. But it runs beside the agent's code, so what a
host says is only taken within the same bounds: nothing of it may be more than the gate, its clock or its
database can bear.
"""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from schemas.agent import ENTRYPOINT_PATTERN
from schemas.base import INT64_MAX, NAME_PATTERN, TEXT_PATTERN
from schemas.branches import ORDER, Place
from schemas.budget import AMOUNT_MAX, LIMITS_MAX, METER_PATTERN
from schemas.conclusion import (
    ALTERNATIVE_CHARS_MAX,
    ALTERNATIVES_MAX,
    REFERENCE_PATTERN,
    REFERENCES_MAX,
    TEXT_CHARS_MAX,
)
from schemas.cron import CRON_CHARS_MAX, CRON_PATTERN, ZONE_CHARS_MAX, Missed, require_cron, require_zone
from schemas.entry import EVERY_S_MIN, GRANTS_MAX, NAME_CHARS_MAX, PURPOSE_CHARS_MAX, SECONDS_MAX
from schemas.polled import DETAIL_CHARS_MAX, POLL, REASON_CHARS_MAX, Fault
from schemas.posting import DELAY_S_MAX, PRIORITY_MAX, TTL_S_MAX
from schemas.question import CHOICE_CHARS_MAX, CHOICES_MAX, QUESTION_CHARS_MAX
from schemas.watch import TIMER_PREFIX

MEMBERS_MAX = 1_000_000  # more than a journal holds
MOMENT_MAX = 253_000_000_000  # Unix time within the calendar


def _whole(pattern: str) -> str:
    """The same for `re`, whose `$` stands before a line's end, too."""
    return pattern.removesuffix("$") + r"\Z"


_NAME = NAME_PATTERN.removeprefix("^").removesuffix("$")
Raw = msgspec.Raw
Most = Annotated[float, Meta(ge=0, le=AMOUNT_MAX)]
MeterName = Annotated[str, Meta(pattern=_whole(METER_PATTERN))]
Allowed = Annotated[dict[MeterName, Most], Meta(min_length=1, max_length=LIMITS_MAX)]
Address = Annotated[str, Meta(pattern=rf"^{_NAME}/{_NAME}\Z")]
Name = Annotated[str, Meta(pattern=_whole(NAME_PATTERN))]
Key = Annotated[str, Meta(pattern=_whole(TEXT_PATTERN), max_length=NAME_CHARS_MAX)]
TimerName = Annotated[str, Meta(pattern=_whole(TEXT_PATTERN), min_length=1, max_length=NAME_CHARS_MAX)]
Seconds = Annotated[float, Meta(ge=0, le=SECONDS_MAX)]
Period = Annotated[float, Meta(ge=EVERY_S_MIN, le=SECONDS_MAX)]
Position = Annotated[int, Meta(ge=0, le=INT64_MAX)]
Many = Annotated[int, Meta(ge=0, le=MEMBERS_MAX)]


class _Urgency(msgspec.Struct, kw_only=True):
    data: Raw
    priority: Annotated[int, Meta(ge=0, le=PRIORITY_MAX)] = 0
    ttl_s: Annotated[float, Meta(gt=0, le=TTL_S_MAX)] | None = None


class _Posted(_Urgency, kw_only=True):
    key: Key | None = None
    delay_s: Annotated[float, Meta(ge=0, le=DELAY_S_MAX)] = 0.0
    received_over: Name | None = None


class _Send(_Posted, kw_only=True):
    to: Address
    budget: Allowed | None = None


class _Publish(_Posted, kw_only=True):
    channel: Address


class _Join(msgspec.Struct):
    channel: Address
    start: Literal["now", "beginning", "cursor"]
    after: Position | None = None


class _Leave(msgspec.Struct):
    channel: Address


class _Question(_Urgency, kw_only=True):
    to: Address
    deadline_s: Seconds
    group: Position | None = None
    budget: Allowed | None = None


class _Sleep(msgspec.Struct):
    seconds: Seconds
    group: Position | None = None


class _Person(msgspec.Struct):
    question: Annotated[str, Meta(min_length=1, max_length=QUESTION_CHARS_MAX)]
    choices: (
        Annotated[
            list[Annotated[str, Meta(min_length=1, max_length=CHOICE_CHARS_MAX)]],
            Meta(min_length=1, max_length=CHOICES_MAX),
        ]
        | None
    )
    deadline_s: Seconds | None
    group: Position | None = None


class _Gather(msgspec.Struct):
    members: Many
    needs: Many


ReferenceName = Annotated[str, Meta(pattern=_whole(REFERENCE_PATTERN))]


class _Conclude(msgspec.Struct):
    text: Annotated[str, Meta(min_length=1, max_length=TEXT_CHARS_MAX)]
    because: Annotated[list[ReferenceName], Meta(max_length=REFERENCES_MAX)]
    seen: Annotated[list[ReferenceName], Meta(max_length=REFERENCES_MAX)]
    alternatives: Annotated[
        list[Annotated[str, Meta(min_length=1, max_length=ALTERNATIVE_CHARS_MAX)]], Meta(max_length=ALTERNATIVES_MAX)
    ]
    confidence: Annotated[float, Meta(ge=0, le=1)] | None


class _Poll(msgspec.Struct):
    connection: Name
    since: Annotated[float, Meta(ge=0, le=MOMENT_MAX)]
    fault: Fault | None = None
    reason: Annotated[str, Meta(max_length=REASON_CHARS_MAX)] = ""
    detail: Annotated[str, Meta(max_length=DETAIL_CHARS_MAX)] = ""


class _Order(msgspec.Struct):
    came: list[Place]


class _Continue(msgspec.Struct):
    data: Raw


class _Timer(msgspec.Struct):
    name: TimerName
    after_s: Seconds | None
    every_s: Period | None
    data: Raw
    cron: Annotated[str, Meta(pattern=_whole(CRON_PATTERN), max_length=CRON_CHARS_MAX)] | None = None
    zone: Annotated[str, Meta(max_length=ZONE_CHARS_MAX)] | None = None
    missed: Missed | None = None

    def __post_init__(self) -> None:
        _require_own(self.name)
        if self.cron is not None:
            require_cron(self.cron)
            require_zone(self.zone or "UTC")
            if self.after_s is not None or self.every_s is not None:
                raise ValueError("the timer has seconds beside its expression")
        elif self.after_s is None and self.every_s is None:
            raise ValueError("the timer has no time")


class _TimerCancel(msgspec.Struct):
    name: TimerName

    def __post_init__(self) -> None:
        _require_own(self.name)


class _Spawn(msgspec.Struct):
    name: Name
    entrypoint: Annotated[str, Meta(pattern=_whole(ENTRYPOINT_PATTERN), max_length=NAME_CHARS_MAX)] | None
    config: dict[str, Any] | None
    purpose: Annotated[str, Meta(pattern=_whole(TEXT_PATTERN), max_length=PURPOSE_CHARS_MAX)] | None
    grants: Annotated[list[dict[str, Any]], Meta(max_length=GRANTS_MAX)] | None
    budget: Allowed | None = None
    scope: Literal["turn", "agent"] | None = None


def _require_own(name: str) -> None:
    if name.startswith(TIMER_PREFIX):
        raise ValueError("timers of watches belong to the spec")


_BODIES: dict[str, Any] = {
    kind: msgspec.json.Decoder(body)
    for kind, body in {
        "send": _Send, "publish": _Publish, "join": _Join, "leave": _Leave, "ask": _Question, "request": _Question,
        "sleep": _Sleep, "question": _Person, "gather": _Gather,
        "timer": _Timer, "timer_cancel": _TimerCancel, "spawn": _Spawn, "continue": _Continue,
        "conclude": _Conclude, POLL: _Poll, ORDER: _Order,
    }.items()
}  # fmt: skip


def require_body(kind: str, body: bytes) -> None:
    """Raises a ValueError (a `msgspec.ValidationError` is one) that says what the body of a kind may not be."""
    decoder = _BODIES.get(kind)
    if decoder is None:
        raise ValueError(f"there is no kind {kind[:40]}")
    decoder.decode(body)
    body.decode()
