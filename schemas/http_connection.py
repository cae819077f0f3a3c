"""A connection of protocol `http`: what the far side promises, how the secret is sent, where calls may lead."""

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, model_validator

from schemas.endpoint import ConnectionSpec, HeaderName, HeaderOptions, HttpUrl

Method = Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"]

_KEYS_LIVE: dict[str, Any] = {  # a key that is honoured is honoured for some time
    "if": {"required": ["idempotency_header"], "properties": {"idempotency_header": {"type": "string"}}},
    "then": {"required": ["key_lifetime_s"], "properties": {"key_lifetime_s": {"type": "integer"}}},
    "else": {"properties": {"key_lifetime_s": {"type": "null"}}},
}


class HttpOptions(HeaderOptions):
    """What the far side promises, how the secret is sent, where calls may lead."""

    model_config = ConfigDict(json_schema_extra=_KEYS_LIVE)

    idempotency_header: HeaderName | None = Field(
        default=None, description="The far side does a request with the same key in this header once."
    )
    key_lifetime_s: int | None = Field(
        default=None, ge=1, le=31_536_000, description="For how long the far side knows a key."
    )
    repeats_safely: Annotated[list[Method], Field(max_length=6)] = Field(
        default_factory=list, description="Methods that the far side promises to do once, however often."
    )
    redirects_max: int = Field(default=0, ge=0, le=5, description="Redirects followed by GET and HEAD.")

    @model_validator(mode="after")
    def _keys_live(self) -> "HttpOptions":
        if (self.idempotency_header is None) != (self.key_lifetime_s is None):
            raise ValueError("idempotency_header and key_lifetime_s go together")
        return self


class HttpConnection(ConnectionSpec):
    """An HTTP endpoint."""

    protocol: Literal["http"]
    endpoint: HttpUrl
    options: HttpOptions = Field(default_factory=HttpOptions)
