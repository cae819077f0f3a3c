"""Route: from a source through a filter and a transform to a sink, done by an agent of its own, `<route>-0`."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from schemas.agent import Digest
from schemas.base import Frozen, Name, Output, Text, Time
from schemas.cron import Cron
from schemas.llm import OneEffect
from schemas.polled import PollFailing
from schemas.replay import Replay
from schemas.resource import API_VERSION, Condition, ManifestMetadata, Metadata
from schemas.sql import STATEMENT_CHARS_MAX
from schemas.watch import EventsWatched

SAMPLES_MAX = 20
FILTER_CHARS_MAX = 2_000
TRANSFORM_CHARS_MAX = 10_000
DAY_S = 86_400
Filter = Annotated[Text, Field(min_length=1, max_length=FILTER_CHARS_MAX)]
Transform = Annotated[Text, Field(min_length=1, max_length=TRANSFORM_CHARS_MAX)]
Column = Annotated[Text, Field(min_length=1, max_length=63)]


class ChannelSource(Frozen):
    """The envelopes of a channel of the namespace, in their order."""

    channel: Name
    start: Literal["now", "beginning"] = "now"


class EventsSource(Frozen):
    """Events of the feedback log of the namespace; the event is the data."""

    events: EventsWatched


class Poll(Frozen):
    """A query that is asked again and again for what is new; a row is the data.

    The statement has `:cursor` for the largest value of the column `cursor` that was seen, takes rows from that value
    on (`>=`), and orders them by it. Rows of that very value are told apart by the column `id`, so none comes twice.
    """

    connection: Name = Field(description="A connection of protocol `sql`.")
    statement: Annotated[Text, Field(min_length=1, max_length=STATEMENT_CHARS_MAX)]
    cursor: Column = Field(description="The column that only grows.")
    id: Column = Field(description="The column that tells rows of one cursor apart.")
    begin: str | int | float = Field(description="From which cursor on; another one, and it is read from there again.")
    cron: Cron = Field(default="*/5 * * * * *", description="When, in UTC: by default every five seconds.")


class PollSource(Frozen):
    """The rows of a query, as they come."""

    poll: Poll


class ChannelSink(Frozen):
    """A channel of the namespace; what comes with a key keeps it."""

    channel: Name


class AgentSink(Frozen):
    """An agent of the namespace, which gets a message; with `reply`, it is asked, one message at a time."""

    agent: Name
    deadline_s: float = Field(default=3_600, ge=1, le=DAY_S, description="How long an answer is waited for.")


class EffectSink(Frozen):
    """An effect over a connection. What the transform makes are its arguments, beside those that stand here."""

    effect: OneEffect
    connection: Name | None = None
    arguments: dict[str, Any] = Field(default_factory=dict, max_length=100)
    accept: Filter | None = Field(
        default=None, description="CEL over `result`: whether it went well, as in `result.status < 300`."
    )
    attempts_max: int = Field(
        default=3, ge=1, le=10, description="How often what failed is tried; what is in doubt never is."
    )


class ReplyTo(Frozen):
    """The channel that an effect's result or an agent's answer goes to; its `causationid` is what was routed."""

    channel: Name


def _which(*fields: str) -> Any:
    def tag(given: Any) -> str:
        names = given if isinstance(given, Mapping) else getattr(type(given), "model_fields", ())
        return next((it for it in fields if it in names), fields[0])

    return Discriminator(tag)


Source = Annotated[
    Annotated[ChannelSource, Tag("channel")]
    | Annotated[EventsSource, Tag("events")]
    | Annotated[PollSource, Tag("poll")],
    _which("channel", "events", "poll"),
]
Sink = Annotated[
    Annotated[ChannelSink, Tag("channel")] | Annotated[AgentSink, Tag("agent")] | Annotated[EffectSink, Tag("effect")],
    _which("channel", "agent", "effect"),
]


class RouteSpec(Frozen):
    """What is wanted of a route."""

    source: Source
    filter: Filter | None = Field(
        default=None,
        description="CEL over `data` and `envelope`: what goes on.",
    )
    transform: Transform | None = Field(
        default=None,
        description="JSONata over the data, with `$envelope`; drafted where shapes differ.",
    )
    sink: Sink
    reply: ReplyTo | None = None
    samples: list[Any] = Field(
        default_factory=list, max_length=SAMPLES_MAX, description="Data as it comes; each must go through and fit."
    )
    worker: Digest | None = Field(default=None, description="The code of its worker: Steward's own, ignored in input.")


class RouteManifest(Frozen):
    """A route as a writer declares it."""

    api_version: Literal["steward/v1"] = API_VERSION
    kind: Literal["Route"]
    metadata: ManifestMetadata
    spec: RouteSpec
    status: dict[str, Any] | None = Field(default=None, description="Ignored in input.")


class RouteStatus(Output):
    """What is observed of a route; conditions are `Ready, Paused`."""

    conditions: list[Condition]
    worker: str = Field(description="The agent that does it.")
    turns: int = Field(description="Turns that it committed: one for each message or poll.")
    waiting: int = Field(description="Messages that wait for it.")
    behind: int | None = Field(description="Messages of its channel that it has not taken yet; null: not known.")
    source_per_hour: int | None = Field(
        description="What its source brought in the last hour: messages, events, or rows; null: not known."
    )
    passed: int = Field(description="Messages that reached the sink.")
    filtered: int = Field(description="Messages that the filter did not let through.")
    retried: int = Field(description="Attempts at the sink in vain, of messages that reached it in the end.")
    dead: int = Field(description="Its dead letters that are there: `channels.dead_letters` with the route's name.")
    last_at: Time | None = Field(description="When it began with its last message that is over.")
    poll_failing: PollFailing | None = Field(
        default=None, description="Since when, and why, its poll reads nothing; null: it works, or there is none."
    )
    meters: dict[str, float] = Field(description="What it used in the last 24 hours, as in `usage.report`.")
    replay: Replay | None = Field(default=None, description="Its last replay, `routes.replay`.")


class Route(Output):
    """A route as it is answered."""

    api_version: Literal["steward/v1"] = API_VERSION
    kind: Literal["Route"] = "Route"
    metadata: Metadata
    spec: RouteSpec
    status: RouteStatus
