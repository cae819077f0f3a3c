"""Resources as they are answered: what is declared, with what is observed beside it.

Get and list give the same view of the same resource. Lists come in the order of namespace and name,
by key, not by offset, so that pages stay right while others write; labels select in the database,
and where they do, it is their index that is walked.
A principal of some namespaces lists those. A secret answers which keys are set, and nothing else.
"""

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from pydantic import BaseModel
from sqlalchemy import ColumnElement, and_, exists, tuple_
from sqlalchemy import select as core_select
from sqlalchemy.orm import aliased
from sqlmodel import Session, SQLModel, select

from controlplane.operations import observing
from controlplane.operations.conditions import Seen, moment, of_agent, ready_once
from controlplane.operations.living import paging
from controlplane.operations.living.lookup import absent
from controlplane.operations.rollouts import Rollout, mark, rollout
from controlplane.operations.routed import Routed, routed
from controlplane.operations.snapshot import known_of, read_known, read_owners
from controlplane.operations.sources import Bound, brought
from controlplane.operations.workers import worker_name
from controlplane.operations.world import Key, Known
from controlplane.resources.catalogue import OPERATIONS
from controlplane.store.store import Store
from controlplane.store.tables import LabelRow
from schemas.agent import Agent, AgentSpec, AgentStatus
from schemas.budget import Budget, BudgetSpec, BudgetStatus
from schemas.calls import ListInput, ListOutput, Named
from schemas.channel import Channel, ChannelSpec, ChannelStatus
from schemas.connection import Connection, ConnectionStatus, connection_spec
from schemas.fleet import Fleet, FleetSpec, FleetStatus
from schemas.principal import Principal
from schemas.resource import Condition, Kind, Metadata, Ref
from schemas.route import Route, RouteSpec, RouteStatus
from schemas.secret import Kept, Secret, SecretSpec, SecretStatus

Owners = Mapping[str, Ref]
RESOURCE = SQLModel.metadata.tables["resource"]


async def get(store: Store, kind: Kind, given: Named) -> BaseModel:
    """One resource; raises NOT_FOUND."""

    def query(session: Session) -> BaseModel | None:
        key = (kind, given.namespace, given.name)
        known = read_known(session, [key]).get(key)
        return view(session, kind, [known])[0] if known is not None and known.live else None

    found = await store.read(query)
    if found is None:
        raise absent(kind, given.namespace, given.name, "/name")
    return found


def view_agent(store: Store) -> Callable[[str, str], Awaitable[Agent]]:
    """A function that answers one agent by namespace and name."""

    async def view_one(namespace: str, name: str) -> Agent:
        found = await get(store, "Agent", Named(namespace=namespace, name=name))
        return Agent.model_validate(found)

    return view_one


async def list_page(store: Store, kind: Kind, given: ListInput, principal: Principal) -> ListOutput[Any]:
    """A page of a kind, of what the principal may see."""
    after = paging.decode(given.page, (str, str)) if given.page is not None else None

    output: Any = OPERATIONS[f"{kind.lower()}s.list"].output

    def query(session: Session) -> ListOutput[Any]:
        found = _page(session, kind, given, principal, after)
        shown = found[: given.limit]
        more = len(found) > given.limit
        mark = paging.encode([shown[-1].namespace, shown[-1].name]) if more else None
        page: ListOutput[Any] = output.model_construct(items=view(session, kind, shown), next_page=mark)
        return page

    return await store.read(query)


def _page(session: Session, kind: Kind, given: ListInput, principal: Principal, after: list[Any] | None) -> list[Known]:
    """What comes after a place, one more than is shown; with labels, their names first."""
    if given.labels:
        keys = _labelled(session, kind, given, principal, after)
        known = read_known(session, keys)
        return [it for key in keys if (it := known.get(key)) is not None and it.live]
    query = core_select(RESOURCE).where(RESOURCE.c.kind == kind, RESOURCE.c.deleted_at.is_(None))
    placed = _placed(query, RESOURCE.c, given, principal, after)
    return [known_of(row) for row in observing.rows(session, placed)]


