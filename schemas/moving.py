"""`agents.migrate` and `hosts.drain`: what is moved where, and how far that is."""

from typing import Annotated

from pydantic import Field

from schemas.base import Identifier, Output
from schemas.calls import Imperative, NamedAct

HostId = Annotated[Identifier, Field(description="As `hosts.list` shows it.")]


class MigrateInput(NamedAct):
    """One agent, and where it shall go; without `to_host`, to any other host that can take it."""

    to_host: HostId | None = None


class Migrated(Output):
    """What became of it. `moved: false` with `waits_for`: it goes on, and the same call says how far it is."""

    namespace: str
    name: str
    moved: bool
    from_host: str | None = Field(description="The host it was on; null when it was suspended.")
    to_host: str | None = Field(description="The host it is on, or goes to when something comes for it.")
    epoch: int
    waits_for: str | None = Field(description="Why it has not left its host yet.")


class DrainHostInput(Imperative):
    """One host."""

    host_id: HostId


class HostDrained(Output):
    """How far it is. `done: false`: it goes on, and the same call says how far it is."""

    host_id: str
    done: bool = Field(description="Whether the host has ended.")
    agents: int = Field(description="Agents that are still on it.")
    waits_for: list[str] = Field(description="What the first of them wait for.")
