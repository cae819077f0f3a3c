"""Discovery: who is there."""

from controlplane.resources.operation import Operation
from schemas.discovery import FindInput, Found

OPERATIONS = (
    Operation(
        "discovery.find",
        "Find agents by name, label, capability or meaning",
        "Who fits all that is given, the best first. `meaning` compares what is needed with what agents say of "
        "themselves: their purpose and their capabilities. Suspended agents are found like any other: a message wakes "
        "them.",
        FindInput,
        Found,
        "GET",
        "/v1/discovery/find",
        "read",
        "viewer",
        "namespace",
        agent_may=True,
        problems=("NO_EMBEDDING", "NOT_READY"),
        untrusted=("/items/*/purpose", "/items/*/capabilities"),
        example={"meaning": "who can judge a disk alarm?"},
    ),
)
