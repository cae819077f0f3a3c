"""`discovery.topology`: who talks to whom, as it was counted, within what the caller sees."""

from sqlalchemy import ColumnElement, tuple_
from sqlmodel import Session, col, or_, select

from controlplane.operations.living import paging
from controlplane.operations.living.envelopes import moment
from controlplane.resources.discovery import Topology
from controlplane.store.store import Store
from controlplane.store.tables import TrafficRow
from schemas.discovery import Talk, TopologyInput
from schemas.ports import Handler
from schemas.principal import Call, Principal

KEY = (TrafficRow.namespace, TrafficRow.name, TrafficRow.source, TrafficRow.channel)


def handlers(store: Store) -> dict[str, Handler]:
    """The handler of `discovery.topology`."""

    async def topology(call: Call, given: TopologyInput) -> Topology:
        after = None if given.page is None else paging.decode(given.page, (str, str, str, str))
        rows = await store.read(lambda session: _page(session, given, after, call.principal))
        shown = rows[: given.limit]
        last = shown[-1] if len(rows) > given.limit else None
        mark = None if last is None else paging.encode([last.namespace, last.name, last.source, last.channel])
        return Topology(items=[_view(row) for row in shown], next_page=mark)

    return {"discovery.topology": topology}


def _page(session: Session, given: TopologyInput, after: list[str] | None, principal: Principal) -> list[TrafficRow]:
    query = select(TrafficRow)
    if given.namespace is not None:
        query = query.where(col(TrafficRow.namespace) == given.namespace)
    elif "*" not in principal.namespaces:
        query = query.where(col(TrafficRow.namespace).in_(principal.namespaces))
    if given.name is not None:
        spoke: ColumnElement[bool] = col(TrafficRow.source).like(f"/%/agents/{given.name}")
        if given.namespace is not None:
            spoke = col(TrafficRow.source) == f"/{given.namespace}/agents/{given.name}"
        query = query.where(or_(col(TrafficRow.name) == given.name, spoke))
    key = tuple_(*(col(it) for it in KEY))
    if after is not None:
        query = query.where(key > tuple_(*after))
    return list(session.exec(query.order_by(*(col(it) for it in KEY)).limit(given.limit + 1)))


def _view(row: TrafficRow) -> Talk:
    return Talk(
        source=row.source,
        namespace=row.namespace,
        name=row.name,
        channel=row.channel or None,
        messages=row.messages,
        chars=row.chars,
        wait_s=round(row.wait_s / max(1, row.messages), 6),
        since=moment(row.since),
        last=moment(row.last),
    )
