"""A connection of protocol `sql`: a database by its SQLAlchemy URL, what statements may do, where keys are kept."""

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from schemas.base import Frozen
from schemas.endpoint import LABEL, PORT, ConnectionSpec
from schemas.sql import NAME_PATTERN

ROWS_MAX = 10_000
_SERVER = (
    rf"[a-z][a-z0-9]{{0,30}}(\+[a-z0-9_]{{1,30}})?://([A-Za-z0-9_.~-]{{1,63}}@)?{LABEL}(\.{LABEL})*(:{PORT})?"
    r"/[A-Za-z0-9_.~-]{1,100}(\?sslmode=(disable|require|verify-ca|verify-full))?"
)
_FILE = r"sqlite:////?[A-Za-z0-9_.~-]+(/[A-Za-z0-9_.~-]+)*"
SqlUrl = Annotated[str, StringConstraints(pattern=rf"^({_SERVER}|{_FILE})$", min_length=8, max_length=500)]
TableName = Annotated[str, StringConstraints(pattern=NAME_PATTERN)]


class SqlOptions(Frozen):
    """What statements over the connection may do, and where a repetition is known."""

    allow_private: bool = Field(
        default=False, description="Whether loopback, private, link-local and metadata addresses may be reached."
    )
    query_rows_max: int = Field(default=1000, ge=1, le=ROWS_MAX, description="Rows of an answer; what is more is cut.")
    rows_max: int | None = Field(
        default=None, ge=0, le=1_000_000_000, description="Rows that one statement may change; beyond, it is denied."
    )
    keys_table: TableName | None = Field(
        default=None,
        description="A table of the far side where a statement's key is written in its transaction, so that it is"
        " done once, however often it is sent: (idempotency_key, answer, done_at).",
    )
    keys_kept_s: int | None = Field(
        default=None, ge=1, le=31_536_000, description="For how long keys stay there; null: for ever."
    )


class SqlConnection(ConnectionSpec):
    """A database. A password is the secret's; of SQLite, a file in a folder that the installation allows."""

    protocol: Literal["sql"]
    endpoint: SqlUrl
    options: SqlOptions = Field(default_factory=SqlOptions)
