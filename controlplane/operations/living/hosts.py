"""`hosts.list`: the hosts that are there, as far as the caller may see them.

A host serves one namespace; who does not reach it sees neither the host nor its count of agents.
Unspecialised hosts are shown to who reaches all namespaces: to anybody else, one that is gone would
tell that another namespace began to work.
"""

from typing import Literal

from sqlmodel import Session, col, func, select

from controlplane.operations.living.envelopes import moment
from controlplane.store.store import Store
from controlplane.store.tables import AgentRow, HostRow
from schemas.calls import Empty
from schemas.ports import Handler
from schemas.principal import Call, Principal
from schemas.records import HostsFound, HostView


def handlers(store: Store) -> dict[str, Handler]:
    """The handler of `hosts.list`."""

    async def list_hosts(call: Call, given: Empty) -> HostsFound:
        rows, agents = await store.read(lambda session: _hosts(session, call.principal))
        return HostsFound(items=[_view(row, agents.get(row.host_id, 0), call.now) for row in rows])

    return {"hosts.list": list_hosts}


def _hosts(session: Session, principal: Principal) -> tuple[list[HostRow], dict[str, int]]:
    hosts = select(HostRow).where(col(HostRow.ended_at).is_(None)).order_by(col(HostRow.created_at))
    owned = select(AgentRow.owner, func.count(col(AgentRow.uid))).where(col(AgentRow.owner).is_not(None))
    if "*" not in principal.namespaces:
        hosts = hosts.where(col(HostRow.namespace).in_(principal.namespaces))
        owned = owned.where(col(AgentRow.namespace).in_(principal.namespaces))
    rows, counts = session.exec(hosts), session.exec(owned.group_by(col(AgentRow.owner)))
    return list(rows), {owner: count for owner, count in counts if owner is not None}


def _view(row: HostRow, agents: int, now: float) -> HostView:
    lost = row.lease_until is not None and row.lease_until < now
    return HostView(
        host_id=row.host_id,
        node=row.node,
        pid=row.pid,
        namespace=row.namespace,
        digest=row.digest,
        agent=row.kept_for,
        state="lost" if lost else _state(row),
        agents=agents,
        lease_until=None if row.lease_until is None else moment(row.lease_until),
        loop_lag_ms=row.loop_lag_ms,
    )


def _state(row: HostRow) -> Literal["warm", "serving", "draining"]:
    if row.draining_since is not None:
        return "draining"
    return "warm" if row.namespace is None else "serving"
