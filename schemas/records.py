"""Inputs and outputs about the records of the plane: turns, feedback, tokens, operations, processes."""

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from schemas.base import PLANE_NAME, Frozen, Identifier, Name, Output, Text, Time
from schemas.calls import Cursor, Imperative, Limit, Page, WaitS
from schemas.feedback import EventFilter

# Turns


class TurnInput(Frozen):
    turn_id: Identifier


class TurnListInput(Frozen):
    namespace: Name = "default"
    name: Name
    limit: Limit = 100
    page: Page | None = None


class TurnUpgrade(Output):
    """What was decided about a parked turn when its agent got newer code: it is `pinned` to its own, was `proved` to
    replay on the newer, or `differs` there and is pinned too."""

    generation: int = Field(description="The generation of the agent that the turn was held against.")
    decided: Literal["pinned", "proved", "differs"]
    ends_by: Time | None = Field(default=None, description="When the turn fails, if it still is on its code.")
    problem: dict[str, Any] | None = Field(default=None, description="What differs.")


class TurnSummary(Output):
    """One turn of an agent."""

    turn_id: str
    namespace: str
    name: str
    message_id: str
    trigger: str
    outcome: Literal["running", "parked", "committed", "failed"]
    attempts: int
    epoch: int
    started_at: Time
    finished_at: Time | None = None
    cpu_s: float = 0
    state_digest: str | None = None
    problem: dict[str, Any] | None = None
    digest: str = Field(description="The code that it runs on.")
    upgrade: TurnUpgrade | None = None


class JournalEntry(Output):
    """One entry of a turn's journal, in the order of its positions."""

    branch: str
    position: int
    kind: str
    body: Any
    verdict: dict[str, Any] | None = Field(default=None, description="The guard's, of an external effect.")
    outcome: str | None = None
    result: Any = None
    recorded_at: Time
    finished_at: Time | None = None
    send_by: Time | None = Field(default=None, description="Of an external effect: not sent after this.")


class TurnView(TurnSummary):
    """A turn with its journal."""

    message: dict[str, Any] | None = None
    journal: list[JournalEntry]


# Feedback


class FeedbackInput(Frozen):
    """Read the feedback log; with `wait_s`, wait for at least one event."""

    after: Cursor | None = None
    wait_s: WaitS = 0
    limit: Limit = 100
    filter: EventFilter | None = None


# Tokens

Role = Literal["viewer", "operator", "admin", "agent"]


_OF_AN_AGENT: dict[str, Any] = {  # the role agent speaks for one agent in one namespace, the others for none
    "if": {"required": ["role"], "properties": {"role": {"const": "agent"}}},
    "then": {
        "required": ["agent"],
        "properties": {"agent": {"type": "string"}, "namespaces": {"maxItems": 1, "items": {"not": {"const": "*"}}}},
    },
    "else": {"properties": {"agent": {"type": "null"}}},
}


class TokenCreateInput(Imperative):
    """A new token. `namespaces: ["*"]` is every namespace; role `agent` names the agent it speaks for."""

    model_config = ConfigDict(json_schema_extra=_OF_AN_AGENT)

    principal: Annotated[Name, Field(json_schema_extra={"not": {"const": PLANE_NAME}})]
    role: Role
    namespaces: list[Name | Literal["*"]] = Field(default_factory=lambda: ["default"], min_length=1, max_length=50)
    agent: Name | None = None
    expires_in_s: int | None = Field(default=None, ge=60, le=315_360_000)


class TokenView(Output):
    token_id: str
    principal: str
    role: Role
    namespaces: list[str]
    agent: str | None = None
    created_at: Time
    expires_at: Time | None = None
    revoked_at: Time | None = None


class TokenCreated(TokenView):
    """The only time the token itself is shown. An answer repeated for a `request_id` does not show it again."""

    token: str | None


class TokenRevokeInput(Imperative):
    token_id: Identifier


# Operations, system


class OperationsSearchInput(Frozen):
    """Words of what you want to do; the operations that fit best come first."""

    query: Annotated[Text, Field(max_length=400)] = ""
    limit: Limit = 20


class OperationSummary(Output):
    name: str
    summary: str
    effect: Literal["read", "change", "destroy"]
    repeats_safely: bool
    role: Role
    method: str
    path: str


class OperationsFound(Output):
    items: list[OperationSummary]


class OperationDescribeInput(Frozen):
    name: Annotated[Text, Field(max_length=100)]


class OperationDescription(OperationSummary):
    description: str
    input_schema: dict[str, Any]
    output_schema: dict[str, Any]
    problems: list[str]
    example: dict[str, Any]


class OperationCallInput(Frozen):
    name: Annotated[Text, Field(max_length=100)]
    arguments: dict[str, Any] = Field(default_factory=dict)


class OperationResult(Output):
    name: str
    output: Any


class ProcessView(Output):
    """A process of this installation."""

    name: str
    pid: int
    alive: bool
    rss_bytes: int | None = None
    since: Time | None = None


class Incident(Output):
    """Something that befell the installation: the type of its event, and what it says."""

    type: str
    time: Time
    text: str


class SystemStatus(Output):
    """Whether messages are durably accepted, whether turns run, what does not work, and what befell it lately."""

    installation: str
    version: str
    ready: bool
    database: Literal["sqlite", "postgresql"]
    gate: str
    ray: str
    ray_dashboard: str | None
    confinement: str = Field(description="`possible`, or why no agent can be `isolation: confined` here.")
    hosts: int
    agents: dict[str, int]
    open_changes: int
    dead_letters: int
    processes: list[ProcessView]
    problems: list[str]
    recent: list[Incident] = Field(default_factory=list)
    as_of: Time


class Brief(Output):
    """The state of things in a few sentences, for a reader with little room."""

    text: str
    agents: dict[str, int]
    open_changes: int
    dead_letters: int
    questions: int = Field(description="How many wait for a person: `questions.list`.")
    cursor: str
    as_of: Time


class HostView(Output):
    """A host: the Ray actor that runs agents' code."""

    host_id: str
    node: str
    pid: int | None
    namespace: str | None
    digest: str | None
    agent: str | None = Field(description="Whose own it is, `namespace/name`; null where agents share it.")
    state: Literal["warm", "serving", "draining", "lost"]
    agents: int
    lease_until: Time | None
    loop_lag_ms: float | None


class HostsFound(Output):
    items: list[HostView]
