"""Secret: values that go in and never come out. Reads answer `{"set": true}` for each key."""

from typing import Annotated, Any, Literal

from pydantic import Field, SecretStr, StringConstraints

from schemas.base import ClosedKeys, Frozen, Output, Yes
from schemas.resource import API_VERSION, Condition, ManifestMetadata, Metadata

SecretKey = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,62}$", max_length=63)]
SecretValue = Annotated[SecretStr, Field(max_length=65_536)]


class Kept(Frozen):
    """Stands for a value that is set. Given in input, it keeps the value that is there."""

    set: Yes = True


class SecretSpecInput(Frozen):
    """Values by key; `{"set": true}` keeps the value that is stored under the key."""

    values: Annotated[dict[SecretKey, SecretValue | Kept], ClosedKeys()] = Field(min_length=1, max_length=64)


class SecretManifest(Frozen):
    """A secret as a writer declares it."""

    api_version: Literal["steward/v1"] = API_VERSION
    kind: Literal["Secret"]
    metadata: ManifestMetadata
    spec: SecretSpecInput
    status: dict[str, Any] | None = Field(default=None, description="Ignored in input.")


class SecretSpec(Output):
    """A secret's spec as it is answered."""

    values: Annotated[dict[SecretKey, Kept], ClosedKeys()]


class SecretStatus(Output):
    """What is observed of a secret; condition `Ready`."""

    conditions: list[Condition]


class Secret(Output):
    """A secret as it is answered."""

    api_version: Literal["steward/v1"] = API_VERSION
    kind: Literal["Secret"] = "Secret"
    metadata: Metadata
    spec: SecretSpec
    status: SecretStatus
