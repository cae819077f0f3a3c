"""Dead letters of channels and inboxes: to look at, and to put back."""

from controlplane.resources.operation import Operation
from schemas.calls import ListOutput
from schemas.dead_letters import DeadLetterListInput, DeadLetterView, RedriveInput, Redriven


class DeadLetterList(ListOutput[DeadLetterView]):
    """A page of dead letters, the oldest first; a page of large messages is shorter than its limit."""


OPERATIONS = (
    Operation(
        "channels.dead_letters",
        "List messages that were given up",
        "Of a channel, of an agent's inbox, or of all: what a turn failed with for good, and what found nobody, with "
        "the reason and the message itself; the oldest first.",
        DeadLetterListInput,
        DeadLetterList,
        "GET",
        "/v1/dead-letters",
        "read",
        "viewer",
        "namespace",
        problems=("INVALID_CURSOR",),
        untrusted=("/items/*/envelope", "/items/*/detail"),
        example={"namespace": "default", "name": "reports", "limit": 20},
    ),
    Operation(
        "channels.redrive",
        "Put dead letters back",
        "Each becomes a message again, in the inbox that it failed in or the channel that it did not find, with an id "
        "of its own and the old one as its causation: a turn of its own, whose effects are new ones. In their old "
        "order, and once: what was put back is no dead letter any more. One whose target is not there stays.",
        RedriveInput,
        Redriven,
        "POST",
        "/v1/dead-letters/redrive",
        "change",
        "operator",
        "namespace",
        imperative=True,
        problems=("NOT_READY",),
        example={"namespace": "default", "name": "reports"},
    ),
)
