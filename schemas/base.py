"""The ground of the vocabulary: frozen models, names, ids, digests, time.

Every value that crosses a boundary is a frozen pydantic model that forbids unknown fields.
This package holds data and the pure functions that identify data; it performs no I/O, reads no
clock, and imports nothing of ours from elsewhere.
"""

import hashlib
import re
import secrets
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

import orjson
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    PlainSerializer,
    StringConstraints,
    WithJsonSchema,
)
from pydantic_core import CoreSchema

NAME_PATTERN = r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"
LABEL_KEY_PATTERN = r"^[A-Za-z0-9]([A-Za-z0-9._/-]{0,61}[A-Za-z0-9])?$"
LABEL_VALUE_PATTERN = r"^([A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?)?$"
LABELS_MAX = 64
PLANE_NAME = "steward"  # the principal that the plane itself is
INT64_MAX = 2**63 - 1
JSON_INT_MAX = 2**53 - 1  # the largest whole number that every reader of JSON reads alike
TEXT_PATTERN = r"^[^\x00]*$"


class Frozen(BaseModel):
    """A value: immutable, closed to unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="null")


class Output(Frozen):
    """What the plane answers: every field is always there, and the schema says so."""

    model_config = ConfigDict(json_schema_serialization_defaults_required=True)


def _printable(text: str) -> str:
    if "\x00" in text or any(0xD800 <= ord(c) <= 0xDFFF for c in text):
        raise ValueError("must be text without NUL or lone surrogates")
    return text


def _boolean(value: Any) -> Any:
    if not isinstance(value, bool):
        raise ValueError("must be true or false")
    return value


class ClosedKeys:
    """Says in the schema of a dict that no key is of another form: pydantic's `patternProperties` leave others open."""

    def __get_pydantic_json_schema__(self, core: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        schema = handler(core)
        for pattern, value in schema.pop("patternProperties", {}).items():
            schema["propertyNames"] = {**schema.get("propertyNames", {}), "pattern": pattern}
            schema["additionalProperties"] = value
        return schema


def _utc(value: datetime) -> datetime:
    if value.tzinfo is None:
        raise ValueError("a time needs its zone, as in 2026-01-31T10:00:00Z")
    return value.astimezone(UTC)


def rfc3339(value: datetime) -> str:
    """RFC 3339 in UTC with a Z, microseconds only where there are any."""
    return value.astimezone(UTC).isoformat().replace("+00:00", "Z")


Name = Annotated[str, StringConstraints(pattern=NAME_PATTERN, max_length=63)]
Text = Annotated[str, AfterValidator(_printable), Field(json_schema_extra={"pattern": TEXT_PATTERN})]
Identifier = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.:-]{0,199}$", max_length=200)]
Time = Annotated[
    datetime,
    AfterValidator(_utc),
    PlainSerializer(rfc3339, return_type=str, when_used="json"),
    WithJsonSchema({"type": "string", "format": "date-time"}),
]
LabelKey = Annotated[str, StringConstraints(pattern=LABEL_KEY_PATTERN, max_length=63)]
LabelValue = Annotated[str, StringConstraints(pattern=LABEL_VALUE_PATTERN, max_length=63)]
Labels = Annotated[dict[LabelKey, LabelValue], Field(max_length=LABELS_MAX), ClosedKeys()]
Yes = Annotated[Literal[True], BeforeValidator(_boolean)]  # 1 is not true
No = Annotated[Literal[False], BeforeValidator(_boolean)]
Namespace = Annotated[Name, Field(description="The namespace; exists by its first permitted use.")]


_TIMED = re.compile(r"[a-z]+_([0-9a-f]{8})[0-9a-f]{20}(?:\.|$)").match


def canonical(value: Any) -> bytes:
    """The one byte form of a JSON value: sorted keys, no blanks (RFC 8785 in spirit, for our own use)."""
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)


def digest(value: Any) -> str:
    """`sha256:<hex>` of the canonical form of a JSON value."""
    return "sha256:" + hashlib.sha256(canonical(value)).hexdigest()


def short_id(prefix: str, *parts: Any, near: str | float = "") -> str:
    """An id that the same parts always make again: `<prefix>_<26 hex>`.

    Near a moment, or an id that begins with one, it begins with that: `<prefix>_<8 hex><20 hex>`. So what comes to be
    at one time lies together in indexes, and a commit writes few of their pages.
    """
    made = hashlib.sha256(canonical(parts)).hexdigest()
    if not isinstance(near, str):
        return f"{prefix}_{_second(near)}{made[:20]}"
    found = _TIMED(near)
    return f"{prefix}_{made[:26]}" if found is None else f"{prefix}_{found[1]}{made[:20]}"


def fresh_id(prefix: str, at: float) -> str:
    """An id that nothing else has, and that begins with the moment."""
    return f"{prefix}_{_second(at)}{secrets.token_hex(10)}"


def turn_of(agent: str, message_id: str) -> str:
    """The id of the turn of an agent, by its uid, that takes a message: it has one alone, however often that comes."""
    return short_id("turn", agent, message_id, near=message_id)


def _second(at: float) -> str:
    return f"{int(at) & 0xFFFFFFFF:08x}"
