"""The tables of who is found by what. As in `tables`."""

from sqlalchemy import Column, Index, LargeBinary
from sqlmodel import Field, SQLModel

from controlplane.store.columns import by_bytes, seconds


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
