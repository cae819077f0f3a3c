"""Where an agent's code runs: in a process that agents share, or in one of its own with what Ray keeps for it.

A confined one has a uid of its own and no network: the operating system denies it what the gate would.
"""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, GetJsonSchemaHandler, StringConstraints
from pydantic_core import CoreSchema

from schemas import keeping
from schemas.base import ClosedKeys, Frozen, Text

OURS = ("STEWARD_", "RAY_", "PYTHON")  # variables by which a host is run
ResourceName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.:-]{0,62}$", max_length=63)]
LabelKey = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_./-]*$", max_length=164)]
LabelValue = Annotated[
    str, StringConstraints(pattern=r"^[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?$", max_length=63)
]
VARIABLE = r"^[A-Za-z_][A-Za-z0-9_]{0,62}$"
VariableName = Annotated[str, StringConstraints(pattern=VARIABLE, max_length=63)]
_NAMES = {"pattern": VARIABLE, "not": {"pattern": f"^({'|'.join(OURS)})"}}
Amount = Annotated[float, Field(gt=0, le=2**50)]


def _not_ours(given: dict[str, str]) -> dict[str, str]:
    if any(name.startswith(OURS) for name in given):
        raise ValueError(f"names that begin with {', '.join(OURS)} are not free")
    return given


Environment = Annotated[
    dict[VariableName, Text],
    AfterValidator(_not_ours),
    Field(max_length=100, json_schema_extra={"propertyNames": _NAMES}),
    ClosedKeys(),
]


class Resources(Frozen):
    """What Ray keeps for the host of a dedicated or confined agent for as long as it runs. Shared hosts take none."""

    num_cpus: float = Field(default=0, ge=0, le=4096)
    num_gpus: float = Field(default=0, ge=0, le=4096)
    memory_bytes: int = Field(default=0, ge=0, le=2**50)
    custom: Annotated[dict[ResourceName, Amount], Field(max_length=20), ClosedKeys()] = Field(default_factory=dict)
    labels: Annotated[
        dict[LabelKey, LabelValue],
        Field(max_length=20, description="Labels that Ray's node must have, each with this value."),
        ClosedKeys(),
    ] = Field(default_factory=dict)

    @classmethod
    def __get_pydantic_json_schema__(cls, core: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """With what is refused of new ones; a spec that is stored may have it, and is shown as it is.

        The same both ways: what differs between them has two names in a document, and in clients made from it.
        """
        schema = handler(core)
        keeping.narrow(handler.resolve_ref_schema(schema))
        return schema

    def __bool__(self) -> bool:
        return bool(self.num_cpus or self.num_gpus or self.memory_bytes or self.custom or self.labels)


Isolation = Literal["shared", "dedicated", "confined"]
_APART = {"required": ["isolation"], "properties": {"isolation": {"enum": ["dedicated", "confined"]}}}
_NOTHING = {
    "num_cpus": {"const": 0},
    "num_gpus": {"const": 0},
    "memory_bytes": {"const": 0},
    "custom": {"maxProperties": 0},
    "labels": {"maxProperties": 0},
}
OF_ITS_OWN: dict[str, Any] = {  # what `require_its_own` checks, as a schema
    "dependentSchemas": {
        "environment": {"anyOf": [_APART, {"properties": {"environment": {"maxProperties": 0}}}]},
        "resources": {"anyOf": [_APART, {"properties": {"resources": {"properties": _NOTHING}}}]},
    },
}


def require_its_own(isolation: str, resources: Resources, environment: dict[str, str]) -> None:
    """Raises ValueError where an agent that shares its host wants something of it."""
    if isolation == "shared" and (resources or environment):
        raise ValueError("resources and environment are those of a process of its own: isolation dedicated or confined")