def _labelled(
    session: Session, kind: Kind, given: ListInput, principal: Principal, after: list[Any] | None
) -> list[Key]:
    """The names that have all of the labels."""
    (first, condition), *others = [_carrying(kind, *it) for it in (given.labels or {}).items()]
    query = select(first.namespace, first.name).where(condition)
    for label, same in others:
        query = query.where(exists().where(same, label.namespace == first.namespace, label.name == first.name))
    placed = _placed(query, first, given, principal, after)
    return [(kind, namespace, name) for namespace, name in session.exec(placed)]


def _carrying(kind: Kind, key: str, value: str) -> tuple[Any, ColumnElement[bool]]:
    label: Any = aliased(LabelRow)
    return label, and_(label.kind == kind, label.key == key, label.value == value)


def _placed(query: Any, named: Any, given: ListInput, principal: Principal, after: list[Any] | None) -> Any:
    """A query with the part of the names that was asked for, in their order, which is that of bytes."""
    if given.namespace is not None:
        query = query.where(named.namespace == given.namespace)
    elif "*" not in principal.namespaces:
        query = query.where(named.namespace.in_(principal.namespaces))
    if after is not None:
        query = query.where(tuple_(named.namespace, named.name) > tuple_(*after))
    return query.order_by(named.namespace, named.name).limit(given.limit + 1)


def view(session: Session, kind: Kind, found: Sequence[Known]) -> list[BaseModel]:
    """The answered form of live resources of one kind."""
    owners = read_owners(session, {it.owner for it in found if it.owner})
    return _VIEWS[kind](session, found, owners)


def _about(known: Known, owners: Owners) -> Metadata:
    return Metadata(
        namespace=known.namespace,
        name=known.name,
        labels=dict(known.labels),
        revision=known.revision,
        generation=known.generation,
        uid=known.uid or "",
        created_at=moment(known.created_at),
        owner=owners.get(known.owner or ""),
    )


def _agents(session: Session, found: Sequence[Known], owners: Owners) -> list[BaseModel]:
    seen = observing.seen_agents(session, found)
    return [
        Agent(metadata=_about(it, owners), spec=AgentSpec.model_validate(it.spec), status=_agent(seen[it.uid or ""]))
        for it in found
    ]


def _agent(seen: Seen) -> AgentStatus:
    return AgentStatus(
        conditions=of_agent(seen),
        epoch=seen.epoch,
        host=seen.owner,
        placement=seen.placement,
        turns=seen.version,
        inbox=seen.inbox,
    )


def _fleets(session: Session, found: Sequence[Known], owners: Owners) -> list[BaseModel]:
    return [_fleet(session, it, owners) for it in found]


def _fleet(session: Session, known: Known, owners: Owners) -> Fleet:
    uid, template = known.uid or "", mark(known.spec)
    found = observing.replicas(session, uid, template)
    going = rollout(session, uid, known, template) if found.upgraded < found.there else None
    return Fleet(
        metadata=_about(known, owners),
        spec=FleetSpec.model_validate(known.spec),
        status=FleetStatus(
            conditions=[_whole(known, found, going)],
            replicas=found.there,
            ready_replicas=found.ready,
            upgraded_replicas=found.upgraded,
        ),
    )


def _whole(known: Known, found: observing.Replicas, going: Rollout | None) -> Condition:
    """Ready of a fleet; where a rollout is under way, with what it waits for or was stopped by."""
    wanted = known.spec["replicas"]
    whole = found.there == wanted == found.ready
    reason = "AllReady" if whole else "NotAllReady"
    message = "" if whole else f"{found.ready} of {wanted} agents are ready, {found.there} exist"
    if going is not None and going.stop is not None:
        reason = "UpgradeStopped"
        message += f"; its upgrade was stopped by {going.stop.agent}, {going.stop.reason}: {going.stop.detail}"
    elif going is not None and going.waits_for:
        message += f"; its upgrade waits for {going.waits_for}"
    return Condition(
        type="Ready",
        status="true" if whole else "false",
        reason=reason,
        message=message,
        observed_generation=known.generation,
    )


def _channels(session: Session, found: Sequence[Known], owners: Owners) -> list[BaseModel]:
    uids = [it.uid for it in found if it.uid] or [""]
    positions = {it["uid"]: it["next_position"] for it in observing.rows(session, observing.CHANNELS, uids=uids)}
    readers: dict[str, list[str]] = {}
    for row in observing.rows(session, observing.SUBSCRIBERS, uids=uids):
        readers.setdefault(row["channel"], []).append(f"{row['namespace']}/{row['name']}")
    return [_channel(session, it, owners, positions.get(it.uid or ""), readers.get(it.uid or "", [])) for it in found]


