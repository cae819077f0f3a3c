"""Every table, as SQLModel. Times are seconds since 1970 in UTC, JSON is text, ids are text.

Plain column types keep one statement the same on SQLite and PostgreSQL, and let it travel to the
writer as text and scalars. Counters never go back (`sqlite_autoincrement`): a cursor that somebody
holds stays true after the rows behind it were swept. Models of the surfaces live in `schemas`, never here.
"""

from sqlalchemy import BigInteger, Column, Index, LargeBinary
from sqlmodel import Field, SQLModel

from controlplane.store.columns import (
    auto,
    big,
    by_bytes,
    packed,
    partial,
    seconds,
    seconds_or_none,
    text_column,
    text_or_none,
)
from controlplane.store.discovery_tables import InvitationRow as InvitationRow
from controlplane.store.discovery_tables import MeaningRow as MeaningRow
from controlplane.store.discovery_tables import MemberRow as MemberRow
from controlplane.store.discovery_tables import ScopeRow as ScopeRow
from controlplane.store.discovery_tables import TrafficRow as TrafficRow
from controlplane.store.discovery_tables import TraitRow as TraitRow
from controlplane.store.kept_tables import DeadLetterRow as DeadLetterRow
from controlplane.store.kept_tables import DivergenceRow as DivergenceRow
from controlplane.store.kept_tables import StateChunkRow as StateChunkRow
from controlplane.store.kept_tables import WorkspaceFileRow as WorkspaceFileRow
from controlplane.store.mesh_tables import ChannelMessageRow as ChannelMessageRow
from controlplane.store.mesh_tables import ChannelRow as ChannelRow
from controlplane.store.mesh_tables import DelayedRow as DelayedRow
from controlplane.store.mesh_tables import MembershipRow as MembershipRow
from controlplane.store.mesh_tables import QueuedRow as QueuedRow
from controlplane.store.mesh_tables import SubscriptionRow as SubscriptionRow
from controlplane.store.offers_tables import OfferRow as OfferRow
from controlplane.store.replays import ReplayRow as ReplayRow
from controlplane.store.usage_tables import ChainRow as ChainRow
from controlplane.store.usage_tables import CommonUsageRow as CommonUsageRow
from controlplane.store.usage_tables import UsageRow as UsageRow
from controlplane.store.waking_tables import ArrivalRow as ArrivalRow
from controlplane.store.waking_tables import FeedbackWatchRow as FeedbackWatchRow
from controlplane.store.waking_tables import InboxRow as InboxRow
from controlplane.store.waking_tables import TimerRow as TimerRow


class Meta(SQLModel, table=True):
    """Facts of the installation: its id, and marks of sweeps."""

    key: str = Field(primary_key=True)
    value: str = Field(sa_column=text_column())


class TokenRow(SQLModel, table=True):
    __tablename__ = "token"
    token_id: str = Field(primary_key=True)
    hash: str = Field(unique=True)
    principal: str
    role: str
    namespaces: str = Field(sa_column=text_column())
    agent: str | None = None
    created_at: float = Field(sa_column=seconds())
    expires_at: float | None = Field(default=None, sa_column=seconds_or_none())
    revoked_at: float | None = Field(default=None, sa_column=seconds_or_none())


class ResourceRow(SQLModel, table=True):
    """A declared thing; `deleted_at` makes it a tombstone, which keeps the generation of the name."""

    __tablename__ = "resource"
    kind: str = Field(primary_key=True)
    namespace: str = Field(sa_column=by_bytes())
    name: str = Field(sa_column=by_bytes())
    uid: str = Field(unique=True)
    labels: str = Field(sa_column=text_column())
    spec: str = Field(sa_column=text_column())
    revision: int = Field(sa_column=big())
    generation: int = Field(sa_column=big())
    created_at: float = Field(sa_column=seconds())
    updated_at: float = Field(sa_column=seconds())
    deleted_at: float | None = Field(default=None, sa_column=seconds_or_none())
    owner: str | None = Field(
        default=None, description="uid of the fleet or agent it belongs to; a tombstone has it until nothing is left"
    )
    ordinal: int | None = Field(
        default=None, sa_column=Column(BigInteger, nullable=True), description="its place in its fleet"
    )
    template: str | None = Field(default=None, description="mark of the fleet's template that it was made from")
    __table_args__ = (
        partial("resource_live", "kind", "namespace", "name", where="deleted_at IS NULL"),
        partial(
            "resource_single",
            "kind",
            "ordinal",
            "namespace",
            "name",
            where="kind = 'Agent' AND deleted_at IS NULL AND ordinal IS NULL",
        ),
        partial("resource_member", "owner", "template", "ordinal", where="deleted_at IS NULL AND owner IS NOT NULL"),
        partial("resource_left", "owner", where="deleted_at IS NOT NULL AND owner IS NOT NULL"),
    )


