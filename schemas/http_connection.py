"""A connection of protocol `http`: what the far side promises, how the secret is sent, where calls may lead."""

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, model_validator

from schemas.base import Frozen, Name
from schemas.endpoint import ConnectionSpec, HeaderName, HeaderOptions, HttpUrl

Method = Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"]

_KEYS_LIVE: dict[str, Any] = {  # a key that is honoured is honoured for some time
    "if": {"required": ["idempotency_header"], "properties": {"idempotency_header": {"type": "string"}}},
    "then": {"required": ["key_lifetime_s"], "properties": {"key_lifetime_s": {"type": "integer"}}},
    "else": {"properties": {"key_lifetime_s": {"type": "null"}}},
}


class WebhookOptions(Frozen):
    """What is posted to `/hooks/{namespace}/{connection}`, signed as standard-webhooks says, goes into a channel."""

    channel: Name


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

    openapi: dict[str, Any] | None = Field(
        default=None,
        description="An OpenAPI document (3.0 or 3.1), of up to 256 KiB: its operations are effects"
        " `http.<operationId>`. Where it says that its server is, is not looked at.",
    )
    webhook: WebhookOptions | None = Field(
        default=None, description="Signed by the connection's secret, which calls out do not carry then."
    )

    @model_validator(mode="after")
    def _keys_live(self) -> "HttpOptions":
        if (self.idempotency_header is None) != (self.key_lifetime_s is None):
            raise ValueError("idempotency_header and key_lifetime_s go together")
        return self


_SIGNED: dict[str, Any] = {  # a webhook has a secret to be signed by
    "if": {
        "required": ["options"],
        "properties": {"options": {"required": ["webhook"], "properties": {"webhook": {"type": "object"}}}},
    },
    "then": {"required": ["secret"], "properties": {"secret": {"type": "object"}}},
}


class HttpConnection(ConnectionSpec):
    """An HTTP endpoint."""

    model_config = ConfigDict(json_schema_extra=_SIGNED)

    protocol: Literal["http"]
    endpoint: HttpUrl
    options: HttpOptions = Field(default_factory=HttpOptions)

    @model_validator(mode="after")
    def _signed(self) -> "HttpConnection":
        if self.options.webhook is not None and self.secret is None:
            raise ValueError("a webhook needs a secret that it is signed by")
        return self
