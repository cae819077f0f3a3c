"""The manifest of any kind, told apart by `kind`; and the resource of any kind, likewise."""

from typing import Annotated

from pydantic import Field

from schemas.agent import Agent, AgentManifest
from schemas.budget import Budget, BudgetManifest
from schemas.channel import Channel, ChannelManifest
from schemas.connection import Connection, ConnectionManifest
from schemas.fleet import Fleet, FleetManifest
from schemas.route import Route, RouteManifest
from schemas.secret import Secret, SecretManifest

Manifest = Annotated[
    AgentManifest
    | FleetManifest
    | ChannelManifest
    | ConnectionManifest
    | SecretManifest
    | BudgetManifest
    | RouteManifest,
    Field(discriminator="kind"),
]
Resource = Annotated[Agent | Fleet | Channel | Connection | Secret | Budget | Route, Field(discriminator="kind")]