class LabelRow(SQLModel, table=True):
    """Labels of what is live. The key is in the order in which lists by label come."""

    __tablename__ = "label"
    kind: str = Field(primary_key=True)
    key: str = Field(primary_key=True)
    value: str = Field(primary_key=True)
    namespace: str = Field(sa_column=by_bytes())
    name: str = Field(sa_column=by_bytes())


class PlanRow(SQLModel, table=True):
    """A plan as proposed, and the decisions that its commit writes, and takes away (never shown)."""

    __tablename__ = "plan"
    plan_id: str = Field(primary_key=True)
    principal: str
    namespace: str
    body: str = Field(sa_column=packed())
    decisions: str = Field(sa_column=packed())
    created_at: float = Field(sa_column=seconds())
    expires_at: float = Field(sa_column=seconds())
    change_id: str | None = None
    __table_args__ = (partial("plan_expires", "expires_at", where="change_id IS NULL"),)


class ChangeRow(SQLModel, table=True):
    """A committed plan; `undo` holds what each step replaced."""

    __tablename__ = "change"
    change_id: str = Field(primary_key=True)
    plan_id: str = Field(unique=True)
    principal: str
    namespace: str
    on_miss: str
    committed_at: float = Field(sa_column=seconds())
    done_at: float | None = Field(default=None, sa_column=seconds_or_none())
    superseded_by: str | None = None
    steps: str = Field(sa_column=text_column(), description="JSON list: done or not, by step")
    undo: str = Field(sa_column=packed())
    reverts: str | None = None
    reverted_by: str | None = None
    operation: str | None = Field(default=None, description="what made it so at once; null: a commit")
    batch: int | None = Field(
        default=None, sa_column=Column(BigInteger, nullable=True), description="of such a one: how many steps at once"
    )
    __table_args__ = (
        partial("change_open", "committed_at", where="done_at IS NULL"),
        Index("change_by_namespace", "namespace", "committed_at"),
    )


class ChangeTargetRow(SQLModel, table=True):
    """The generation of each target that a change wrote."""

    __tablename__ = "change_target"
    change_id: str = Field(primary_key=True)
    kind: str = Field(primary_key=True)
    namespace: str = Field(primary_key=True)
    name: str = Field(primary_key=True)
    generation: int = Field(sa_column=big())
    __table_args__ = (Index("change_target_by_name", "kind", "namespace", "name"),)


class ClaimRow(SQLModel, table=True):
    __tablename__ = "claim"
    change_id: str = Field(primary_key=True)
    claim_id: str = Field(primary_key=True)
    body: str = Field(sa_column=packed())
    due_at: float = Field(sa_column=seconds())
    verdict: str | None = None
    observed: str | None = Field(default=None, sa_column=text_or_none())
    verified_at: float | None = Field(default=None, sa_column=seconds_or_none())
    binding: int = Field(default=1, sa_column=big(1), description="0: an estimate, which decides nothing of its change")
    __table_args__ = (partial("claim_open", "due_at", where="verdict IS NULL"),)


class EventRow(SQLModel, table=True):
    """The feedback log. `cursor` grows in commit order, because there is one writer."""

    __tablename__ = "event"
    cursor: int | None = Field(default=None, sa_column=auto())
    type: str
    time: float = Field(sa_column=seconds())
    kind: str
    namespace: str
    name: str
    principal: str | None = None
    change_id: str | None = None
    turn_id: str | None = None
    data: str = Field(sa_column=text_column())
    __table_args__ = (Index("event_by_namespace", "namespace", "cursor"), {"sqlite_autoincrement": True})


class AcceptedRow(SQLModel, table=True):
    """Answers kept under a request id (rule O4)."""

    __tablename__ = "accepted"
    principal: str = Field(primary_key=True)
    operation: str = Field(primary_key=True)
    request_id: str = Field(primary_key=True)
    input_digest: str
    output: str | None = Field(default=None, sa_column=text_or_none())
    expires_at: float = Field(sa_column=seconds())
    __table_args__ = (Index("accepted_expires", "expires_at"),)


