"""What is kept of an agent beside its row: pieces of a large state, files of a workspace, messages given up; and of
its code, that it did not come to the same in a replay."""

from sqlalchemy import Column, Index, LargeBinary
from sqlmodel import Field, SQLModel

from controlplane.store.columns import auto, big, seconds, text_column


class StateChunkRow(SQLModel, table=True):
    """A piece of an agent's large state. See `states`."""

    __tablename__ = "state_chunk"
    agent: str = Field(primary_key=True)
    hash: str = Field(primary_key=True)
    body: bytes = Field(sa_column=Column(LargeBinary, nullable=False))


class WorkspaceFileRow(SQLModel, table=True):
    """A file of an agent's workspace, as its last turn left it."""

    __tablename__ = "workspace_file"
    agent: str = Field(primary_key=True)
    path: str = Field(primary_key=True)
    digest: str = Field(description="sha256 of the bytes, in hex")
    executable: int = Field(sa_column=big())
    size: int = Field(sa_column=big(), description="in bytes")
    body: bytes = Field(sa_column=Column(LargeBinary, nullable=False))


class DeadLetterRow(SQLModel, table=True):
    __tablename__ = "dead_letter"
    __table_args__ = (Index("dead_letter_of", "namespace", "id"),)
    id: int | None = Field(default=None, sa_column=auto())
    agent: str | None = Field(default=None, index=True)
    namespace: str
    name: str
    message_id: str
    body: str = Field(sa_column=text_column())
    reason: str
    detail: str = Field(sa_column=text_column())
    turn_id: str | None = None
    at: float = Field(sa_column=seconds())
    trigger: str = Field(sa_column_kwargs={"server_default": "message"})
    channel: str | None = None


class DivergenceRow(SQLModel, table=True):
    """Marks the code of a digest in a namespace; of each kind of difference, what was found first."""

    __tablename__ = "divergence"
    digest: str = Field(primary_key=True)
    namespace: str = Field(primary_key=True)
    kind: str = Field(primary_key=True, description="effect | order | state | reply | raised | endless")
    agent: str = Field(description="whose turn it was, by name")
    turn_id: str
    problem: str = Field(sa_column=text_column())
    at: float = Field(sa_column=seconds())
