"""The tables of channels: what was published, who reads it, and who was a member when. As in `tables`."""

from sqlalchemy import BigInteger, Column, Double, Index, String
from sqlmodel import Field, SQLModel

from controlplane.store.columns import auto, big, partial, seconds, seconds_or_none, text_column


class ChannelRow(SQLModel, table=True):
    """The running side of a channel."""

    __tablename__ = "channel"
    uid: str = Field(primary_key=True)
    namespace: str
    name: str
    next_position: int = Field(sa_column=big(1))
    retention_s: float = Field(sa_column=seconds())
    mode: str = Field(default="broadcast", sa_column=Column(String, nullable=False, server_default="broadcast"))
    backlog_max: int = Field(
        default=10_000,
        sa_column=big(10_000),
        description="what waits in a queue; how far a broadcast waits for members",
    )
    attempts_max: int | None = Field(default=None, sa_column=Column(BigInteger, nullable=True))
    in_flight_max: int = Field(default=1, sa_column=big(1), description="of a queue: what one member holds")
    ephemeral: int = Field(default=0, sa_column=big(), description="whether it vanishes when it is empty and unused")
    used_at: float | None = Field(
        default=None, sa_column=seconds_or_none(), description="when it was made, joined or left last"
    )
    __table_args__ = (
        Index("channel_by_name", "namespace", "name", unique=True),
        partial("channel_ephemeral", "uid", where="ephemeral = 1"),
        partial("channel_queue", "uid", where="mode = 'queue'"),
    )


class ChannelMessageRow(SQLModel, table=True):
    __tablename__ = "channel_message"
    channel: str = Field(primary_key=True)
    position: int = Field(sa_column=Column(BigInteger, primary_key=True))
    message_id: str
    key: str | None = None
    rank: int | None = Field(default=None, sa_column=Column(BigInteger, nullable=True), description="as of the inbox")
    body: str = Field(sa_column=text_column())
    accepted_at: float = Field(sa_column=seconds())
    __table_args__ = (Index("channel_message_once", "channel", "message_id", unique=True),)


class SubscriptionRow(SQLModel, table=True):
    """An agent's place in a channel; `position` is the last one that went to its inbox."""

    __tablename__ = "subscription"
    channel: str = Field(primary_key=True)
    agent: str = Field(primary_key=True, index=True)
    position: int = Field(sa_column=big())
    since: float = Field(sa_column=seconds())
    debounce_s: float = Field(default=0.0, sa_column=Column(Double, nullable=False, server_default="0"))
    batch_max: int = Field(default=1, sa_column=big(1))
    invitation: str | None = Field(default=None, description="of a guest from another namespace: what it is one by")
    __table_args__ = (
        Index("subscription_by_position", "channel", "position"),
        partial("subscription_of_guest", "invitation", where="invitation IS NOT NULL"),
    )


class QueuedRow(SQLModel, table=True):
    """A message of a queue that no member has: `ready` when it is the next of its key, and nobody holds that.

    `rank` is that of the most urgent message of its key when it is ready, `own_rank` its own; the lowest goes first.
    """

    __tablename__ = "queued"
    channel: str = Field(primary_key=True)
    position: int = Field(sa_column=Column(BigInteger, primary_key=True))
    key: str | None = None
    own_rank: int = Field(sa_column=big(9))
    rank: int = Field(sa_column=big(9))
    ready: int = Field(sa_column=big(0))
    attempts: int = Field(sa_column=big(0))
    expires_at: float | None = Field(default=None, sa_column=seconds_or_none())
    __table_args__ = (
        Index("queued_ready", "channel", "ready", "rank", "position"),
        partial("queued_key", "channel", "key", "position", where="key IS NOT NULL"),
        partial("queued_key_rank", "channel", "key", "own_rank", where="key IS NOT NULL"),
        partial("queued_expires", "expires_at", where="expires_at IS NOT NULL"),
    )


class DelayedRow(SQLModel, table=True):
    """A message that takes its place, in an inbox or a channel, when its time has come.

    One that was cancelled stays for a while, without its body: whoever sends it again under its id changes nothing.
    """

    __tablename__ = "delayed"
    id: int | None = Field(default=None, sa_column=auto())
    kind: str = Field(description="Agent | Channel")
    namespace: str
    name: str
    message_id: str
    key: str | None = None
    rank: int | None = Field(default=None, sa_column=Column(BigInteger, nullable=True))
    expires_at: float | None = Field(default=None, sa_column=seconds_or_none())
    body: str = Field(sa_column=text_column())
    due_at: float = Field(sa_column=seconds())
    cancelled_at: float | None = Field(default=None, sa_column=seconds_or_none())
    __table_args__ = (
        Index("delayed_once", "kind", "namespace", "name", "message_id", unique=True),
        partial("delayed_due", "due_at", "id", where="cancelled_at IS NULL"),
        partial("delayed_cancelled", "cancelled_at", where="cancelled_at IS NOT NULL"),
    )


class MembershipRow(SQLModel, table=True):
    """Who was a member of a channel when: of messages at `joined_position` and behind, before `left_position`."""

    __tablename__ = "membership"
    id: int | None = Field(default=None, sa_column=auto())
    channel: str
    agent: str
    name: str = Field(description="of the agent, which may be gone by now")
    joined_position: int = Field(sa_column=big())
    joined_at: float = Field(sa_column=seconds())
    left_position: int | None = Field(default=None, sa_column=Column(BigInteger, nullable=True))
    left_at: float | None = Field(default=None, sa_column=seconds_or_none())
    __table_args__ = (
        Index("membership_of", "agent", "channel"),
        Index("membership_in", "channel", "id"),
        partial("membership_open", "agent", "channel", where="left_position IS NULL"),
        partial("membership_ended", "channel", "left_position", where="left_position IS NOT NULL"),
    )
