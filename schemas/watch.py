"""What an agent watches without anybody asking it: channels, times, and the feedback log.

Which of them an entry is follows from the field that names it: `channel`, `cron` or `feedback`.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from schemas.base import Frozen, Name, Text
from schemas.cron import Cron, Missed, Zone
from schemas.resource import Kind

TIMER_PREFIX = "watch:"  # the timer of a watch has its name behind this, which no turn can set
DEBOUNCE_S_MAX = 86_400
BATCH_MAX = 100


class ChannelWatch(Frozen):
    """A channel whose envelopes come to the agent's inbox."""

    channel: Name
    start: Literal["now", "beginning"] = "now"
    debounce_s: float = Field(
        default=0,
        ge=0,
        le=DEBOUNCE_S_MAX,
        description="From the first envelope on, what comes within so many seconds is delivered together.",
    )
    batch_max: int = Field(
        default=1, ge=1, le=BATCH_MAX, description="Above 1, up to so many envelopes come to `on_batch` in one turn."
    )


class CronWatch(Frozen):
    """Times at which the agent is woken: an envelope `steward.watch`, with the name as its subject, to `on_timer`."""

    cron: Cron = Field(description="Five fields, minute first; or six, with the second first.")
    name: Name
    zone: Zone = Field(default="UTC", description="The time zone that the expression goes by.")
    missed: Missed = Field(
        default="fire_once",
        description="Of times that were missed: the last one, none, or each of the newest hundred.",
    )


class EventsWatched(Frozen):
    """Events of the agent's namespace; all that is given must match, as in `feedback.read`."""

    types: list[Annotated[Text, Field(max_length=100)]] = Field(
        default_factory=list,
        max_length=50,
        description="Types, or prefixes that end in a dot and a star. Without any: all but `turns.summary`.",
    )
    kind: Kind | None = None
    name: Name | None = None
    own: bool = Field(default=False, description="Also events about the agent itself, and of its own turns.")


class FeedbackWatch(Frozen):
    """Events of the feedback log, each an envelope `steward.feedback` with the event as its data."""

    feedback: EventsWatched
    debounce_s: float = Field(
        default=0,
        ge=0,
        le=DEBOUNCE_S_MAX,
        description="From the first event on, what comes within so many seconds is delivered together.",
    )
    batch_max: int = Field(
        default=1, ge=1, le=BATCH_MAX, description="Above 1, up to so many events come to `on_batch` in one turn."
    )


def _which(value: Any) -> str:
    if isinstance(value, CronWatch | FeedbackWatch):
        return type(value).__name__
    if not isinstance(value, Mapping):
        return "ChannelWatch"
    return "CronWatch" if "cron" in value else "FeedbackWatch" if "feedback" in value else "ChannelWatch"


Watch = Annotated[
    Annotated[ChannelWatch, Tag("ChannelWatch")]
    | Annotated[CronWatch, Tag("CronWatch")]
    | Annotated[FeedbackWatch, Tag("FeedbackWatch")],
    Discriminator(_which),
]


def require_names_once(watches: list[Any]) -> list[Any]:
    """A ValueError when two cron entries have one name."""
    names = [it.name for it in watches if isinstance(it, CronWatch)]
    if len(names) != len(set(names)):
        raise ValueError("two cron entries have one name")
    return watches
