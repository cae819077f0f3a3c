"""The tables of channels: what was published, who reads it, and who was a member when. As in `tables`."""

from sqlalchemy import BigInteger, Column, Double, Index
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
    ephemeral: int = Field(default=0, sa_column=big(), description="whether it vanishes when it is empty and unused")
    used_at: float | None = Field(
        default=None, sa_column=seconds_or_none(), description="when it was made, joined or left last"
    )
    __table_args__ = (
        Index("channel_by_name", "namespace", "name", unique=True),
        partial("channel_ephemeral", "uid", where="ephemeral = 1"),
    )


class ChannelMessageRow(SQLModel, table=True):
    __tablename__ = "channel_message"
    channel: str = Field(primary_key=True)
    position: int = Field(sa_column=Column(BigInteger, primary_key=True))
    message_id: str
    key: str | None = None
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
    __table_args__ = (Index("subscription_by_position", "channel", "position"),)


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
        Index("membership_of", "channel", "agent"),
        partial("membership_open", "agent", "channel", where="left_position IS NULL"),
        partial("membership_ended", "channel", "left_position", where="left_position IS NOT NULL"),
    )
