"""Nodes: the machines that hosts run on."""

from controlplane.resources.operation import Operation
from schemas.calls import Empty
from schemas.nodes import DrainNodeInput, NodeDrained, NodesFound

OPERATIONS = (
    Operation(
        "nodes.list",
        "List nodes",
        "The machines that hosts run on: alive and with which resources, as Ray says, and how many hosts and agents.",
        Empty,
        NodesFound,
        "GET",
        "/v1/nodes",
        "read",
        "viewer",
        "installation",
        problems=("NOT_READY",),
    ),
    Operation(
        "nodes.drain",
        "Empty a node",
        "All its hosts are drained and no other comes, over restarts too, until it is undone. Where it is the only "
        "node its agents wait for that, with their messages. With `batch` its agents, 1,000 at most, are moved so many "
        "at a time, each a claim; one that is missed ends the rest, which stay on the node, closed to others. "
        "Waits up to 10 s and goes on after that, as a change.",
        DrainNodeInput,
        NodeDrained,
        "POST",
        "/v1/nodes/{node}/drain",
        "change",
        "admin",
        "installation",
        imperative=True,
        problems=("NOT_FOUND", "NOT_READY", "OUT_OF_RANGE"),
        example={"node": "local", "undo": True},
    ),
)
