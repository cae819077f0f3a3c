"""Fleet: a number of agents made from one template, named `<fleet>-0 …`."""

from typing import Any, Literal

from pydantic import Field

from schemas.agent import AgentSpec
from schemas.base import Frozen, Labels, Output
from schemas.resource import API_VERSION, Condition, ManifestMetadata, Metadata

REPLICAS_MAX = 100_000
BATCH_MAX = 200


class Template(Frozen):
    """What each agent of the fleet is made from."""

    labels: Labels = Field(default_factory=dict)
    spec: AgentSpec


class FleetUpgrade(Frozen):
    """How a newer template reaches the agents that there are."""

    batch: int | None = Field(
        default=None,
        ge=1,
        le=BATCH_MAX,
        description="How many agents may be on their way at once; the first that it fails for stops what is left."
        " null: all at once.",
    )


class FleetSpec(Frozen):
    """What is wanted of a fleet."""

    replicas: int = Field(ge=0, le=REPLICAS_MAX)
    template: Template
    upgrade: FleetUpgrade = Field(default_factory=FleetUpgrade)


class FleetManifest(Frozen):
    """A fleet as a writer declares it."""

    api_version: Literal["steward/v1"] = API_VERSION
    kind: Literal["Fleet"]
    metadata: ManifestMetadata
    spec: FleetSpec
    status: dict[str, Any] | None = Field(default=None, description="Ignored in input.")


class FleetStatus(Output):
    """What is observed of a fleet; condition `Ready` when every agent is."""

    conditions: list[Condition]
    replicas: int = Field(description="Agents that exist.")
    ready_replicas: int = Field(description="Agents at the wanted generation whose Ready is true.")
    upgraded_replicas: int = Field(description="Agents that are made from the wanted template.")


class Fleet(Output):
    """A fleet as it is answered."""

    api_version: Literal["steward/v1"] = API_VERSION
    kind: Literal["Fleet"] = "Fleet"
    metadata: Metadata
    spec: FleetSpec
    status: FleetStatus
