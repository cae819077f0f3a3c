"""Every operation, once. Whatever a surface offers, it offers by walking this."""

from controlplane.resources import (
    agents,
    budgets,
    changes,
    channels,
    connections,
    dead_letters,
    delayed,
    discovery,
    fleets,
    invitations,
    moving,
    nodes,
    questions,
    routes,
    secrets,
    settling,
    system,
    usage,
)
from controlplane.resources.operation import Operation

OPERATIONS: dict[str, Operation] = {
    operation.name: operation
    for room in (
        changes,
        agents,
        questions,
        moving,
        nodes,
        settling,
        fleets,
        channels,
        dead_letters,
        delayed,
        discovery,
        invitations,
        connections,
        secrets,
        budgets,
        routes,
        system,
        usage,
    )
    for operation in room.OPERATIONS
}
