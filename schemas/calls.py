"""Inputs and outputs of operations: one flat object in, one bare object out."""

from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import Field

from schemas.agent import CODE_FILES_MAX, Digest, FilePath
from schemas.base import ClosedKeys, Frozen, Identifier, Labels, Name, Output, Text, Time
from schemas.chain import Allowance, ChainView, IntentText
from schemas.divergence import Divergence
from schemas.manifest import Manifest
from schemas.plan import Change, OnMiss
from schemas.posting import Posted, Urgency

LIST_LIMIT_MAX = 500
MANIFESTS_MAX = 200
WAIT_S_MAX = 300
ASK_TIMEOUT_S_MAX = 300
DATA_BYTES_MAX = 1_048_576

T = TypeVar("T")
Page = Annotated[Text, Field(max_length=500, description="Opaque: `next_page` of the page before.")]
Limit = Annotated[int, Field(ge=1, le=LIST_LIMIT_MAX)]
Cursor = Annotated[Text, Field(max_length=100, description="Opaque; exclusive.")]
WaitS = Annotated[float, Field(ge=0, le=WAIT_S_MAX)]
RequestId = Annotated[
    Identifier,
    Field(description="The same id with the same input gives the first answer again, for 7 days."),
]

CONVERSATION: Any = Field(
    default=None, description="Messages of one conversation: an agent that is a model remembers each apart."
)
INTENT: Any = Field(
    default=None, description="What it is for, in your words: it goes along with all the work because of it."
)


class Empty(Frozen):
    """No input."""


class Named(Frozen):
    """One resource, by name."""

    namespace: Name = "default"
    name: Name


class ListInput(Frozen):
    """A page of resources, in the order of their names."""

    namespace: Name | None = None
    labels: Labels | None = None
    limit: Limit = 100
    page: Page | None = None


class ListOutput(Output, Generic[T]):
    """A page, and where the next one starts."""

    items: list[T]
    next_page: str | None = None


class PageInput(Frozen):
    """A page of records, newest first."""

    namespace: Name | None = None
    limit: Limit = 100
    page: Page | None = None


class Imperative(Frozen):
    """What every operation takes that acts at once."""

    dry_run: bool = False
    request_id: RequestId | None = None


class NamedAct(Imperative):
    """Act on one resource."""

    namespace: Name = "default"
    name: Name


# Changes


class ProposeInput(Frozen):
    """The manifests that are wanted, together."""

    manifests: list[Manifest] = Field(min_length=1, max_length=MANIFESTS_MAX)


class ProposeOneInput(Frozen, Generic[T]):
    """The manifest that is wanted."""

    manifest: T


class PlanInput(Frozen):
    plan_id: Identifier


class CommitInput(Frozen):
    """Commit a plan, once."""

    plan_id: Identifier
    on_miss: OnMiss = "keep"


class ChangeInput(Frozen):
    change_id: Identifier


class ChangeWaitInput(Frozen):
    """Wait until the change is done; a timeout is no error."""

    change_id: Identifier
    timeout_s: WaitS = 30


class ChangeList(Output):
    items: list[Change]
    next_page: str | None = None


# Agents


class SendInput(NamedAct, Posted):
    """A message for the agent's inbox."""

    data: Any = None
    budget: Allowance | None = None
    intent: IntentText | None = INTENT
    conversation: Identifier | None = CONVERSATION


class Sent(Output):
    message_id: str


class AskInput(NamedAct, Urgency):
    """A message whose answer is waited for; one that expires before a turn began with it fails at once, as EXPIRED."""

    data: Any = None
    timeout_s: float = Field(default=30, gt=0, le=ASK_TIMEOUT_S_MAX)
    budget: Allowance | None = None
    intent: IntentText | None = INTENT
    conversation: Identifier | None = CONVERSATION
    capability: Name | None = Field(
        default=None,
        description="What of its capabilities is asked for: data and answer are held against its schemas.",
    )


class Answer(Output):
    """`answered: false` when the time ran out; the answer is kept and comes with the same `request_id`."""

    message_id: str
    answered: bool
    reply: Any = None


class CancelInput(NamedAct):
    """A question whose answer nobody waits for any more."""

    message_id: Identifier


class Cancelled(Output):
    """Whether it was cancelled; not when it had an answer before."""

    message_id: str
    cancelled: bool


