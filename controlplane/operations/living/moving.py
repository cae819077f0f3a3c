"""`agents.migrate` and `hosts.drain`: the gate moves, and says how far it is; nothing here decides.

A host of a namespace that the caller does not reach is answered exactly like one that is not there,
and so is an unspecialised one for whoever does not reach all.
"""

from typing import Any

from sqlmodel import Session, col, select

from controlplane.operations.living.lookup import find_agent
from controlplane.resources.problems import refuse
from controlplane.store.store import Store
from controlplane.store.tables import HostRow
from schemas.moving import DrainHostInput, HostDrained, Migrated, MigrateInput
from schemas.plan import Preview
from schemas.ports import GatePort, Handler
from schemas.principal import Call, Principal
from schemas.problem import Next, Refusal


def handlers(store: Store, gate: GatePort) -> dict[str, Handler]:
    """The handlers, by the names of their operations."""

    async def migrate(call: Call, given: MigrateInput) -> Migrated | Preview:
        found = await find_agent(store, given.namespace, given.name)
        warm = "*" in call.principal.namespaces
        told = await gate.control("migrate", found.uid, _asked(call) | {"to_host": given.to_host, "warm": warm})
        told.pop("ok")
        if call.dry_run:
            where = told["to_host"] or "any other host that can take it"
            would = f"{given.namespace}/{given.name} would go to {where}"
            return Preview(operation=call.operation, would=[would], undo="compensate")
        return Migrated(namespace=given.namespace, name=given.name, **told)

    async def drain(call: Call, given: DrainHostInput) -> HostDrained | Preview:
        ended = await store.read(lambda session: _ended(session, given.host_id, call.principal))
        if ended is None:
            raise _absent(given.host_id)
        told = _DONE if ended else await gate.control("drain", given.host_id, _asked(call))
        if call.dry_run:
            would = f"host {given.host_id} would be left by its {told['agents']} agents, and end"
            return Preview(operation=call.operation, would=[would], undo="none")
        progress = {name: told[name] for name in _DONE}
        return HostDrained(host_id=given.host_id, **progress)

    return {"agents.migrate": migrate, "hosts.drain": drain}


_DONE: dict[str, Any] = {"done": True, "agents": 0, "waits_for": []}


def _asked(call: Call) -> dict[str, Any]:
    return {"principal": call.principal.name, "dry_run": call.dry_run}


def _ended(session: Session, host_id: str, principal: Principal) -> bool | None:
    """Whether the host has ended; None when there is none that the principal may see."""
    query = select(HostRow).where(HostRow.host_id == host_id)
    if "*" not in principal.namespaces:
        query = query.where(col(HostRow.namespace).in_(principal.namespaces))
    row = session.exec(query).first()
    return None if row is None else row.ended_at is not None


def _absent(host_id: str) -> Refusal:
    step = Next(operation="hosts.list", why="shows the hosts there are")
    return refuse(
        "NOT_FOUND", f"there is no host {host_id}", field="/host_id", next=[step], kind="Host", host_id=host_id
    )
