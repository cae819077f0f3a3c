"""Channels of another namespace, as an invitation opens them to who acts from its own.

What is not opened is not there, in the same words as what is not. That an invitation stands is read here to answer
well; whatever is written by it says so once more, in the unit itself.
"""

from typing import NamedTuple

from sqlmodel import Session, col, or_, select

from controlplane.operations.living.lookup import FoundChannel
from controlplane.resources.problems import refuse
from controlplane.store.invitations import pattern
from controlplane.store.store import Store
from controlplane.store.tables import ChannelRow, InvitationRow, ResourceRow
from schemas.invitation import Opens
from schemas.principal import Principal
from schemas.problem import Next, Refusal


class Way(NamedTuple):
    """Who wants to do what, with which channel of another namespace; an operator is no agent."""

    namespace: str
    agent: str
    effect: Opens
    channel_namespace: str
    name: str


class Opened(NamedTuple):
    """A channel that is open, and by what."""

    channel: FoundChannel
    invitation: str


def elsewhere(namespace: str, channel_namespace: str | None) -> str | None:
    """The other namespace, where one is meant."""
    return None if channel_namespace == namespace else channel_namespace


def acts(principal: Principal) -> str:
    """The agent that acts; empty for an operator, who goes by what is opened to all of its namespace."""
    return principal.agent or "" if principal.role == "agent" else ""


async def opened(store: Store, way: Way, now: float) -> Opened:
    """The channel and the invitation, of those that open it the one that lasts longest; or the refusal."""
    found = await store.read(lambda session: opening(session, way, now))
    if found is None:
        raise not_open(way)
    return found


def opening(session: Session, way: Way, now: float) -> Opened | None:
    """The same, of a session; None where nothing is opened."""
    query = (
        select(col(ChannelRow.uid), col(ChannelRow.next_position), col(ResourceRow.spec), InvitationRow.invitation_id)
        .join(ResourceRow, col(ResourceRow.uid) == col(ChannelRow.uid))
        .join(InvitationRow, col(InvitationRow.uid) == col(ResourceRow.uid))
        .where(
            col(InvitationRow.to_namespace) == way.namespace,
            or_(col(InvitationRow.to_agent) == "", col(InvitationRow.to_agent) == way.agent),
            col(InvitationRow.namespace) == way.channel_namespace,
            col(InvitationRow.name) == way.name,
            col(InvitationRow.kind) == "Channel",
            col(InvitationRow.effects).like(pattern(way.effect)),
            col(InvitationRow.expires_at) > now,
            col(InvitationRow.revoked_at).is_(None),
            col(ResourceRow.deleted_at).is_(None),
        )
        .order_by(col(InvitationRow.expires_at).desc(), col(InvitationRow.invitation_id))
    )
    row = session.exec(query).first()
    return None if row is None else Opened(FoundChannel(row[0], row[1], row[2]), row[3])


def not_open(way: Way) -> Refusal:
    """There is no such channel, or none that is opened."""
    step = Next(
        operation="invitations.list", arguments={"namespace": way.namespace}, why="shows what is opened to its agents"
    )
    address = f"{way.channel_namespace}/{way.name}"
    detail = f"there is no channel {address} that is open to {way.namespace}/{way.agent or '*'}"
    about = {"kind": "Channel", "namespace": way.channel_namespace, "name": way.name}
    return refuse("NOT_FOUND", detail, field="/name", next=[step], **about)
