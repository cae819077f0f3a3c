"""What every connection has, whatever its protocol: endpoint, secret, trust, limits. Options are the protocol's."""

from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints

from schemas.base import Frozen, Name
from schemas.secret import SecretKey

UNTRUSTED: Literal["untrusted"] = "untrusted"
LABEL = "[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
PORT = "([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])"
_SEGMENT = "[A-Za-z0-9_~-][A-Za-z0-9._~-]*"
HttpUrl = Annotated[
    str,
    StringConstraints(
        pattern=rf"^https?://{LABEL}(\.{LABEL})*(:{PORT})?(/{_SEGMENT})*/?$", min_length=8, max_length=500
    ),
]
HeaderName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9-]{0,62}$", max_length=63)]


class SecretRef(Frozen):
    """One value of a secret of the same namespace."""

    name: Name
    key: SecretKey


class ConnectionLimits(Frozen):
    """Bounds of all calls over the connection together, and of each."""

    calls_per_s_max: float = Field(default=10, ge=0.01, le=10_000)
    in_flight_max: int = Field(default=4, ge=1, le=64)
    timeout_s: float = Field(default=30, ge=0.05, le=300)
    response_bytes_max: int = Field(default=1_048_576, ge=1, le=1_048_576)


class ConnectionSpec(Frozen):
    """What is wanted of a connection; each protocol narrows `protocol`, `endpoint` and `options`."""

    protocol: str
    endpoint: str
    secret: SecretRef | None = None
    trust: Literal["untrusted"] = UNTRUSTED
    limits: ConnectionLimits = Field(default_factory=ConnectionLimits)
    options: Any = None


class HeaderOptions(Frozen):
    """How the secret is sent in a header, and where calls may lead: what all protocols over HTTP have."""

    secret_header: HeaderName = "Authorization"  # noqa: S105 - the name of a header
    secret_scheme: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9-]{0,32}$")] = Field(
        default="Bearer", description="Stands before the secret; empty: the secret alone."
    )
    allow_private: bool = Field(
        default=False, description="Whether loopback, private, link-local and metadata addresses may be reached."
    )
