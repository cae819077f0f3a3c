"""What is kept of an agent beside its row: pieces of a large state, files of a workspace."""

from sqlalchemy import Column, LargeBinary
from sqlmodel import Field, SQLModel

from controlplane.store.columns import big


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
