"""Agent: identity, mandate, code, limits; and what is observed of it."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, ConfigDict, Field, StringConstraints, model_validator

from schemas.base import ClosedKeys, Frozen, Name, Output, Text
from schemas.resource import API_VERSION, Condition, ManifestMetadata, Metadata
from schemas.watch import Watch, require_names_once

CODE_FILES_MAX = 200
CODE_BYTES_MAX = 1_048_576
Digest = Annotated[str, StringConstraints(pattern=r"^sha256:[0-9a-f]{64}$")]
FilePath = Annotated[
    str, StringConstraints(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*(/[A-Za-z0-9_][A-Za-z0-9_.-]*)*$", max_length=200)
]
Entrypoint = Annotated[
    str,
    StringConstraints(
        pattern=r"^[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*:[A-Za-z_][A-Za-z0-9_]*$", max_length=200
    ),
]
EffectName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]*(\.[a-z0-9_*]+)+$", max_length=100)]


_ONE_OF: dict[str, Any] = {  # what `_one_of` checks, as a schema
    "if": {"required": ["digest"], "properties": {"digest": {"type": "string"}}},
    "then": {"properties": {"files": {"type": "null"}}},
    "else": {"required": ["files"], "properties": {"files": {"type": "object", "minProperties": 1}}},
}


class Code(Frozen):
    """Exactly one of: `files` (inline, path → text), or `digest` (from `code.put`)."""

    model_config = ConfigDict(json_schema_extra=_ONE_OF)

    files: Annotated[dict[FilePath, Text], Field(max_length=CODE_FILES_MAX), ClosedKeys()] | None = None
    digest: Digest | None = None

    @model_validator(mode="after")
    def _one_of(self) -> "Code":
        if (self.files is None) == (self.digest is None):
            raise ValueError("give exactly one of files or digest")
        if self.files is not None and not self.files:
            raise ValueError("files must hold at least one file")
        return self


class Grant(Frozen):
    """One effect that the agent may ask for, by name, over one connection (or none)."""

    effect: EffectName
    connection: Name | None = None


class Mandate(Frozen):
    """What the agent is for, and what it may do without being told."""

    purpose: Text = Field(default="", max_length=2000)
    grants: list[Grant] = Field(default_factory=list, max_length=100)


class Limits(Frozen):
    """Bounds of one turn."""

    effects_max: int = Field(default=1000, ge=1, le=100_000)
    journal_bytes_max: int = Field(default=1_048_576, ge=1024, le=67_108_864)
    turn_s_max: float = Field(default=60, gt=0, le=86_400)


class Resources(Frozen):
    """What a host of this agent needs of Ray. Shared hosts take none."""

    num_cpus: float = Field(default=0, ge=0, le=0)


class AgentSpec(Frozen):
    """What is wanted of an agent."""

    runtime: Literal["python"] = "python"
    code: Code
    entrypoint: Entrypoint
    config: dict[str, Any] = Field(default_factory=dict)
    isolation: Literal["shared"] = "shared"
    resources: Resources = Field(default_factory=Resources)
    suspend_after_ms: int = Field(default=2000, ge=0, le=86_400_000)
    watches: Annotated[list[Watch], AfterValidator(require_names_once)] = Field(default_factory=list, max_length=100)
    capabilities: list[Name] = Field(default_factory=list, max_length=100)
    mandate: Mandate = Field(default_factory=Mandate)
    limits: Limits = Field(default_factory=Limits)
    on_hold: Literal["park", "raise", "detach"] = "park"


class AgentManifest(Frozen):
    """An agent as a writer declares it."""

    api_version: Literal["steward/v1"] = API_VERSION
    kind: Literal["Agent"]
    metadata: ManifestMetadata
    spec: AgentSpec
    status: dict[str, Any] | None = Field(default=None, description="Ignored in input.")


class AgentStatus(Output):
    """What is observed of an agent; conditions are `Ready, Active, Parked, Stopped`."""

    conditions: list[Condition]
    epoch: int = Field(description="How often the agent was acquired by a host.")
    host: str | None = Field(description="The host that holds it, if any.")
    turns: int = Field(description="Turns committed.")
    inbox: int = Field(description="Messages waiting.")


class Agent(Output):
    """An agent as it is answered."""

    api_version: Literal["steward/v1"] = API_VERSION
    kind: Literal["Agent"] = "Agent"
    metadata: Metadata
    spec: AgentSpec
    status: AgentStatus
