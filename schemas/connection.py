"""Connection: a named way to the outside. Each protocol of ours has a model of its own; all others share one.

A protocol of ours is added by its model in a file beside this one, a member of `AnyConnection`, and its name in
`OURS`. What a stranger's protocol takes as options is checked at admission, by the schema that it brings along.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, GetJsonSchemaHandler, StringConstraints, Tag, TypeAdapter
from pydantic_core import CoreSchema

from schemas.base import Frozen, Output, Text
from schemas.endpoint import ConnectionLimits as ConnectionLimits
from schemas.endpoint import ConnectionSpec as ConnectionSpec
from schemas.endpoint import HeaderName as HeaderName
from schemas.endpoint import SecretRef as SecretRef
from schemas.http_connection import HttpConnection
from schemas.http_connection import Method as Method
from schemas.llm_connection import LlmConnection
from schemas.mcp_connection import McpConnection
from schemas.resource import API_VERSION, Condition, ManifestMetadata, Metadata
from schemas.sql_connection import SqlConnection

OURS = frozenset({"http", "llm", "mcp", "sql"})
TAG = "protocol:"  # begins the tags of the union, which no field of a spec is named like
ProtocolName = Annotated[
    str,
    StringConstraints(pattern=r"^[a-z][a-z0-9]{0,31}$", max_length=32),
    Field(json_schema_extra={"not": {"enum": sorted(OURS)}}),
]


class OtherConnection(ConnectionSpec):
    """A connection of a protocol that is not among ours; its package says what options it takes."""

    protocol: ProtocolName
    endpoint: Text = Field(min_length=1, max_length=500)
    options: dict[str, Any] = Field(default_factory=dict, max_length=100)


def _tag(given: Any) -> str:
    name = given.get("protocol") if isinstance(given, Mapping) else getattr(given, "protocol", None)
    return f"{TAG}{name if isinstance(name, str) and name in OURS else 'other'}"


class _AnyOf:
    """`anyOf` in the schema where pydantic has `oneOf`: that only one fits follows from `protocol`, and readers that
    take `oneOf` for a discriminator's find none."""

    def __get_pydantic_json_schema__(self, core: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        schema = handler(core)
        schema["anyOf"] = schema.pop("oneOf")
        return schema


AnyConnection = Annotated[
    Annotated[HttpConnection, Tag("protocol:http")]
    | Annotated[LlmConnection, Tag("protocol:llm")]
    | Annotated[McpConnection, Tag("protocol:mcp")]
    | Annotated[SqlConnection, Tag("protocol:sql")]
    | Annotated[OtherConnection, Tag("protocol:other")],
    Discriminator(_tag),
    _AnyOf(),
]
SPECS: TypeAdapter[ConnectionSpec] = TypeAdapter(AnyConnection)
# Records of before each protocol had options of its own hold these, always unused.
_UNUSED = {
    "http": ("api",),
    "llm": ("idempotency_header", "key_lifetime_s", "repeats_safely", "redirects_max"),
}


def connection_spec(given: Mapping[str, Any]) -> ConnectionSpec:
    """The spec of a connection as it is stored; raises ValidationError."""
    unused = _UNUSED.get(given.get("protocol", ""), ())
    options = {name: value for name, value in (given.get("options") or {}).items() if name not in unused}
    return SPECS.validate_python({**given, "options": options})


class ConnectionManifest(Frozen):
    """A connection as a writer declares it."""

    api_version: Literal["steward/v1"] = API_VERSION
    kind: Literal["Connection"]
    metadata: ManifestMetadata
    spec: AnyConnection
    status: dict[str, Any] | None = Field(default=None, description="Ignored in input.")


class ConnectionStatus(Output):
    """What is observed of a connection; condition `Ready`."""

    conditions: list[Condition]


class Connection(Output):
    """A connection as it is answered."""

    api_version: Literal["steward/v1"] = API_VERSION
    kind: Literal["Connection"] = "Connection"
    metadata: Metadata
    spec: AnyConnection
    status: ConnectionStatus
