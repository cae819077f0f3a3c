"""Moving: agents to other hosts, hosts out of the way."""

from controlplane.resources.operation import Operation
from schemas.moving import DrainHostInput, HostDrained, Migrated, MigrateInput

OPERATIONS = (
    Operation(
        "agents.migrate",
        "Move an agent, or several, to another host",
        "It leaves at the end of its turn or at the next durable await, and goes on elsewhere from its journal; "
        "senders notice a short gap. Of a suspended agent only the placement changes: nothing is woken. Waits up to "
        "10 s; an open effect is waited for longer, and said. Several are selected by labels, fleet, host or node "
        "(over REST by `/v1/operations/agents.migrate/call`), 1,000 at most; they go `batch` at a time, and one that "
        "is missed ends the rest. It is a change: `changes.wait` waits for its claims.",
        MigrateInput,
        Migrated,
        "POST",
        "/v1/agents/{namespace}/{name}/migrate",
        "change",
        "operator",
        "namespace",
        imperative=True,
        problems=("NOT_FOUND", "UNFIT_HOST", "NOT_READY", "NOT_SET_UP", "OUT_OF_RANGE"),
        example={"namespace": "default", "name": "echo"},
    ),
    Operation(
        "hosts.drain",
        "Empty a host and end it",
        "It takes nobody any more; its agents leave in batches, each where its turn rests, and then it ends. Another "
        "host is there first, if one can come. Waits up to 10 s, and goes on after that as a change.",
        DrainHostInput,
        HostDrained,
        "POST",
        "/v1/hosts/{host_id}/drain",
        "change",
        "operator",
        "record",
        imperative=True,
        problems=("NOT_FOUND", "NOT_READY"),
        example={"host_id": "h0123456789ab"},
    ),
)