class WaitingOn(Output):
    """What a parked turn waits on, since when, until when."""

    await_id: str
    kind: str
    on: str
    since: Time
    until: Time | None = Field(description="Null: for ever.")


class DeadLetter(Output):
    """A message that was given up, and why."""

    message_id: str
    reason: str
    detail: str
    at: Time


class TimerView(Output):
    name: str
    due_at: Time
    every_s: float | None
    cron: str | None = Field(default=None, description="The expression that it is due by.")
    zone: str | None = Field(default=None, description="The time zone of the expression.")
    missed: str | None = Field(
        default=None, description="What becomes of times that are missed; null when it fires once."
    )
    behind: int = Field(default=0, description="Scheduled times that were passed over, and not told yet.")


class WorkspaceFile(Output):
    """A file of an agent's workspace; `digest` is the sha256 of its bytes."""

    path: str
    bytes: int
    digest: str
    executable: bool


class Inspection(Output):
    """An agent from the inside."""

    namespace: str
    name: str
    uid: str
    state: Any = Field(description="The committed state.")
    state_bytes: int
    state_digest: str | None
    state_version: int = Field(description="What the code that stored it calls its shape.")
    workspace: list[WorkspaceFile] = Field(description="Its files as the last turn left them, the first 100 by path.")
    workspace_bytes: int = Field(description="Of all its files.")
    epoch: int
    host: str | None
    turns: int
    inbox: int
    running: str | None = Field(description="The open turn, if any.")
    chain: ChainView | None = Field(default=None, description="What bounds the open turn from above, if anything does.")
    waiting_on: list[WaitingOn]
    timers: list[TimerView]
    dead_letters: list[DeadLetter]
    divergences: list[Divergence] = Field(
        default_factory=list, description="Of its code: that turns came to something else when they were run again."
    )
    why_awake: str | None = Field(description="Why the agent is not suspended; null when it is.")


# Code


class CodePutInput(Imperative):
    """Source files of one package, path → text."""

    files: Annotated[dict[FilePath, Text], ClosedKeys()] = Field(min_length=1, max_length=CODE_FILES_MAX)


class CodePut(Output):
    digest: Digest
    bytes: int


# Channels

CHANNEL_NAMESPACE: Any = Field(
    default=None,
    description="Of a channel of another namespace, which an invitation opens; `namespace` is then that of who acts.",
)


class PublishInput(NamedAct, Posted):
    """Data for a channel."""

    data: Any = None
    channel_namespace: Name | None = CHANNEL_NAMESPACE


class Published(Output):
    message_id: str
    position: str | None = Field(description="Null while it is delayed: it takes its position when its time has come.")


class ChannelReadInput(Frozen):
    """Read from a cursor on; with `wait_s`, wait for at least one envelope."""

    namespace: Name = "default"
    name: Name
    after: Cursor | None = None
    limit: Limit = 100
    wait_s: WaitS = 0
    channel_namespace: Name | None = CHANNEL_NAMESPACE


class ChannelRead(Output):
    envelopes: list[dict[str, Any]]
    cursor: str


class JoinInput(NamedAct):
    """Let an agent read a channel of its namespace, or one that it is invited to: from now, from its beginning, or
    behind a cursor."""

    agent: Name
    start: Literal["now", "beginning"] = "now"
    after: Cursor | None = Field(
        default=None, description="Instead of `start`: the cursor, of `channels.read`, to read on behind."
    )
    channel_namespace: Name | None = CHANNEL_NAMESPACE


class LeaveInput(NamedAct):
    agent: Name
    channel_namespace: Name | None = CHANNEL_NAMESPACE


class MembersInput(Frozen):
    """Who reads a channel now, or who was a member when the message at a position was accepted."""

    namespace: Name = "default"
    name: Name
    accepted_at: Cursor | None = Field(
        default=None, description="The `position` of a message, as its envelope says it; left out: now."
    )
    limit: Limit = 100
    page: Page | None = None


class MemberView(Output):
    """A membership: of messages at `joined_position` and behind, before `left_position`."""

    agent: str = Field(description="Its name; of a guest from another namespace, namespace/name.")
    joined_at: Time
    joined_position: str
    left_at: Time | None
    left_position: str | None = Field(description="Null: it is a member still.")


class Membership(Output):
    """Whether the agent reads the channel, after the call."""

    namespace: str
    name: str
    agent: str
    member: bool
    position: str | None = None
    channel_namespace: str | None = Field(default=None, description="Where the channel is another namespace's.")
