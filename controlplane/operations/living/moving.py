"""`agents.migrate` and `hosts.drain`: each is a change from the moment it is asked, and the gate moves.

One agent is moved in the call, which waits a while for it; several go by the change that they are, a batch
at a time. A host of a namespace that the caller does not reach is answered exactly like one that is not
there, and so is an unspecialised one for whoever does not reach all.
"""

from typing import Any

from sqlmodel import Session, col, select

from controlplane.operations.changes import wait_for_change
from controlplane.operations.living import selecting
from controlplane.operations.living.lookup import find_agent
from controlplane.operations.living.selecting import Chosen
from controlplane.operations.oneshots import Act, OneShots, Wish, preview
from controlplane.resources.problems import refuse
from controlplane.store.store import Store
from controlplane.store.tables import HostRow
from schemas.moving import AGENTS_MAX, DrainHostInput, HostDrained, Migrated, MigrateInput
from schemas.plan import Preview
from schemas.ports import Doorbell, GatePort, Handler
from schemas.principal import Call, Principal
from schemas.problem import Next, Refusal

WAIT_S = 10.0
WOULD_MAX = 20


def handlers(store: Store, gate: GatePort, doorbell: Doorbell) -> dict[str, Handler]:
    """The handlers, by the names of their operations."""
    moving = Moving(store, gate, doorbell)
    return {"agents.migrate": moving.migrate, "hosts.drain": moving.drain}


class Moving:
    """Agents to other hosts, hosts out of the way."""

    def __init__(self, store: Store, gate: GatePort, doorbell: Doorbell) -> None:
        self._store = store
        self._gate = gate
        self._doorbell = doorbell
        self._oneshots = OneShots(store)

    async def migrate(self, call: Call, given: MigrateInput) -> Migrated | Preview:
        return await (self._several if given.several else self._one)(call, given)

    async def _one(self, call: Call, given: MigrateInput) -> Migrated | Preview:
        """One by its name, in the call itself; what is not done when it answers is carried on."""
        name = str(given.name)
        uid = (await find_agent(self._store, given.namespace, name)).uid
        chosen = await self._store.read(lambda session: selecting.chosen(session, given))
        told = await self._gate.control("migrate", uid, _asked(call, given) | {"dry_run": True})
        wish = _wish(given, chosen)
        if call.dry_run:
            where = told["to_host"] or "any other host that can take it"
            return preview(call, wish, [f"{given.namespace}/{name} would go to {where}"])
        change_id = await self._oneshots.begin(call, wish)
        leaving = {"from_host": chosen[0].owner or ""} if chosen else {}
        told = await self._gate.control("migrate", uid, _asked(call, given) | leaving)
        told.pop("ok")
        return Migrated(namespace=given.namespace, name=name, change_id=change_id, **told)

    async def _several(self, call: Call, given: MigrateInput) -> Migrated | Preview:
        """All that match, by their change alone."""
        chosen = await self._store.read(lambda session: selecting.chosen(session, given))
        if len(chosen) > AGENTS_MAX:
            detail = f"more than {AGENTS_MAX} agents match; select fewer, or drain their host or node"
            raise refuse("OUT_OF_RANGE", detail, agents_max=AGENTS_MAX, namespace=given.namespace)
        wish = _wish(given, chosen)
        for act in wish.acts if given.to_host is not None else ():  # what could not begin is not begun
            await self._gate.control("migrate", act.uid, _asked(call, given) | {"dry_run": True})
        if call.dry_run:
            return preview(call, wish, _would(wish, len(chosen)))
        change_id = await self._oneshots.begin(call, wish)
        if change_id is None:
            return selecting.answer(given, len(chosen), None, [])
        await wait_for_change(self._store, self._doorbell, call.principal, change_id, WAIT_S)
        found = await self._store.read(lambda session: selecting.outcomes(session, change_id))
        shown = await selecting.with_reasons(self._gate, found)
        return selecting.answer(given, len(chosen), change_id, shown)

    async def drain(self, call: Call, given: DrainHostInput) -> HostDrained | Preview:
        found = await self._store.read(lambda session: _host(session, given.host_id, call.principal))
        if found is None:
            raise _absent(given.host_id)
        namespace, ended = found
        asked = {"principal": call.principal.name, "dry_run": call.dry_run}
        wish = _draining(namespace, given.host_id, ended=ended)
        if call.dry_run:
            told = _DONE if ended else await self._gate.control("drain", given.host_id, asked)
            would = f"host {given.host_id} would be left by its {told['agents']} agents, and end"
            return preview(call, wish, [would])
        change_id = await self._oneshots.begin(call, wish)
        told = _DONE if ended else await self._gate.control("drain", given.host_id, asked)
        progress = {name: told[name] for name in _DONE}
        return HostDrained(host_id=given.host_id, change_id=change_id, **progress)


