"""Publish and read: the channel as operators use it.

A cursor is the position of the last envelope read. Who reads on from a position whose successors
were dropped by retention gets a `steward.gap` envelope that names them: nothing is skipped in
silence. An answer is bounded in bytes as in number. What is published to first is made.
"""

import asyncio
import time
from typing import Any, NamedTuple

import orjson
from sqlmodel import Session, col, select

from controlplane.mesh.dataschema import require_match
from controlplane.operations.living import envelopes, guesting, paging
from controlplane.operations.living.lookup import absent, find_channel, find_or_make, making_uid
from controlplane.operations.living.waiting import until
from controlplane.resources.problems import refuse
from controlplane.store.store import Store
from controlplane.store.tables import ChannelMessageRow, ChannelRow
from schemas.calls import ChannelRead, ChannelReadInput, Published, PublishInput
from schemas.invitation import Opens
from schemas.plan import Preview
from schemas.ports import Doorbell, GatePort, Handler
from schemas.principal import Call

READ_BYTES_MAX = 4 * 1024 * 1024
CHUNK_ROWS = 50
SETTLE_S = 0.01  # rings that come this close together are one
GAP = "steward.gap"


class Batch(NamedTuple):
    """Rows by position, the dropped range before them, and the position to go on from."""

    rows: list[tuple[int, str]]
    gap: tuple[int, int] | None
    cursor: int


def handlers(store: Store, gate: GatePort, doorbell: Doorbell) -> dict[str, Handler]:
    """The handlers, by the names of their operations."""
    channels = Channels(store, gate, doorbell)
    return {
        "channels.publish": channels.publish,
        "channels.read": channels.read,
    }


class Channels:
    """Acts on channels, and reads them."""

    def __init__(self, store: Store, gate: GatePort, doorbell: Doorbell) -> None:
        self._store = store
        self._gate = gate
        self._doorbell = doorbell

    async def publish(self, call: Call, given: PublishInput) -> Published | Preview:
        data = envelopes.encode(given.data)
        namespace, name = given.channel_namespace or given.namespace, given.name
        invitation = ""
        if (way := _way(call, given, "publish")) is not None:
            found, invitation = await guesting.opened(self._store, way, call.now)
            if given.delay_s:
                detail = f"a message to {namespace}/{name}, in another namespace, can not be delayed"
                raise refuse("INVALID_VALUE", detail, field="/delay_s", to=f"{namespace}/{name}")
        else:
            found = await find_or_make(self._store, namespace, name)
        schema: Any = orjson.loads(found.spec).get("dataschema")
        if schema is not None:
            require_match(schema, given.data, namespace, name)
        if call.dry_run:
            would = [] if found.uid else [f"channel {namespace}/{name} would be made"]
            would.append(f"one envelope would be published to {namespace}/{name}")
            return Preview(operation=call.operation, would=would, undo="none")
        message_id = envelopes.message_id(call, namespace, name)
        how = envelopes.placing(call, given)
        body = envelopes.envelope(call, message_id, f"{namespace}/{name}", data, **envelopes.said(how))
        first_use = "" if invitation else making_uid(call, namespace, name)  # it may vanish before the gate looks
        about = (message_id, body, how, call.principal.name, first_use, invitation)
        answer = await self._gate.publish_channel(namespace, name, *about)
        position = answer["position"]
        return Published(message_id=message_id, position=None if position is None else str(position))

    async def read(self, call: Call, given: ChannelReadInput) -> ChannelRead:
        way = _way(call, given, "read")
        if way is None:
            found = await find_channel(self._store, given.namespace, given.name)
        else:
            found = (await guesting.opened(self._store, way, call.now)).channel
        after = None if given.after is None else paging.position(given.after, found.next_position - 1)

        def look(session: Session) -> Batch | None:
            """None where the channel is there no more; to a guest, where it is open no more."""
            if way is not None and guesting.opening(session, way, max(call.now, time.time())) is None:
                return None
            return _after(session, found.uid, after, given.limit)

        batch = await until(
            lambda batch: batch is None or bool(batch.rows or batch.gap),
            lambda: self._store.read(look),
            self._rung,
            given.wait_s,
        )
        if batch is None and way is not None:
            raise guesting.not_open(way)
        if batch is None:  # it was deleted meanwhile
            raise absent("Channel", given.namespace, given.name, "/name")
        return _answer(batch, call, given)

    async def _rung(self, wait_s: float) -> None:
        await self._doorbell.wait(wait_s)
        await asyncio.sleep(SETTLE_S)


def _way(call: Call, given: PublishInput | ChannelReadInput, effect: Opens) -> guesting.Way | None:
    """How a channel of another namespace is reached; None of one's own."""
    other = guesting.elsewhere(given.namespace, given.channel_namespace)
    if other is None:
        return None
    return guesting.Way(given.namespace, guesting.acts(call.principal), effect, other, given.name)


def _answer(batch: Batch, call: Call, given: ChannelReadInput) -> ChannelRead:
    shown = [{**orjson.loads(body), "position": str(position)} for position, body in batch.rows]
    if batch.gap is not None:
        shown.insert(0, _gap(*batch.gap, call, given))
    return ChannelRead(envelopes=shown, cursor=str(batch.cursor))


def _gap(first: int, last: int, call: Call, given: ChannelReadInput) -> dict[str, Any]:
    """An envelope that stands for what retention dropped."""
    return {
        "specversion": "1.0",
        "id": f"gap_{first}_{last}",
        "source": f"/{given.channel_namespace or given.namespace}/channels/{given.name}",
        "type": GAP,
        "subject": f"{given.channel_namespace or given.namespace}/{given.name}",
        "time": envelopes.at(call.now),
        "datacontenttype": "application/json",
        "position": str(last),
        "data": {"from": str(first), "to": str(last)},
    }


def _after(session: Session, channel: str, after: int | None, limit: int) -> Batch | None:
    """What stands after a position, bounded; and what was dropped before it, if anything. None without the channel."""
    following = session.exec(select(ChannelRow.next_position).where(ChannelRow.uid == channel)).first()
    if following is None:
        return None
    newest = following - 1
    rows = _rows(session, channel, after or 0, limit)
    first = rows[0][0] if rows else newest + 1
    gap = (after + 1, first - 1) if after is not None and first > after + 1 else None
    return Batch(rows, gap, rows[-1][0] if rows else newest)


def _rows(session: Session, channel: str, after: int, limit: int) -> list[tuple[int, str]]:
    rows: list[tuple[int, str]] = []
    size = 0
    while len(rows) < limit and size < READ_BYTES_MAX:
        wanted = min(CHUNK_ROWS, limit - len(rows))
        chunk = session.exec(
            select(ChannelMessageRow.position, ChannelMessageRow.body)
            .where(ChannelMessageRow.channel == channel, ChannelMessageRow.position > after)
            .order_by(col(ChannelMessageRow.position))
            .limit(wanted)
        ).all()
        for position, body in chunk:
            if rows and size + len(body) > READ_BYTES_MAX:
                return rows
            rows.append((position, body))
            size += len(body)
        if len(chunk) < wanted:
            break
        after = rows[-1][0]
    return rows
