"""Every operation, once. Whatever a surface offers, it offers by walking this."""

from controlplane.resources import agents, changes, channels, fleets, secrets, system
from controlplane.resources.operation import Operation

OPERATIONS: dict[str, Operation] = {
    operation.name: operation
    for room in (changes, agents, fleets, channels, secrets, system)
    for operation in room.OPERATIONS
}
