"""Resources: what is declared, with what is observed beside it."""

from typing import Any, Literal

from pydantic import Field

from schemas.base import JSON_INT_MAX, Frozen, Labels, Name, Output, Text, Time

Kind = Literal["Agent", "Fleet", "Channel", "Connection", "Secret", "Budget", "Route"]
API_VERSION: Literal["steward/v1"] = "steward/v1"


class Target(Frozen):
    """What a step or a claim is about: a resource, or a host or node, which nobody declares."""

    kind: Kind | Literal["Host", "Node"]
    namespace: str = Field(description="Of a host, whom it serves; empty where it serves nobody yet, and of a node.")
    name: str


class Ref(Target):
    """The name of a resource."""

    kind: Kind
    namespace: Name
    name: Name


class ManifestMetadata(Frozen):
    """Metadata that a writer gives; what only the plane sets is accepted back and checked, never obeyed."""

    namespace: Name = "default"
    name: Name
    labels: Labels = Field(default_factory=dict)
    revision: int | None = Field(default=None, ge=0, le=JSON_INT_MAX, description="Ignored in input.")
    generation: int | None = Field(default=None, ge=0, le=JSON_INT_MAX, description="Ignored in input.")
    uid: Text | None = Field(default=None, description="Ignored in input.")
    created_at: Time | None = Field(default=None, description="Ignored in input.")
    owner: Ref | None = Field(default=None, description="Ignored in input.")


class Metadata(Output):
    """Metadata as the plane answers it."""

    namespace: Name
    name: Name
    labels: Labels = Field(default_factory=dict)
    revision: int
    generation: int
    uid: str
    created_at: Time
    owner: Ref | None = None


class Condition(Output):
    """One observed condition, derived from records at reading time."""

    type: str
    status: Literal["true", "false", "unknown"]
    reason: str
    message: str = ""
    observed_generation: int = 0
    since: Time | None = None


class Deleted(Frozen):
    """A tombstone, seen only by plans."""

    ref: Ref
    generation: int


JsonObject = dict[str, Any]
