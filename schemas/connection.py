"""Connection: a named way to the outside: protocol, endpoint, secret, trust, limits, options."""

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, StringConstraints, model_validator

from schemas.base import Frozen, Name, Output
from schemas.resource import API_VERSION, Condition, ManifestMetadata, Metadata
from schemas.secret import SecretKey

_LABEL = "[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_PORT = "([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])"
_SEGMENT = "[A-Za-z0-9_~-][A-Za-z0-9._~-]*"
HttpUrl = Annotated[
    str,
    StringConstraints(
        pattern=rf"^https?://{_LABEL}(\.{_LABEL})*(:{_PORT})?(/{_SEGMENT})*/?$", min_length=8, max_length=500
    ),
]
HeaderName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9-]{0,62}$", max_length=63)]
Method = Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"]

_KEYS_LIVE: dict[str, Any] = {  # a key that is honoured is honoured for some time
    "if": {"required": ["idempotency_header"], "properties": {"idempotency_header": {"type": "string"}}},
    "then": {"required": ["key_lifetime_s"], "properties": {"key_lifetime_s": {"type": "integer"}}},
    "else": {"properties": {"key_lifetime_s": {"type": "null"}}},
}


_OF_LLM: dict[str, Any] = {  # an LLM's endpoint is asked by its API: nothing of how a request is repeated is its own
    "if": {"required": ["protocol"], "properties": {"protocol": {"const": "llm"}}},
    "then": {
        "properties": {
            "options": {
                "properties": {
                    "idempotency_header": {"type": "null"},
                    "key_lifetime_s": {"type": "null"},
                    "repeats_safely": {"maxItems": 0},
                    "redirects_max": {"const": 0},
                }
            }
        }
    },
    "else": {"properties": {"options": {"properties": {"api": {"const": "openai"}}}}},
}


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


class HttpOptions(Frozen):
    """What the far side promises, how the secret is sent, where calls may lead."""

    model_config = ConfigDict(json_schema_extra=_KEYS_LIVE)

    idempotency_header: HeaderName | None = Field(
        default=None, description="The far side does a request with the same key in this header once."
    )
    key_lifetime_s: int | None = Field(
        default=None, ge=1, le=31_536_000, description="For how long the far side knows a key."
    )
    repeats_safely: list[Method] = Field(
        default_factory=list, max_length=6, description="Methods that the far side promises to do once, however often."
    )
    secret_header: HeaderName = "Authorization"  # noqa: S105 - the name of a header
    secret_scheme: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9-]{0,32}$")] = Field(
        default="Bearer", description="Stands before the secret; empty: the secret alone."
    )
    allow_private: bool = Field(
        default=False, description="Whether loopback, private, link-local and metadata addresses may be reached."
    )
    redirects_max: int = Field(default=0, ge=0, le=5, description="Redirects followed by GET and HEAD.")

    api: Literal["openai", "anthropic"] = Field(
        default="openai", description="For protocol `llm`: whose API the endpoint speaks."
    )

    @model_validator(mode="after")
    def _keys_live(self) -> "HttpOptions":
        if (self.idempotency_header is None) != (self.key_lifetime_s is None):
            raise ValueError("idempotency_header and key_lifetime_s go together")
        return self


class ConnectionSpec(Frozen):
    """What is wanted of a connection; `llm` is an LLM's endpoint."""

    model_config = ConfigDict(json_schema_extra=_OF_LLM)

    protocol: Literal["http", "llm"]
    endpoint: HttpUrl
    secret: SecretRef | None = None
    trust: Literal["untrusted"] = "untrusted"
    limits: ConnectionLimits = Field(default_factory=ConnectionLimits)
    options: HttpOptions = Field(default_factory=HttpOptions)

    @model_validator(mode="after")
    def _of_its_protocol(self) -> "ConnectionSpec":
        options = self.options
        if self.protocol == "llm" and (options.idempotency_header or options.repeats_safely or options.redirects_max):
            raise ValueError("a connection to an LLM repeats nothing, and follows no redirects")
        if self.protocol == "http" and options.api != "openai":
            raise ValueError("only a connection of protocol llm has an api")
        return self


class ConnectionManifest(Frozen):
    """A connection as a writer declares it."""

    api_version: Literal["steward/v1"] = API_VERSION
    kind: Literal["Connection"]
    metadata: ManifestMetadata
    spec: ConnectionSpec
    status: dict[str, Any] | None = Field(default=None, description="Ignored in input.")


class ConnectionStatus(Output):
    """What is observed of a connection; condition `Ready`."""

    conditions: list[Condition]


class Connection(Output):
    """A connection as it is answered."""

    api_version: Literal["steward/v1"] = API_VERSION
    kind: Literal["Connection"] = "Connection"
    metadata: Metadata
    spec: ConnectionSpec
    status: ConnectionStatus
