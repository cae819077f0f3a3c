"""Capability: something that an agent offers to do, as others find it."""

from collections.abc import Iterable, Sequence
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from schemas.base import Frozen, Name, Text

CAPABILITIES_MAX = 100


class Capability(Frozen):
    """What it is called, what it is for, and JSON Schemas of what it takes and answers; null: anything."""

    name: Name
    description: Text = Field(default="", max_length=500)
    input_schema: dict[str, Any] | None = Field(default=None, description="A JSON Schema of the data it takes.")
    output_schema: dict[str, Any] | None = Field(default=None, description="A JSON Schema of its answer.")


def _whole(given: Sequence[Capability | str]) -> list[Capability]:
    """A name alone is a capability of which nothing more is said; no name is there twice."""
    found = [Capability(name=it) if isinstance(it, str) else it for it in given]
    _require_once(it.name for it in found)
    return found


def _require_once(names: Iterable[str]) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise ValueError(f"capability {name} is there twice")
        seen.add(name)


Capabilities = Annotated[
    list[Capability | Name],
    AfterValidator(_whole),
    Field(max_length=CAPABILITIES_MAX, description="What it offers to do; a name alone says no more of it."),
]
