"""How a message goes: in what order, how urgent, from when on, until when."""

from typing import Annotated

import msgspec
from pydantic import Field

from schemas.base import Frozen, Text

PRIORITY_MAX = 9
DELAY_S_MAX = TTL_S_MAX = 31_536_000
KEY_CHARS_MAX = 200
DELAYED_MAX = 10_000  # for one inbox or channel


class Urgency(Frozen):
    """What may be said of any message, also of a question."""

    priority: int = Field(
        default=0, ge=0, le=PRIORITY_MAX, description="The highest goes first, but never ahead of its own key."
    )
    ttl_s: float | None = Field(
        default=None,
        gt=0,
        le=TTL_S_MAX,
        description="Given up, as EXPIRED, when no turn has begun with it so many seconds after it took its place.",
    )


class Posted(Urgency):
    """What may be said of a message that nobody waits for."""

    key: Annotated[Text, Field(max_length=KEY_CHARS_MAX)] | None = Field(
        default=None, description="What is sent under one key is handled in its order."
    )
    delay_s: float = Field(default=0, ge=0, le=DELAY_S_MAX, description="It takes its place after so many seconds.")


class Placed(msgspec.Struct, frozen=True):
    """The same, as the gate takes it: moments instead of spans; `due_at` of 0 is now, `expires_at` of 0 is never."""

    key: str | None = None
    priority: int = 0
    due_at: float = 0.0
    expires_at: float = 0.0

    @property
    def rank(self) -> int | None:
        """The lowest goes first; None of what has no priority."""
        return PRIORITY_MAX - self.priority if self.priority else None

    @property
    def plain(self) -> bool:
        """Whether it simply comes last."""
        return self.key is None and not self.priority


PLAIN = Placed()


def placed(key: str | None, priority: int, delay_s: float, ttl_s: float | None, now: float) -> Placed:
    """When it is due and when it is over, from now."""
    due_at = now + delay_s if delay_s else 0.0
    return Placed(key, priority, due_at, 0.0 if ttl_s is None else (due_at or now) + ttl_s)
