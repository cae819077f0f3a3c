"""The tables of who is found by what. As in `tables`."""

from sqlalchemy import Column, Index, LargeBinary
from sqlmodel import Field, SQLModel

from controlplane.store.columns import big, by_bytes, bytewise, partial, seconds, seconds_or_none, text_column


class TraitRow(SQLModel, table=True):
    """What a live agent is found by. Derived from its spec, and written where that is."""

    __tablename__ = "trait"
    kind: str = Field(sa_column=by_bytes(), description="capability: its name | meaning: the mark of what it says")
    namespace: str = Field(sa_column=by_bytes())
    value: str = Field(sa_column=by_bytes())
    name: str = Field(sa_column=by_bytes())


class MeaningRow(SQLModel, table=True):
    """The vector of a text, by its mark; of each namespace for itself, so that none learns what another says."""

    __tablename__ = "meaning"
    namespace: str = Field(sa_column=by_bytes())
    mark: str = Field(sa_column=by_bytes())
    vector: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    at: float = Field(sa_column=seconds())
    __table_args__ = (Index("meaning_at", "at", "namespace", "mark"),)


class MemberRow(SQLModel, table=True):
    """An agent elsewhere that says it is there, until its lease is over; one row holds all that is known of it."""

    __tablename__ = "member"
    namespace: str = Field(sa_column=by_bytes())
    name: str = Field(sa_column=by_bytes())
    principal: str
    labels: str = Field(sa_column=text_column())
    purpose: str = Field(sa_column=text_column())
    capabilities: str = Field(sa_column=text_column())
    address: str = Field(sa_column=text_column())
    meaning: str = Field(description="the mark of what it says; empty where it says nothing")
    since: float = Field(sa_column=seconds())
    expires_at: float = Field(sa_column=seconds())
    __table_args__ = (Index("member_expires", "expires_at"), Index("member_meaning", "namespace", "meaning"))


class InvitationRow(SQLModel, table=True):
    """What agents of another namespace may do with one agent or channel, until when; bound to its uid."""

    __tablename__ = "invitation"
    invitation_id: str = Field(primary_key=True)
    kind: str
    namespace: str = Field(sa_column=bytewise())
    name: str
    uid: str
    to_namespace: str = Field(sa_column=bytewise())
    to_agent: str = Field(description="empty: every agent there")
    effects: str = Field(description="`,send,ask,`")
    principal: str
    created_at: float = Field(sa_column=seconds())
    expires_at: float = Field(sa_column=seconds())
    revoked_at: float | None = Field(default=None, sa_column=seconds_or_none())
    __table_args__ = (
        Index("invitation_to", "to_namespace", "namespace", "name"),
        Index("invitation_of", "namespace"),
        Index("invitation_expires", "expires_at"),
    )


class TrafficRow(SQLModel, table=True):
    """What came to an agent from one source: sums, counted from the turns that handled it."""

    __tablename__ = "traffic"
    namespace: str = Field(sa_column=by_bytes())
    name: str = Field(sa_column=by_bytes())
    source: str = Field(sa_column=by_bytes(), description="of an envelope; `*`: of all that are not told apart")
    channel: str = Field(sa_column=by_bytes(), description="that it came by; empty: straight to the inbox")
    messages: int = Field(sa_column=big())
    chars: int = Field(sa_column=big(), description="of their envelopes")
    wait_s: float = Field(sa_column=seconds(), description="from being sent to the turn's start, of all together")
    since: float = Field(sa_column=seconds())
    last: float = Field(sa_column=seconds())
    __table_args__ = (Index("traffic_from", "source"), Index("traffic_last", "last"))


class ScopeRow(SQLModel, table=True):
    """Children that end together: when the turn is over that spawned them, or their parent is gone."""

    __tablename__ = "scope"
    scope_id: str = Field(primary_key=True)
    owner: str = Field(description="uid of the agent that opened it")
    namespace: str
    name: str
    kind: str = Field(description="turn | agent")
    opened_at: float = Field(sa_column=seconds())
    ended_at: float | None = Field(default=None, sa_column=seconds_or_none())
    cleared_at: float | None = Field(default=None, sa_column=seconds_or_none(), description="nothing of it was left")
    __table_args__ = (
        partial("scope_open", "owner", where="ended_at IS NULL"),
        partial("scope_ended", "ended_at", where="ended_at IS NOT NULL AND cleared_at IS NULL"),
        partial("scope_cleared", "cleared_at", where="cleared_at IS NOT NULL"),
    )
