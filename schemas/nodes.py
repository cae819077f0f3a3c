"""`nodes.list` and `nodes.drain`: the machines that hosts run on."""

from typing import Annotated

from pydantic import Field

from schemas.base import Output, Text
from schemas.calls import Imperative

BATCH_MAX = 200
NodeName = Annotated[Text, Field(min_length=1, max_length=255, description="As `nodes.list` shows it.")]


class NodeView(Output):
    """A node, with what Ray says of it; what Ray says is null while Ray is not there."""

    node: str
    alive: bool | None
    draining: bool = Field(description="Whether it takes no agents.")
    hosts: int
    agents: int
    ray_node_ids: list[str]
    resources: dict[str, float] | None


class NodesFound(Output):
    items: list[NodeView]


class DrainNodeInput(Imperative):
    """One node; with `undo` it takes agents again."""

    node: NodeName
    undo: bool = False
    batch: int | None = Field(
        default=None,
        ge=1,
        le=BATCH_MAX,
        description="How many agents leave at once; one that is missed ends the rest, which stay. null: all at once,"
        " and nothing stops it.",
    )
    reason: Annotated[Text, Field(max_length=1000, description="Why, for whoever reads the feedback.")] = ""


class NodeDrained(Output):
    """How far it is. `done: false`: it goes on, and the same call says how far it is."""

    node: str
    draining: bool
    done: bool
    hosts: int = Field(description="Hosts that have not ended yet.")
    agents: int = Field(description="Agents that are still on them.")
    change_id: str | None = Field(default=None, description="Its change; null when there was nothing to do.")
