"""Channels: the kind, publishing, reading, joining, leaving."""

from controlplane.resources.kinds import of_kind
from controlplane.resources.operation import Operation
from schemas.calls import (
    ChannelRead,
    ChannelReadInput,
    JoinInput,
    LeaveInput,
    ListOutput,
    Membership,
    MembersInput,
    MemberView,
    Published,
    PublishInput,
)
from schemas.channel import Channel, ChannelManifest


class MemberList(ListOutput[MemberView]):
    """A page of memberships, in the order of joining."""


EXAMPLE = {"kind": "Channel", "metadata": {"namespace": "default", "name": "reports", "labels": {}}, "spec": {}}
_NAMED = {"namespace": "default", "name": "reports"}
_ONE = "/v1/channels/{namespace}/{name}"
OPERATIONS = (
    *of_kind("Channel", ChannelManifest, Channel, EXAMPLE),
    Operation(
        "channels.publish",
        "Publish to a channel",
        "Durable when answered; every member gets it. A channel that is not there is made: an ephemeral one.",
        PublishInput,
        Published,
        "POST",
        f"{_ONE}/publish",
        "change",
        "operator",
        "namespace",
        repeats_safely=False,
        imperative=True,
        agent_may=True,
        problems=("NOT_FOUND", "SCHEMA_MISMATCH", "TOO_LARGE", "NOT_READY", "NOT_SET_UP", "QUOTA", "BACKLOG_FULL"),
        example={**_NAMED, "data": {"text": "hello"}},
    ),
    Operation(
        "channels.read",
        "Read a channel",
        "Envelopes after a cursor, oldest first.",
        ChannelReadInput,
        ChannelRead,
        "GET",
        f"{_ONE}/read",
        "read",
        "viewer",
        "namespace",
        agent_may=True,
        problems=("NOT_FOUND", "INVALID_CURSOR", "NOT_SET_UP"),
        untrusted=("/envelopes/*/data",),
        example=_NAMED,
    ),
    Operation(
        "channels.join",
        "Let an agent read a channel",
        "What is published comes to the agent's inbox. A channel that is not there is made: an ephemeral one.",
        JoinInput,
        Membership,
        "POST",
        f"{_ONE}/join",
        "change",
        "operator",
        "namespace",
        imperative=True,
        problems=("NOT_FOUND", "NOT_SET_UP", "INVALID_CURSOR", "QUOTA"),
        example={**_NAMED, "agent": "echo"},
    ),
    Operation(
        "channels.leave",
        "Let an agent no longer read a channel",
        "What is already in its inbox stays.",
        LeaveInput,
        Membership,
        "POST",
        f"{_ONE}/leave",
        "change",
        "operator",
        "namespace",
        imperative=True,
        problems=("NOT_FOUND", "NOT_SET_UP", "OWNED"),
        example={**_NAMED, "agent": "echo"},
    ),
    Operation(
        "channels.members",
        "List the members of a channel",
        "The agents that read it now; or, of a message that is kept, those that were members when it was accepted, "
        "whoever came or left since: that has one answer, and is recorded.",
        MembersInput,
        MemberList,
        "GET",
        f"{_ONE}/members",
        "read",
        "viewer",
        "namespace",
        problems=("NOT_FOUND", "INVALID_CURSOR", "NOT_SET_UP"),
        example=_NAMED,
    ),
)