class CodeRow(SQLModel, table=True):
    """Source files by the sha256 of their canonical JSON."""

    __tablename__ = "code"
    digest: str = Field(primary_key=True)
    files: str = Field(sa_column=text_column())
    bytes: int = Field(sa_column=big())
    created_at: float = Field(sa_column=seconds())


class CodeReachRow(SQLModel, table=True):
    """Who may name stored code by its digest: whoever reaches a namespace it was put for or is used in.

    `*` stands for principals who reach every namespace, and for nobody else.
    """

    __tablename__ = "code_reach"
    digest: str = Field(primary_key=True)
    namespace: str = Field(primary_key=True)


class SecretValueRow(SQLModel, table=True):
    """One encrypted value. Unbound ones die with their plan."""

    __tablename__ = "secret_value"
    ref: str = Field(primary_key=True)
    namespace: str
    nonce: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    ciphertext: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    created_at: float = Field(sa_column=seconds())
    bound_to: str | None = Field(default=None, index=True, description="uid of the secret")
    expires_at: float | None = Field(default=None, sa_column=seconds_or_none())
    __table_args__ = (partial("secret_value_expires", "expires_at", where="expires_at IS NOT NULL"),)


# The hot tables: written by turns, by the statements of `statements.py` only.


class AgentRow(SQLModel, table=True):
    """The running side of an agent. Suspended means `owner IS NULL`, and nothing else anywhere."""

    __tablename__ = "agent"
    uid: str = Field(primary_key=True)
    namespace: str
    name: str
    generation: int = Field(sa_column=big(), description="the spec generation that turns run on")
    epoch: int = Field(sa_column=big())
    version: int = Field(sa_column=big(), description="turns committed")
    owner: str | None = None
    stopped: int = Field(sa_column=big())
    state: str | None = Field(default=None, sa_column=text_or_none())
    chunks: str | None = Field(
        default=None, sa_column=text_or_none(), description="of a large state: the hashes of its pieces, in order"
    )
    state_digest: str | None = None
    changed_at: float = Field(sa_column=seconds())
    placement: str | None = Field(default=None, description="the host it shall go to, as long as that one is there")
    state_version: int = Field(default=1, sa_column=big(1), description="what its code calls the shape of the state")
    chain: str | None = Field(default=None, description="of one that was spawned in a chain: what it may use is there")
    scope: str | None = Field(default=None, description="of one that was spawned in a scope: it ends with that")
    fleet: str | None = Field(default=None, description="of one that was spawned: what it uses is that of this fleet")
    __table_args__ = (
        Index("agent_by_name", "namespace", "name", unique=True),
        partial("agent_owned", "owner", where="owner IS NOT NULL"),
        partial("agent_stopped", "namespace", where="stopped = 1"),
        partial("agent_of_chain", "chain", where="chain IS NOT NULL"),
        partial("agent_of_scope", "scope", where="scope IS NOT NULL"),
    )


class TurnRow(SQLModel, table=True):
    """One turn; its id is a hash of agent and message, so that the row also remembers consumption."""

    __tablename__ = "turn"
    turn_id: str = Field(primary_key=True)
    agent: str
    message_id: str
    trigger: str
    message: str = Field(sa_column=text_column())
    outcome: str = Field(description="running | parked | committed | failed")
    attempts: int = Field(sa_column=big())
    epoch: int = Field(sa_column=big())
    digest: str = Field(description="the code digest it runs on")
    started_at: float = Field(sa_column=seconds())
    finished_at: float | None = Field(default=None, sa_column=seconds_or_none())
    cpu_ns: int = Field(sa_column=big())
    entries: int = Field(sa_column=big(), description="journal entries, the expected position of the next segment")
    state_digest: str | None = None
    problem: str | None = Field(default=None, sa_column=text_or_none())
    pinned: str | None = Field(
        default=None, sa_column=text_or_none(), description="while it is open: what of the spec it runs on"
    )
    looked_for: int | None = Field(
        default=None, sa_column=Column(BigInteger, nullable=True), description="the generation that it was held against"
    )
    decided: str | None = Field(default=None, description="what came of that: pinned | proved | differs")
    ends_by: float | None = Field(default=None, sa_column=seconds_or_none(), description="until when it is pinned")
    differs: str | None = Field(default=None, sa_column=text_or_none(), description="the Problem of the proof")
    format: int | None = Field(
        default=None, sa_column=Column(BigInteger, nullable=True), description="of its journal; none is the first"
    )
    __table_args__ = (
        Index("turn_by_agent", "agent", "started_at"),
        Index("turn_finished", "finished_at"),
        partial("turn_open", "agent", where="finished_at IS NULL"),
        partial("turn_ends_by", "ends_by", where="ends_by IS NOT NULL AND finished_at IS NULL"),
    )


