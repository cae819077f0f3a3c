"""`http.request`: what an agent may ask for."""

import re
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, StringConstraints, model_validator

from schemas.base import Frozen
from schemas.connection import HeaderName, Method

HEADERS_MAX = 64
HEADER_CHARS_MAX = 8192
# Set by us or by the connection, never by an agent.
RESERVED = frozenset(
    {"authorization", "connection", "content-length", "cookie", "expect", "host", "keep-alive", "proxy-authorization",
     "te", "trailer", "transfer-encoding", "upgrade", "accept-encoding", "traceparent", "tracestate"}
)  # fmt: skip
Path = Annotated[
    str,
    StringConstraints(pattern=r"^/?([A-Za-z0-9_~!$&'()*+,;=:@%-][A-Za-z0-9._~!$&'()*+,;=:@%-]*/?)*$", max_length=2000),
]
HeaderValue = Annotated[str, StringConstraints(pattern=r"^[\x20-\x7e]*$", max_length=HEADER_CHARS_MAX)]
Attribute = Annotated[str, StringConstraints(min_length=1, max_length=2000)]
ATTRIBUTE = re.compile(r"[a-z0-9]{1,20}")
Scalar = str | int | float | bool


class CloudEvent(Frozen):
    """An event by CloudEvents 1.0: these attributes, and any others in lower case."""

    model_config = ConfigDict(extra="allow")

    specversion: Literal["1.0"] = "1.0"
    id: Attribute
    source: Attribute
    type: Attribute
    data: Any = None

    @model_validator(mode="after")
    def _named(self) -> "CloudEvent":
        for name in self.model_extra or ():
            if not ATTRIBUTE.fullmatch(name):
                raise ValueError(f"{name[:50]} is no attribute's name: lower-case letters and digits")
        return self


class HttpRequest(Frozen):
    """One request over a connection; `path` is below the connection's endpoint."""

    method: Method = "GET"
    path: Path = ""
    query: dict[str, Scalar | list[Scalar]] = Field(default_factory=dict, max_length=100)
    headers: dict[HeaderName, HeaderValue] = Field(default_factory=dict, max_length=HEADERS_MAX)
    body: Any = Field(default=None, alias="json")
    text: str | None = None
    event: CloudEvent | None = Field(default=None, description="A CloudEvent, as an envelope is one; sent as such.")
    event_mode: Literal["binary", "structured"] = Field(
        default="binary", description="Binary: its attributes are headers. Structured: the body is all of it."
    )

    @model_validator(mode="after")
    def _fits(self) -> "HttpRequest":
        if ("body" in self.model_fields_set) + (self.text is not None) + (self.event is not None) > 1:
            raise ValueError("give one of json, text and event")
        if self.has_body and self.method in ("GET", "HEAD"):
            raise ValueError(f"{self.method} has no body")
        if any(it in self.path.lower() for it in ("%2e", "%2f", "%5c")):
            raise ValueError("a path has no encoded dots or slashes")
        if taken := sorted(name for name in self.headers if name.lower() in RESERVED):
            raise ValueError(f"header {taken[0]} is not an agent's to set")
        return self

    @property
    def has_body(self) -> bool:
        return "body" in self.model_fields_set or self.text is not None or self.event is not None


class MadeRequest(HttpRequest):
    """A request that an operation of a document becomes: its body may be of another kind than JSON, and what it says
    as cookies is for the endpoint's own origin. No agent gives one as it is."""

    content: bytes | None = None
    cookie: str = ""

    @property
    def has_body(self) -> bool:
        return self.content is not None or super().has_body
