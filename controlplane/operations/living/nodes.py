"""`nodes.list` and `nodes.drain`: what Ray and the gate say of the machines, with the counts a caller may see.

That a node is to be empty, or to take agents again, is a change from the moment it is asked. In batches it has
three stages: the node is closed, its agents are moved, and what is left of it is emptied.
"""

from collections.abc import Sequence
from typing import Any

from sqlmodel import Session, col, func, select

from controlplane.operations.living import selecting
from controlplane.operations.living.moving import move_of
from controlplane.operations.living.selecting import Chosen
from controlplane.operations.oneshots import Act, OneShots, Wish, preview
from controlplane.resources.problems import refuse
from controlplane.store.store import Store
from controlplane.store.tables import AgentRow, HostRow
from schemas.calls import Empty
from schemas.moving import AGENTS_MAX
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
        asked = {"principal": call.principal.name} | _order(given)
        told = await gate.control("drain_node", given.node, asked | {"dry_run": True})
        leaving = await store.read(lambda session: _leaving(session, given))
        wish = _wish(given, told, leaving)
        if call.dry_run:
            _, agents = await store.read(lambda session: _counts(session, call.principal))
            return preview(call, wish, [_would(given, agents.get(given.node, 0))])
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


def _order(given: DrainNodeInput) -> dict[str, Any]:
    """What the gate is told first: in batches, the agents stay until each is moved."""
    return {"undo": given.undo, "reason": given.reason, "empty": given.batch is None}


def _leaving(session: Session, given: DrainNodeInput) -> list[Chosen]:
    """Whom its change moves; raises OUT_OF_RANGE."""
    if given.undo or given.batch is None:
        return []
    found = selecting.at_node(session, given.node)
    if len(found) > AGENTS_MAX:
        detail = (
            f"more than {AGENTS_MAX} agents are on {given.node}; drain it without batch, or move some of them first"
        )
        raise refuse("OUT_OF_RANGE", detail, field="/batch", agents_max=AGENTS_MAX, node=given.node)
    return found


def _wish(given: DrainNodeInput, told: dict[str, Any], leaving: Sequence[Chosen]) -> Wish:
    """What is to be done, where it is not so yet."""
    asked: dict[str, Any] = {"node": given.node, "undo": given.undo}
    if not told["draining"] if given.undo else told["draining"] and told["done"]:
        return Wish("", asked, [])
    if given.undo:
        return Wish("", asked, [_act(given, "open", "/draining", before=True, after=False)])
    if given.batch is None:
        return Wish("", asked, [_act(given, "drained", "/draining", before=False, after=True)])
    acts = [] if told["draining"] else [_act(given, "closed", "/draining", before=False, after=True)]
    acts += [move_of(it, None, stage=1) for it in leaving]
    acts += [_act(given, "drained", "/hosts", before=told["hosts"], after=0, stage=2)]
    return Wish("", asked | {"batch": given.batch}, acts, batch=given.batch)


def _act(given: DrainNodeInput, measure: str, path: str, *, before: Any, after: Any, stage: int = 0) -> Act:
    order = _order(given) | {"empty": measure == "drained"}
    return Act("Node", "", given.node, measure, "drain_node", order, path, before, after, stage=stage)


def _would(given: DrainNodeInput, leaving: int) -> str:
    if given.undo:
        return f"node {given.node} would take agents again"
    at_once = f", {given.batch} at once" if given.batch is not None else ""
    return f"node {given.node} would be left by {leaving} agents{at_once}, and take none"


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