class JournalRow(SQLModel, table=True):
    """One effect of a turn: the intent, then the receipt."""

    __tablename__ = "journal"
    turn_id: str = Field(primary_key=True)
    branch: str = Field(primary_key=True)
    position: int = Field(sa_column=Column(BigInteger, primary_key=True))
    kind: str = Field(description="an internal effect's kind, or `effect`")
    body: str = Field(sa_column=text_column())
    verdict: str | None = Field(default=None, sa_column=text_or_none())
    outcome: str | None = None
    result: str | None = Field(default=None, sa_column=text_or_none())
    recorded_at: float = Field(sa_column=seconds())
    send_by: float | None = Field(default=None, sa_column=seconds_or_none())
    finished_at: float | None = Field(default=None, sa_column=seconds_or_none())
    state: str | None = Field(default=None, description="a hash of the agent's state when its handler came to wait")


class AwaitRow(SQLModel, table=True):
    """A durable await. The first answer resolves it, once; `agent` is null when an operator asks."""

    __tablename__ = "awaiting"
    await_id: str = Field(primary_key=True)
    agent: str | None = Field(default=None, index=True)
    turn_id: str | None = None
    branch: str | None = None
    position: int | None = Field(default=None, sa_column=Column(BigInteger, nullable=True))
    kind: str = Field(description="ask | sleep | request | operator | effect | gather | question | compute")
    target: str = Field(description="what is waited on, for people")
    target_agent: str | None = Field(default=None, description="uid of who must answer")
    since: float = Field(sa_column=seconds())
    until: float = Field(sa_column=seconds())
    outcome: str | None = None
    result: str | None = Field(default=None, sa_column=text_or_none())
    resolved_at: float | None = Field(default=None, sa_column=seconds_or_none())
    members: int | None = Field(default=None, description="of a gathering: how many stand before it in the journal")
    needs: int | None = Field(default=None, description="of a gathering: how many answers are enough")
    answered_by: str | None = Field(default=None, description="of a question: the principal who answered")
    attempts: int | None = Field(default=None, description="of a compute: how often its task was begun")
    runner: str | None = Field(default=None, description="of a compute: the placer that was told so last")
    expires_at: float | None = Field(
        default=None, sa_column=seconds_or_none(), description="of a question: when its message does, unless it begins"
    )
    __table_args__ = (
        partial("await_due", "until", where="resolved_at IS NULL"),
        Index("await_by_turn", "turn_id"),
        partial("await_of_agent", "agent", where="resolved_at IS NULL"),
        partial("await_of_target", "target_agent", where="resolved_at IS NULL"),
        partial("await_of_person", "since", "await_id", where="kind = 'question' AND resolved_at IS NULL"),
        partial("await_of_operator", "resolved_at", where="turn_id IS NULL"),
        partial("await_of_branch", "agent", where="branch > '0' AND resolved_at IS NULL"),
        partial("await_of_compute", "await_id", where="kind = 'compute' AND resolved_at IS NULL"),
        partial("await_expires", "expires_at", where="expires_at IS NOT NULL AND resolved_at IS NULL"),
    )


class HostRow(SQLModel, table=True):
    """A host, its lease in this one row."""

    __tablename__ = "host"
    host_id: str = Field(primary_key=True)
    node: str
    pid: int | None = None
    pid_started: float | None = Field(default=None, sa_column=seconds_or_none())
    namespace: str | None = None
    digest: str | None = None
    lease_until: float | None = Field(default=None, sa_column=seconds_or_none())
    loop_lag_ms: float | None = Field(default=None, sa_column=seconds_or_none())
    created_at: float = Field(sa_column=seconds())
    ended_at: float | None = Field(default=None, sa_column=seconds_or_none())
    draining_since: float | None = Field(default=None, sa_column=seconds_or_none())
    kept_for: str | None = None
