"""Discovery: who is there, found by name, label, capability or meaning."""

from typing import Annotated, Literal

from pydantic import Field

from schemas.base import Frozen, Labels, Name, Output, Text, Time
from schemas.calls import Limit, Page
from schemas.capability import Capability

FIND = "discovery.find"  # the operation, and the effect that `turn.find` is
FOUND_MAX = 100
MEANING_CHARS_MAX = 2_000


class FindInput(Frozen):
    """What is looked for. All that is given must be so; `query` and `meaning` rank, the best first."""

    query: Annotated[Text, Field(min_length=1, max_length=400)] | None = Field(
        default=None, description="A name, a capability, or words for what is needed: those in this order."
    )
    name: Name | None = Field(default=None, description="A name, or how it begins.")
    labels: Labels | None = None
    capability: Name | None = Field(default=None, description="The name of one of its capabilities.")
    meaning: Annotated[Text, Field(min_length=1, max_length=MEANING_CHARS_MAX)] | None = Field(
        default=None, description="What is needed, in words, as in `who can judge a disk alarm?`."
    )
    namespace: Name | None = None
    limit: Annotated[int, Field(ge=1, le=FOUND_MAX)] = 20


class FoundAgent(Output):
    """An agent that was found; a suspended one can be reached like any other."""

    namespace: str
    name: str
    labels: dict[str, str]
    purpose: str
    capabilities: list[Capability]
    state: Literal["awake", "suspended", "stopped", "elsewhere"] = Field(
        description="Suspended: a message wakes it. Stopped: messages wait until `agents.wake`. Elsewhere: it runs"
        " somewhere else, and says that it is there (`discovery.register`)."
    )
    address: str | None = Field(
        default=None,
        description="`namespace/name`, as agents send to it. Of one elsewhere: where it is reached, as it says.",
    )
    found_by: Literal["name", "capability", "meaning", "filter"]
    score: float | None = Field(description="Of meaning: how near, up to 1; a cosine.")


class Found(Output):
    """Who was found, the best first."""

    items: list[FoundAgent]
    more: bool = Field(description="Whether more would fit; narrow it, or raise `limit`.")
    complete: bool = Field(
        description="False: not all texts were compared by meaning yet: ask again (some are each time), or narrow."
    )


class TopologyInput(Frozen):
    """A page of who talks to whom, by who hears."""

    namespace: Name | None = None
    name: Name | None = Field(default=None, description="Only what goes to this agent, or comes from it.")
    limit: Limit = 100
    page: Page | None = None


class Talk(Output):
    """What came to an agent from one source, in the turns that handled it."""

    source: str = Field(description="As in the envelopes; `*` for all beyond the first 200 sources of an agent.")
    namespace: str
    name: str
    channel: str | None = Field(description="The channel that it came by; null: straight to the inbox.")
    messages: int
    chars: int = Field(description="Characters of their envelopes, data and all.")
    wait_s: float = Field(description="From being sent to the start of its turn, on average.")
    since: Time
    last: Time


class FindEffect(Frozen):
    """The arguments of the effect `discovery.find`: as of the operation; an agent finds in its own namespace."""

    query: Annotated[Text, Field(min_length=1, max_length=400)] | None = None
    name: Name | None = None
    labels: Labels | None = None
    capability: Name | None = None
    meaning: Annotated[Text, Field(min_length=1, max_length=MEANING_CHARS_MAX)] | None = None
    limit: Annotated[int, Field(ge=1, le=FOUND_MAX)] = 20
