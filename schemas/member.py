"""Member: an agent that runs elsewhere, and is here only as long as it says so."""

from typing import Annotated

from pydantic import Field

from schemas.base import Labels, Name, Output, Text, Time
from schemas.calls import Imperative, NamedAct
from schemas.capability import Capabilities, Capability

LEASE_S_MAX = 86_400
MEMBERS_MAX = 10_000
LeaseS = Annotated[
    float, Field(ge=1, le=LEASE_S_MAX, description="For so many seconds; then it is gone, unless renewed.")
]


class RegisterInput(Imperative):
    """What an agent elsewhere says of itself. Registered anew by the same principal, all of it is replaced."""

    namespace: Name = "default"
    name: Name
    labels: Labels = Field(default_factory=dict)
    purpose: Annotated[Text, Field(max_length=2000)] = ""
    capabilities: Capabilities = Field(default_factory=list)
    address: Annotated[Text, Field(max_length=500)] = Field(
        default="", description="Where it is reached, as a URL; nothing is sent there by itself."
    )
    lease_s: LeaseS = 60


class RenewInput(NamedAct):
    """Keep a member."""

    lease_s: LeaseS = 60


class RemoteMember(Output):
    """A member as it is known."""

    namespace: str
    name: str
    labels: dict[str, str]
    purpose: str
    capabilities: list[Capability]
    address: str
    registered_by: str
    since: Time
    expires_at: Time


class Unregistered(Output):
    """What is gone."""

    namespace: str
    name: str
