"""`connections.effects`: what agents can do over a connection, as it is declared and as its tools were accepted.

Nothing is asked of the far side: `connections.tools` does that. The effectors are made for this look alone, beside the
loop, for a document of an API may take a moment to be read.
"""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import orjson
from sqlmodel import Session, col, select

from controlplane.mesh.dataschema import data_fault
from controlplane.operations.living import paging
from controlplane.operations.living.lookup import absent
from controlplane.operations.living.offers import pin_of
from controlplane.protocols.listing import names_of, view
from controlplane.protocols.registry import registry
from controlplane.store.store import Store
from controlplane.store.tables import OfferRow, ResourceRow
from schemas.connection import connection_spec
from schemas.offered_effects import EffectList, EffectsInput
from schemas.offers import Pin
from schemas.ports import Bound, Handler, Link
from schemas.principal import Call
from schemas.protocols import Performer


class Known:
    """Implements what of `schemas.ports.Pins` families resolve by: what is kept of one connection's tools."""

    commands: Sequence[Sequence[str]] = ()
    variables: Sequence[str] = ()

    def __init__(self, pins: Mapping[str, Pin]) -> None:
        self._pins = pins

    def pin(self, link: Link, tool: str) -> Pin | None:
        return self._pins.get(tool)

    async def seen(self, link: Link, offered: Mapping[str, Any]) -> None:
        raise NotImplementedError("nothing is asked here")

    def named(self, namespace: str, name: str) -> Link | None:
        return None

    def link(self, declared: Link) -> Link:
        return declared

    def generation(self, uid: str) -> int | None:
        return None


def handlers(store: Store) -> dict[str, Handler]:
    """The handler, by the name of its operation."""

    async def effects(call: Call, given: EffectsInput) -> EffectList:
        after = "" if given.page is None else paging.decode(given.page, (str,))[0]
        link = await store.read(lambda session: _link(session, given))
        if link is None:
            raise absent("Connection", given.namespace, given.name, "/name")
        tools = await store.read(lambda session: _tools(session, link.uid))
        performers = registry().performers(data_fault)
        names, unlisted = await asyncio.to_thread(names_of, link, performers, tools)
        coming = [it for it in names if it > after]
        shown = coming[: given.limit]
        wanted = [it.partition(".")[2] for it in shown]
        pins = await store.read(lambda session: _pins(session, link.uid, wanted)) if tools else {}
        _bind(performers, Known(pins))
        return EffectList(
            items=await asyncio.to_thread(lambda: [view(it, link, performers) for it in shown]),
            next_page=paging.encode([shown[-1]]) if len(coming) > given.limit else None,
            unlisted=unlisted,
        )

    return {"connections.effects": effects}


def _bind(performers: Mapping[str, Performer], known: Known) -> None:
    for it in performers.values():
        if isinstance(it, Bound):
            it.bind(known)


def _link(session: Session, given: EffectsInput) -> Link | None:
    asked = select(col(ResourceRow.uid), col(ResourceRow.generation), col(ResourceRow.spec)).where(
        ResourceRow.kind == "Connection", ResourceRow.namespace == given.namespace, ResourceRow.name == given.name
    )
    row = session.exec(asked.where(col(ResourceRow.deleted_at).is_(None))).first()
    if row is None:
        return None
    return Link(given.name, connection_spec(orjson.loads(row[2])), "", given.namespace, row[0], row[1])


def _tools(session: Session, uid: str) -> list[str]:
    """Those that are offered now."""
    return list(session.exec(select(OfferRow.tool).where(OfferRow.connection == uid, col(OfferRow.gone_at).is_(None))))


def _pins(session: Session, uid: str, tools: Sequence[str]) -> dict[str, Pin]:
    query = select(OfferRow).where(OfferRow.connection == uid, col(OfferRow.tool).in_(tools))
    return {row.tool: pin_of(row) for row in session.exec(query)}
