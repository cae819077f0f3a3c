"""The tables of what was used, and of chains, which bound it. As in `tables`.

The two of use are read by the view `used`, which tells each amount as a row of its own, or by a chain.
"""

from typing import Any

from sqlalchemy import BigInteger, Column, Index, String, column, table
from sqlmodel import Field, SQLModel

from controlplane.store.columns import big, by_bytes, partial, seconds, text_column, text_or_none


class UsageRow(SQLModel, table=True):
    """What an agent used of one meter within one hour: a sum, grown by the very commits that it is about.

    `effect` and `connection` are empty for what turns themselves use, `chain` for what is of none that has a record,
    `fleet` for agents of none: it is the one that the agent was of when it used that.
    `amount` counts millionths.
    """

    __tablename__ = "usage"
    namespace: str = Field(sa_column=by_bytes())
    agent: str = Field(sa_column=by_bytes())
    hour: int = Field(sa_column=Column(BigInteger, primary_key=True), description="hours since 1970 in UTC")
    effect: str = Field(sa_column=by_bytes())
    connection: str = Field(sa_column=by_bytes())
    meter: str = Field(sa_column=by_bytes())
    chain: str = Field(default="", sa_column=Column(String, primary_key=True, server_default=""))
    fleet: str = Field(sa_column=by_bytes())
    amount: int = Field(sa_column=big())
    __table_args__ = (Index("usage_by_hour", "hour"), partial("usage_by_chain", "chain", where="chain <> ''"))


class CommonUsageRow(SQLModel, table=True):
    """The same of the meters that each turn or each effect has, of no chain: one row, since it is written so often."""

    __tablename__ = "usage_common"
    namespace: str = Field(sa_column=by_bytes())
    agent: str = Field(sa_column=by_bytes())
    hour: int = Field(sa_column=Column(BigInteger, primary_key=True), description="hours since 1970 in UTC")
    effect: str = Field(sa_column=by_bytes())
    connection: str = Field(sa_column=by_bytes())
    fleet: str = Field(sa_column=by_bytes())
    turns: int = Field(default=0, sa_column=big())
    active_s: int = Field(default=0, sa_column=big())
    cpu_s: int = Field(default=0, sa_column=big())
    effects: int = Field(default=0, sa_column=big())
    bytes_out: int = Field(default=0, sa_column=big())
    bytes_in: int = Field(default=0, sa_column=big())
    __table_args__ = (Index("usage_common_by_hour", "hour"),)


OF_CHAINS: Any = UsageRow.metadata.tables["usage"].c  # what is of a chain is there alone, and found by its index
USED: Any = table("used", *(column(it.name) for it in OF_CHAINS)).c


class ChainRow(SQLModel, table=True):
    """What a message says that all the work because of it may use, and who wanted what; named by the message's id."""

    __tablename__ = "chain"
    chain_id: str = Field(primary_key=True)
    namespace: str
    parent: str | None = None
    opened_by: str = Field(description="the agent or the principal who sent the message")
    onbehalfof: str | None = None
    intent: str | None = Field(default=None, sa_column=text_or_none())
    limits: str = Field(sa_column=text_column(), description="JSON: meter to most, empty where only the intent is kept")
    created_at: float = Field(sa_column=seconds())
    __table_args__ = (
        Index("chain_created", "created_at"),
        partial("chain_by_parent", "parent", where="parent IS NOT NULL"),
    )
