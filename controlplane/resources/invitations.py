"""Invitations: expiring, narrowed ways from one namespace into another."""

from controlplane.resources.operation import Operation
from schemas.calls import ListOutput
from schemas.invitation import InvitationCreateInput, InvitationInput, InvitationListInput, InvitationView


class InvitationList(ListOutput[InvitationView]):
    """A page of invitations."""


OPERATIONS = (
    Operation(
        "invitations.create",
        "Invite agents of another namespace",
        "Opens one agent or channel to agents of another namespace, for some effects, until it expires or is revoked. "
        "It is looked at when each message is sent, and ends with what it opens: a new agent of the name is not meant. "
        "Who joined a channel by it is a member for as long as it stands.",
        InvitationCreateInput,
        InvitationView,
        "POST",
        "/v1/invitations",
        "change",
        "operator",
        "namespace",
        repeats_safely=False,
        imperative=True,
        problems=("NOT_FOUND", "INVALID_VALUE", "NOT_READY"),
        example={"namespace": "default", "name": "echo", "to_namespace": "guests", "effects": ["ask"]},
    ),
    Operation(
        "invitations.list",
        "List invitations",
        "Those given by the namespaces that you reach, and those given to them.",
        InvitationListInput,
        InvitationList,
        "GET",
        "/v1/invitations",
        "read",
        "viewer",
        "namespace",
        agent_may=True,
        problems=("INVALID_CURSOR",),
        example={"namespace": "default"},
    ),
    Operation(
        "invitations.revoke",
        "Revoke an invitation",
        "Nothing is sent or delivered by it from now on; what was sent stays sent, and who joined by it is a member "
        "no more.",
        InvitationInput,
        InvitationView,
        "POST",
        "/v1/invitations/{invitation_id}/revoke",
        "destroy",
        "operator",
        "record",
        imperative=True,
        problems=("NOT_FOUND", "NOT_READY"),
        example={"invitation_id": "inv_1"},
    ),
)
