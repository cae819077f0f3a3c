"""The tables of what comes to an agent: its inbox, timers, and places in the feedback log. As in `tables`."""

from sqlalchemy import BigInteger, Column, Index, String
from sqlmodel import Field, SQLModel

from controlplane.store.columns import auto, big, partial, seconds, seconds_or_none, text_column


class InboxRow(SQLModel, table=True):
    __tablename__ = "inbox"
    seq: int | None = Field(default=None, sa_column=auto())
    agent: str
    message_id: str
    trigger: str = Field(description="message | start | reply | timer | batch")
    body: str = Field(sa_column=text_column())
    accepted_at: float = Field(sa_column=seconds())
    attempts: int = Field(sa_column=big())
    key: str | None = Field(default=None, description="what of one key comes is handled in its order")
    rank: int | None = Field(
        default=None, sa_column=Column(BigInteger, nullable=True), description="9 less the priority; null of the rest"
    )
    channel: str | None = Field(default=None, description="of a queue: the uid of that channel")
    position: int | None = Field(
        default=None, sa_column=Column(BigInteger, nullable=True), description="where it goes back to, in that queue"
    )
    attempts_max: int | None = Field(default=None, sa_column=Column(BigInteger, nullable=True))
    __table_args__ = (
        Index("inbox_order", "agent", "seq"),
        partial("inbox_urgent", "agent", "rank", "seq", where="rank IS NOT NULL"),
        partial("inbox_key", "agent", "key", "seq", where="key IS NOT NULL"),
        partial("inbox_of_queue", "channel", "key", where="channel IS NOT NULL"),
        partial("inbox_held", "agent", "channel", where="channel IS NOT NULL"),
        Index("inbox_once", "agent", "message_id", unique=True),
        partial("inbox_start", "agent", where="trigger = 'start'"),
        partial("inbox_timer", "agent", where="trigger = 'timer'"),
        {"sqlite_autoincrement": True},
    )


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
