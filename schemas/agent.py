"""Agent: identity, mandate, code, limits; and what is observed of it."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, ConfigDict, Field, StringConstraints, model_validator

from schemas.base import ClosedKeys, Frozen, Name, Output, Text
from schemas.capability import Capabilities
from schemas.isolation import OF_ITS_OWN, Environment, Isolation, Resources, require_its_own
from schemas.llm import EffectName, Llm
from schemas.resource import API_VERSION, Condition, ManifestMetadata, Metadata
from schemas.watch import Watch, require_names_once
from schemas.workspace import Workspace

CODE_FILES_MAX = 200
CODE_BYTES_MAX = 1_048_576
LLM_TURN_S_MAX = 900.0
Digest = Annotated[str, StringConstraints(pattern=r"^sha256:[0-9a-f]{64}$")]
FilePath = Annotated[
    str, StringConstraints(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*(/[A-Za-z0-9_][A-Za-z0-9_.-]*)*$", max_length=200)
]
ENTRYPOINT_PATTERN = r"^[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*:[A-Za-z_][A-Za-z0-9_]*$"
Entrypoint = Annotated[str, StringConstraints(pattern=ENTRYPOINT_PATTERN, max_length=200)]
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
    journal_bytes_max: int = Field(
        default=1_048_576,
        ge=1024,
        le=67_108_864,
        description="Of what it asks and is answered; more than 25165824 (24 MiB) counts as so many.",
    )
    turn_s_max: float = Field(default=60, gt=0, le=86_400)


class Upgrade(Frozen):
    """What becomes of a parked turn when the agent gets newer code."""

    parked: Literal["pin_until", "prove", "fail"] = Field(
        default="pin_until",
        description="It stays on its code until it ends; goes on under the newer code, if its journal replays there to"
        " the same place, and stays if not; or fails.",
    )
    pinned_s_max: float | None = Field(
        default=None,
        gt=0,
        le=31_536_000,
        description="How long it may stay, before it fails; null: as long as it takes.",
    )


_BY_RUNTIME: dict[str, Any] = {  # what `_by_runtime` checks, as a schema
    "if": {"required": ["runtime"], "properties": {"runtime": {"const": "llm"}}},
    "then": {
        "required": ["llm"],
        "properties": {
            "llm": {"type": "object"},
            "config": {"maxProperties": 0},
            "workspace": {"type": "null"},
            "code": {"properties": {"files": {"type": "null"}}},
        },
    },
    "else": {
        "required": ["code", "entrypoint"],
        "properties": {"llm": {"type": "null"}, "code": {"type": "object"}, "entrypoint": {"type": "string"}},
    },
}
_OWN_CODE = {"digest": "sha256:" + 64 * "0"}  # stands for Steward's own package until the spec is admitted


def _as_schema(schema: dict[str, Any]) -> None:
    schema["required"] = [it for it in schema.get("required", []) if it not in ("code", "entrypoint")]
    schema.update(_BY_RUNTIME | OF_ITS_OWN)


class AgentSpec(Frozen):
    """What is wanted of an agent: code and its entrypoint, or, with runtime `llm`, a model.

    Of runtime `llm`, code and entrypoint are Steward's own, and ignored in input; a turn may take a quarter of an
    hour unless `limits.turn_s_max` says otherwise.
    """

    model_config = ConfigDict(json_schema_extra=_as_schema)

    runtime: Literal["python", "llm"] = "python"
    llm: Llm | None = None
    code: Code
    entrypoint: Entrypoint
    config: dict[str, Any] = Field(default_factory=dict)
    isolation: Isolation = Field(
        default="shared",
        description="`dedicated`: a process of its own, which ends when the agent is suspended. `confined`: that too,"
        " with a uid of its own, no network and no files but its own; refused where the system can not do it.",
    )
    resources: Resources = Field(
        default_factory=Resources, description="Of a dedicated or confined agent; shared hosts take none."
    )
    environment: Environment = Field(
        default_factory=dict, description="Variables that the process of a dedicated or confined agent finds set."
    )
    workspace: Workspace | None = Field(default=None, description="If it has a folder: `turn.workspace`.")
    suspend_after_ms: int = Field(default=2000, ge=0, le=86_400_000)
    watches: Annotated[list[Watch], AfterValidator(require_names_once)] = Field(default_factory=list, max_length=100)
    priority: Literal["low", "normal", "high"] = Field(
        default="normal",
        description="Of agents of its namespace that wait for a place to run in, 8 high and 4 normal ones go before"
        " each low one; nobody is interrupted.",
    )
    capabilities: Capabilities = Field(default_factory=list)
    mandate: Mandate = Field(default_factory=Mandate)
    limits: Limits = Field(default_factory=Limits)
    on_hold: Literal["park", "raise", "detach"] = Field(
        default="park",
        description="Where an effect would be held for an operator: its turn waits, or hears `HELD` or `IN_DOUBT` at"
        " once. `detach` is refused.",
    )
    upgrade: Upgrade = Field(default_factory=Upgrade)

    @model_validator(mode="after")
    def _its_own(self) -> "AgentSpec":
        require_its_own(self.isolation, self.resources, self.environment)
        return self

    @model_validator(mode="before")
    @classmethod
    def _of_llm(cls, given: Any) -> Any:
        """What an agent that is a model need not say."""
        if not isinstance(given, dict) or given.get("runtime") != "llm":
            return given
        limits = given.get("limits", {})
        limits = {"turn_s_max": LLM_TURN_S_MAX, **limits} if isinstance(limits, dict) else limits
        return {"code": _OWN_CODE, "entrypoint": "steward_llm:LlmAgent", **given, "limits": limits}

    @model_validator(mode="after")
    def _by_runtime(self) -> "AgentSpec":
        if self.runtime == "python" and self.llm is not None:
            raise ValueError("only an agent of runtime llm has a model")
        if self.runtime == "llm" and (
            self.llm is None or self.config or self.code.files is not None or self.workspace is not None
        ):
            raise ValueError("an agent of runtime llm has a model, no config, no workspace and no code of its own")
        return self


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
    placement: str | None = Field(
        default=None, description="The host that it shall go to, as long as that one is there."
    )
    turns: int = Field(description="Turns committed.")
    inbox: int = Field(description="Messages waiting.")


class Agent(Output):
    """An agent as it is answered."""

    api_version: Literal["steward/v1"] = API_VERSION
    kind: Literal["Agent"] = "Agent"
    metadata: Metadata
    spec: AgentSpec
    status: AgentStatus
