"""The table of what far sides offer over connections. As in `tables`."""

from sqlmodel import Field, SQLModel

from controlplane.store.columns import by_bytes, packed, packed_or_none, seconds, seconds_or_none, text_or_none


class OfferRow(SQLModel, table=True):
    """A tool that the far side of a connection offers: as seen last, and as accepted, if it was."""

    __tablename__ = "offer"
    connection: str = Field(sa_column=by_bytes(), description="the connection's uid")
    tool: str = Field(sa_column=by_bytes())
    digest: str
    body: str = Field(sa_column=packed(), description="schemas.offers.Offered as JSON")
    seen_at: float = Field(sa_column=seconds())
    gone_at: float | None = Field(default=None, sa_column=seconds_or_none())
    accepted: str | None = Field(default=None, description="the digest of what was accepted")
    accepted_body: str | None = Field(default=None, sa_column=packed_or_none())
    roles: str | None = Field(default=None, sa_column=text_or_none(), description="JSON: argument to role")
    accepted_by: str | None = None
    accepted_at: float | None = Field(default=None, sa_column=seconds_or_none())
