"""Invitation: what agents of another namespace may do with one agent or channel, for a while."""

from typing import Annotated, Literal

from pydantic import Field

from schemas.base import Frozen, Identifier, Name, Output, Time
from schemas.calls import Imperative, Limit, Page

LASTS_S_MAX = 31_536_000
Opens = Literal["send", "ask", "read", "publish"]


class InvitationCreateInput(Imperative):
    """Open one agent or channel of a namespace to agents of another."""

    namespace: Name = "default"
    name: Name = Field(description="The agent or channel that is opened.")
    kind: Literal["Agent", "Channel"] = "Agent"
    to_namespace: Name = Field(description="Whose agents are invited.")
    to_agent: Name | None = Field(default=None, description="Only this one of them.")
    effects: Annotated[list[Opens], Field(min_length=1, max_length=4)] | None = Field(
        default=None,
        description="Of an agent `send` and `ask`, of a channel `read` and `publish`; null: all of its kind.",
    )
    expires_in_s: int = Field(default=86_400, ge=60, le=LASTS_S_MAX)


class InvitationInput(Imperative):
    invitation_id: Identifier


class InvitationListInput(Frozen):
    """A page of invitations, by their ids: those given by a namespace, and those given to it."""

    namespace: Name | None = None
    limit: Limit = 100
    page: Page | None = None


class InvitationView(Output):
    """An invitation; it opens its target while it is neither expired nor revoked, and the target is there."""

    invitation_id: str
    kind: Literal["Agent", "Channel"]
    namespace: str
    name: str
    to_namespace: str
    to_agent: str | None
    effects: list[Opens]
    created_by: str
    created_at: Time
    expires_at: Time
    revoked_at: Time | None = None
