"""`agents.migrate` and `hosts.drain`: what is moved where, and how far that is."""

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, model_validator

from schemas.base import Identifier, Labels, Name, Output
from schemas.calls import Imperative
from schemas.nodes import BATCH_MAX, NodeName

AGENTS_MAX = 1_000
SHOWN_MAX = 50
SELECTORS = ("name", "labels", "fleet", "from_host", "node")
HostId = Annotated[Identifier, Field(description="As `hosts.list` shows it.")]


def _as_schema(schema: dict[str, Any]) -> None:
    """What `_some` checks, without a choice at the root, which some models take in no tool."""
    needed: dict[str, Any] = {"required": [SELECTORS[0]], "properties": {SELECTORS[0]: {"type": "string"}}}
    for field in SELECTORS[1:]:
        kind = "object" if field == "labels" else "string"
        given = {"required": [field], "properties": {field: {"type": kind}}}
        needed = {"if": given, "else": needed}
    schema.update(needed)


class MigrateInput(Imperative):
    """One agent by its name, or all of a namespace that match each selector given, and where they shall go.

    Without `to_host`: to any other host that can take them.
    """

    model_config = ConfigDict(json_schema_extra=_as_schema)

    namespace: Name = "default"
    name: Name | None = None
    labels: Annotated[Labels, Field(min_length=1)] | None = Field(
        default=None, description="Those that have all of these."
    )
    fleet: Name | None = Field(default=None, description="Those of this fleet.")
    from_host: HostId | None = Field(default=None, description="Those that are on this host now.")
    node: NodeName | None = Field(default=None, description="Those that are on a host of this node now.")
    to_host: HostId | None = None
    batch: int = Field(
        default=20, ge=1, le=BATCH_MAX, description="Of several: how many at once. One that is missed ends the rest."
    )

    @model_validator(mode="after")
    def _some(self) -> "MigrateInput":
        if all(getattr(self, field) is None for field in SELECTORS):
            raise ValueError(f"give at least one of {', '.join(SELECTORS)}")
        return self

    @property
    def several(self) -> bool:
        """Whether it selects; else it is one agent, by its name alone."""
        return self.name is None or any(getattr(self, field) is not None for field in SELECTORS[1:])


class MovedAgent(Output):
    """What came of one agent of several."""

    name: str
    state: Literal["moved", "waiting", "missed", "not_begun", "superseded"] = Field(
        description="`not_begun`: others come first, or one of them was missed, and then it stays where it is."
        " `superseded`: it was asked to go elsewhere meanwhile, or was deleted."
    )
    from_host: str | None = Field(description="The host it was on; null when it was suspended.")
    to_host: str | None = Field(description="The host it is on, or goes to when something comes for it.")
    waits_for: str | None = Field(description="Why it has not left its host yet.")


class Selection(Output):
    """Several agents, and what came of them so far."""

    selected: int = Field(description="Agents that matched; those that are where they shall be have no step.")
    moved: int
    waiting: int
    missed: int
    not_begun: int
    superseded: int
    items: list[MovedAgent] = Field(description="Those that are missed or waiting first; 50 at most.")
    shown: int
    total: int


class Migrated(Output):
    """What became of it. `moved: false` with `waits_for`: it goes on, and the same call says how far it is."""

    namespace: str
    name: str | None = Field(description="Null when several were selected: `selection` says which.")
    moved: bool
    from_host: str | None = Field(description="The host it was on; null when it was suspended.")
    to_host: str | None = Field(description="The host it is on, or goes to when something comes for it.")
    epoch: int = Field(description="Of one agent; 0 for several.")
    waits_for: str | None = Field(description="Why it has not left its host yet.")
    change_id: str | None = Field(default=None, description="Its change; null when there was nothing to do.")
    selection: Selection | None = None


class DrainHostInput(Imperative):
    """One host."""

    host_id: HostId


class HostDrained(Output):
    """How far it is. `done: false`: it goes on, and the same call says how far it is."""

    host_id: str
    done: bool = Field(description="Whether the host has ended.")
    agents: int = Field(description="Agents that are still on it.")
    waits_for: list[str] = Field(description="What the first of them wait for.")
    change_id: str | None = Field(default=None, description="Its change; null when it had ended already.")
