"""The tables of what comes to an agent by itself: timers, and channels with who reads them. As in `tables`."""

from sqlalchemy import BigInteger, Column, Double, Index, String
from sqlmodel import Field, SQLModel

from controlplane.store.columns import big, seconds, seconds_or_none, text_column


class TimerRow(SQLModel, table=True):
    __tablename__ = "timer"
    agent: str = Field(primary_key=True)
    name: str = Field(primary_key=True)
    version: int = Field(sa_column=big())
    fired: int = Field(sa_column=big())
    due_at: float = Field(sa_column=seconds())
    every_s: float | None = Field(default=None, sa_column=seconds_or_none())
    data: str = Field(sa_column=text_column())
    cron: str | None = None
    zone: str | None = None
    missed: str = Field(
        default="fire_once",
        sa_column=Column(String, nullable=False, server_default="fire_once"),
        description="fire_once | skip | all",
    )
    behind: int = Field(default=0, sa_column=big(), description="times that were passed over, and not told yet")
    __table_args__ = (Index("timer_due", "due_at"),)


class ChannelRow(SQLModel, table=True):
    """The running side of a channel."""

    __tablename__ = "channel"
    uid: str = Field(primary_key=True)
    namespace: str
    name: str
    next_position: int = Field(sa_column=big(1))
    retention_s: float = Field(sa_column=seconds())
    __table_args__ = (Index("channel_by_name", "namespace", "name", unique=True),)


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


class FeedbackWatchRow(SQLModel, table=True):
    """An agent's place in the feedback log; `position` is the last event that it passed, `told` how many it got."""

    __tablename__ = "feedback_watch"
    agent: str = Field(primary_key=True)
    watch: str = Field(primary_key=True)
    position: int = Field(sa_column=big())
    told: int = Field(sa_column=big())
    since: float = Field(sa_column=seconds())
    filter: str = Field(sa_column=text_column())
    debounce_s: float = Field(sa_column=seconds())
    batch_max: int = Field(sa_column=big(1))


class ArrivalRow(SQLModel, table=True):
    """What came in over a connection, by the message that it became: it comes once."""

    __tablename__ = "arrival"
    connection: str = Field(primary_key=True)
    message_id: str = Field(primary_key=True)
    at: float = Field(sa_column=seconds())
    __table_args__ = (Index("arrival_by_time", "at"),)
