"""Delayed messages of channels and inboxes: to look at, and to cancel."""

from controlplane.resources.operation import Operation
from schemas.calls import ListOutput
from schemas.delayed import CancelDelayedInput, CancelledDelayed, DelayedListInput, DelayedView


class DelayedList(ListOutput[DelayedView]):
    """A page of delayed messages; a page of large ones is shorter than its limit."""


OPERATIONS = (
    Operation(
        "channels.delayed",
        "List delayed messages",
        "What waits for its time to go to a channel or an agent's inbox, in the order in which it was taken in.",
        DelayedListInput,
        DelayedList,
        "GET",
        "/v1/delayed",
        "read",
        "viewer",
        "namespace",
        problems=("INVALID_CURSOR",),
        untrusted=("/items/*/envelope",),
        example={"namespace": "default", "kind": "Channel", "name": "reports"},
    ),
    Operation(
        "channels.cancel_delayed",
        "Cancel a delayed message",
        "It takes no place, and is told as cancelled; sent again under its request id it stays so. When its time came "
        "first, that is answered, and nothing is changed.",
        CancelDelayedInput,
        CancelledDelayed,
        "POST",
        "/v1/delayed/cancel",
        "destroy",
        "operator",
        "namespace",
        imperative=True,
        problems=("NOT_FOUND", "NOT_READY"),
        example={"namespace": "default", "kind": "Channel", "name": "reports", "message_id": "msg_1"},
    ),
)
