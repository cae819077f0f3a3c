"""Channel: a durable, ordered log of envelopes with subscriptions."""

from typing import Any, Literal

from pydantic import Field

from schemas.base import Frozen, Output
from schemas.resource import API_VERSION, Condition, ManifestMetadata, Metadata

CHANNELS_MAX = 10_000  # of a namespace, beyond which none is made by first use
FIRST_USE: dict[str, Any] = {"ephemeral": True, "retention_s": 3_600}  # what is wanted of one that nobody proposed


class ChannelSpec(Frozen):
    """What is wanted of a channel."""

    mode: Literal["broadcast", "queue"] = Field(
        default="broadcast",
        description="Whether each message is for all members, or for one of them; it stays while the channel is there.",
    )
    partitions: int = Field(default=1, ge=1, le=1)
    retention_s: int = Field(default=604_800, ge=1, le=31_536_000)
    backlog_messages_max: int = Field(
        default=10_000,
        ge=1,
        le=1_000_000,
        description="Of a queue: how many messages may wait for a member. Of a broadcast: behind how many messages "
        "retention does not wait for a member any longer, which then gets a gap.",
    )
    attempts_max: int = Field(
        default=5, ge=1, le=100, description="After so many failed attempts a message is a dead letter."
    )
    in_flight_max: int = Field(
        default=1, ge=1, le=256, description="Of a queue: how many unfinished messages a member holds."
    )
    ephemeral: bool = Field(default=False, description="Vanishes when it is empty and nobody uses it.")
    dataschema: dict[str, Any] | None = Field(default=None, description="A JSON Schema that published data must meet.")


class ChannelManifest(Frozen):
    """A channel as a writer declares it."""

    api_version: Literal["steward/v1"] = API_VERSION
    kind: Literal["Channel"]
    metadata: ManifestMetadata
    spec: ChannelSpec = Field(default_factory=ChannelSpec)
    status: dict[str, Any] | None = Field(default=None, description="Ignored in input.")


class ChannelStatus(Output):
    """What is observed of a channel; condition `Ready`."""

    conditions: list[Condition]
    next_position: int
    messages: int = Field(description="Messages kept.")
    waiting: int = Field(description="Of a queue: messages that no member has yet.")
    subscribers: list[str] = Field(description="Agents that read it, as namespace/name.")


class Channel(Output):
    """A channel as it is answered."""

    api_version: Literal["steward/v1"] = API_VERSION
    kind: Literal["Channel"] = "Channel"
    metadata: Metadata
    spec: ChannelSpec
    status: ChannelStatus
