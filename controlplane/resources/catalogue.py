"""Every operation, once. Whatever a surface offers, it offers by walking this."""

from controlplane.resources import agents, changes, channels, connections, fleets, secrets, settling, system
from controlplane.resources.operation import Operation

OPERATIONS: dict[str, Operation] = {
    operation.name: operation
    for room in (changes, agents, settling, fleets, channels, connections, secrets, system)
    for operation in room.OPERATIONS
}