_DONE: dict[str, Any] = {"done": True, "agents": 0, "waits_for": []}


def _asked(call: Call, given: MigrateInput) -> dict[str, Any]:
    warm = "*" in call.principal.namespaces
    return {"principal": call.principal.name, "to_host": given.to_host, "warm": warm}


def _wish(given: MigrateInput, chosen: list[Chosen]) -> Wish:
    """The acts of those who are not where they shall be."""
    asked = given.model_dump(mode="json", exclude={"dry_run", "request_id"})
    off_node = given.node is not None and given.to_host is None
    acts = [move_of(it, given.to_host, off_node=off_node) for it in chosen if not _there(given, it)]
    return Wish(given.namespace, asked, acts, batch=given.batch, afresh=not given.several)


def _there(given: MigrateInput, it: Chosen) -> bool:
    """Whether an agent is where it shall be; one that is suspended, whether it will be."""
    if it.owner is None:
        return it.placement == given.to_host
    return it.owner == given.to_host


def move_of(it: Chosen, to: str | None, *, off_node: bool = False, stage: int = 0) -> Act:
    """The act that moves an agent to a host, or to any other than its own."""
    expected: Any = True
    if to is not None:
        measure = f"at_host.{to}"
    elif it.owner is not None:
        measure = f"off_host.{it.owner}"
    else:
        measure, expected = "placement", None
    told = {"to_host": to, "from_host": it.owner or "", "warm": True}  # it was looked at when it was asked
    if off_node:
        told["off_node"] = True
    path, before = ("/status/placement", it.placement) if it.owner is None else ("/status/host", it.owner)
    return Act(
        kind="Agent",
        namespace=it.namespace,
        name=it.name,
        measure=measure,
        verb="migrate",
        told=told,
        path=path,
        before=before,
        after=to,
        uid=it.uid,
        generation=it.generation,
        expected=expected,
        stage=stage,
    )


def _would(wish: Wish, matched: int) -> list[str]:
    """A sentence each, for some; and how many there are."""
    count = f"{len(wish.acts)} of {matched} agents would move, {wish.batch} at once"
    named = [f"{it.namespace}/{it.name} would go to {it.after or 'any other host'}" for it in wish.acts[:WOULD_MAX]]
    left = len(wish.acts) - len(named)
    return [count, *named, *([f"and {left} more"] if left else [])]


def _draining(namespace: str, host_id: str, *, ended: bool) -> Wish:
    act = Act("Host", namespace, host_id, "ended", "drain", {}, "/state", "serving", "ended")
    return Wish(namespace, {"host_id": host_id}, [] if ended else [act], undo="none")


def _host(session: Session, host_id: str, principal: Principal) -> tuple[str, bool] | None:
    """Whom a host serves, and whether it has ended; None when there is none that the principal may see."""
    query = select(HostRow).where(HostRow.host_id == host_id)
    if "*" not in principal.namespaces:
        query = query.where(col(HostRow.namespace).in_(principal.namespaces))
    row = session.exec(query).first()
    return None if row is None else (row.namespace or "", row.ended_at is not None)


def _absent(host_id: str) -> Refusal:
    step = Next(operation="hosts.list", why="shows the hosts there are")
    return refuse(
        "NOT_FOUND", f"there is no host {host_id}", field="/host_id", next=[step], kind="Host", host_id=host_id
    )