def _channel(session: Session, known: Known, owners: Owners, position: int | None, readers: list[str]) -> Channel:
    first = observing.rows(session, observing.FIRST, uid=known.uid)[0]["first"] if position is not None else None
    status = ChannelStatus(
        conditions=[ready_once(known.generation, known.created_at, set_up=position is not None)],
        next_position=position or 1,
        waiting=observing.rows(session, observing.QUEUED, uid=known.uid)[0]["waiting"] if known.uid else 0,
        messages=(position or 1) - first if first is not None else 0,
        subscribers=readers,
    )
    return Channel(metadata=_about(known, owners), spec=ChannelSpec.model_validate(known.spec), status=status)


def _connections(session: Session, found: Sequence[Known], owners: Owners) -> list[BaseModel]:
    return [
        Connection(
            metadata=_about(it, owners),
            spec=connection_spec(it.spec),
            status=ConnectionStatus(conditions=[ready_once(it.generation, it.created_at)]),
        )
        for it in found
    ]


def _secrets(session: Session, found: Sequence[Known], owners: Owners) -> list[BaseModel]:
    return [
        Secret(
            metadata=_about(it, owners),
            spec=SecretSpec(values=dict.fromkeys(it.spec["values"], Kept())),
            status=SecretStatus(conditions=[ready_once(it.generation, it.created_at)]),
        )
        for it in found
    ]


def _budgets(session: Session, found: Sequence[Known], owners: Owners) -> list[BaseModel]:
    return [
        Budget(
            metadata=_about(it, owners),
            spec=BudgetSpec.model_validate(it.spec),
            status=BudgetStatus(conditions=[ready_once(it.generation, it.created_at)]),
        )
        for it in found
    ]


def _routes(session: Session, found: Sequence[Known], owners: Owners) -> list[BaseModel]:
    names: list[Key] = [("Agent", it.namespace, worker_name(it.name)) for it in found]
    known = read_known(session, names)
    ours = {it.uid: known.get(name) for it, name in zip(found, names, strict=True)}
    workers = [it for uid, it in ours.items() if it is not None and it.live and it.owner == uid]
    seen = observing.seen_agents(session, workers)
    now, bound = time.time(), Bound()
    did = routed(session, [it.uid or "" for it in workers], now)
    uids = {it.uid: _worker_uid(ours[it.uid]) for it in found}
    return [
        _route(it, owners, seen.get(uids[it.uid]), did.get(uids[it.uid]) or Routed(), _came(session, it, now, bound))
        for it in found
    ]


def _came(session: Session, route: Known, now: float, bound: Bound) -> int | None:
    """What the source of a route brought in the last hour."""
    known = brought(session, route.namespace, route.name, route.spec["source"], now, bound, 1)
    return known[0] if known else None


def _worker_uid(worker: Known | None) -> str:
    return worker.uid or "" if worker is not None else ""


def _route(known: Known, owners: Owners, worker: Seen | None, did: Routed, came: int | None) -> Route:
    found = worker or Seen(known.generation)
    if "poll" not in known.spec["source"]:  # it may have had another source before
        did = replace(did, poll_failing=None)
    ready, _, _, stopped = of_agent(found)
    paused = stopped.model_copy(update={"type": "Paused", "reason": "Paused" if found.stopped else "NotPaused"})
    paused = paused.model_copy(update={"message": "routes.resume ends it" if found.stopped else ""})
    status = RouteStatus(
        conditions=[ready, paused],
        worker=f"{known.namespace}/{worker_name(known.name)}",
        turns=found.version,
        waiting=found.inbox,
        source_per_hour=came,
        **vars(did),
    )
    return Route(metadata=_about(known, owners), spec=RouteSpec.model_validate(known.spec), status=status)


_VIEWS = {
    "Agent": _agents, "Fleet": _fleets, "Channel": _channels, "Connection": _connections, "Secret": _secrets,
    "Budget": _budgets, "Route": _routes,
}  # fmt: skip
