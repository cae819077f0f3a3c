"""`nodes.list` and `nodes.drain`: what Ray and the gate say of the machines, with the counts a caller may see.

That a node is to be empty, or to take agents again, is a change from the moment it is asked.
"""

from typing import Any

from sqlmodel import Session, col, func, select

from controlplane.operations.oneshots import Act, OneShots, Wish, preview
from controlplane.store.store import Store
from controlplane.store.tables import AgentRow, HostRow
from schemas.calls import Empty
from schemas.nodes import DrainNodeInput, NodeDrained, NodesFound, NodeView
from schemas.plan import Preview
from schemas.ports import GatePort, Handler
from schemas.principal import Call, Principal

Counts = dict[str, int]


def handlers(store: Store, gate: GatePort) -> dict[str, Handler]:
    """The handlers, by the names of their operations."""

    async def list_nodes(call: Call, given: Empty) -> NodesFound:
        told = await gate.control("nodes", "", {})
        hosts, agents = await store.read(lambda session: _counts(session, call.principal))
        known = {*told["closed"], *(it["node"] for it in told["ray"])}
        names = [told["here"], *sorted(known - {told["here"]})]
        return NodesFound(items=[_view(name, told, hosts, agents) for name in names])

    oneshots = OneShots(store)

    async def drain(call: Call, given: DrainNodeInput) -> NodeDrained | Preview:
        asked = {"principal": call.principal.name, "undo": given.undo, "reason": given.reason}
        told = await gate.control("drain_node", given.node, asked | {"dry_run": True})
        wish = _wish(given, told)
        if call.dry_run:
            _, agents = await store.read(lambda session: _counts(session, call.principal))
            leaving = agents.get(given.node, 0)
            would = "take agents again" if given.undo else f"be left by {leaving} agents, and take none"
            return preview(call, wish, [f"node {given.node} would {would}"])
        change_id = await oneshots.begin(call, wish)
        told = await gate.control("drain_node", given.node, asked)
        hosts, agents = await store.read(lambda session: _counts(session, call.principal))
        return NodeDrained(
            node=given.node,
            draining=told["draining"],
            done=told["done"],
            hosts=hosts.get(given.node, 0),
            agents=agents.get(given.node, 0),
            change_id=change_id,
        )

    return {"nodes.list": list_nodes, "nodes.drain": drain}


def _wish(given: DrainNodeInput, told: dict[str, Any]) -> Wish:
    """What is to be done, where it is not so yet."""
    there = not told["draining"] if given.undo else told["draining"] and told["done"]
    measure, before, after = ("open", True, False) if given.undo else ("drained", False, True)
    order = {"undo": given.undo, "reason": given.reason}
    act = Act("Node", "", given.node, measure, "drain_node", order, "/draining", before, after)
    return Wish("", {"node": given.node, "undo": given.undo}, [] if there else [act])


def _counts(session: Session, principal: Principal) -> tuple[Counts, Counts]:
    """Hosts and agents of each node, as far as the principal may see them."""
    hosts = select(HostRow.node, func.count(col(HostRow.host_id))).where(col(HostRow.ended_at).is_(None))
    agents = select(HostRow.node, func.count(col(AgentRow.uid))).where(col(AgentRow.owner) == col(HostRow.host_id))
    if "*" not in principal.namespaces:
        hosts = hosts.where(col(HostRow.namespace).in_(principal.namespaces))
        agents = agents.where(col(AgentRow.namespace).in_(principal.namespaces))
    found = (session.exec(it.group_by(col(HostRow.node))).all() for it in (hosts, agents))
    by_node = [dict(rows) for rows in found]
    return by_node[0], by_node[1]


def _view(name: str, told: dict[str, Any], hosts: Counts, agents: Counts) -> NodeView:
    seen = [it for it in told["ray"] if it["node"] == name]
    resources: dict[str, float] = {}
    for each in seen:
        for kind, amount in each["resources"].items():
            resources[kind] = resources.get(kind, 0.0) + amount
    return NodeView(
        node=name,
        alive=any(it["alive"] for it in seen) if seen else None,
        draining=name in told["closed"],
        hosts=hosts.get(name, 0),
        agents=agents.get(name, 0),
        ray_node_ids=[it["ray_node_id"] for it in seen],
        resources=resources if seen else None,
    )
