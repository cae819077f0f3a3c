"""`channels.delayed` and `channels.cancel_delayed`: what waits for its time, and how it is kept from it.

A message takes its place in one unit, and is cancelled in another: whichever commits first makes the other void. Who
cancels is told which it was, however often it asks: a cancelled one is remembered for a week, one that took its place
for as long as there is a record of it.
"""

from typing import Any, Literal

import orjson
from sqlalchemy import ColumnElement
from sqlmodel import Session, col, select

from controlplane.operations.living import pages, paging
from controlplane.operations.living.envelopes import moment
from controlplane.operations.visibility import within
from controlplane.resources.delayed import DelayedList
from controlplane.resources.problems import refuse
from controlplane.store import queues as sql
from controlplane.store.store import Store
from controlplane.store.tables import (
    AgentRow,
    ChannelMessageRow,
    ChannelRow,
    DeadLetterRow,
    DelayedRow,
    InboxRow,
    TurnRow,
)
from controlplane.store.unit import Unit
from schemas.base import turn_of
from schemas.delayed import CancelDelayedInput, CancelledDelayed, DelayedListInput, DelayedView
from schemas.plan import Preview
from schemas.ports import Handler
from schemas.posting import PRIORITY_MAX
from schemas.principal import Call, Principal
from schemas.problem import Next, Refusal

Outcome = Literal["cancelled", "due"]


def handlers(store: Store) -> dict[str, Handler]:
    """The handlers of both operations."""
    room = Delayed(store)
    return {"channels.delayed": room.list, "channels.cancel_delayed": room.cancel}


class Delayed:
    """Lists delayed messages, and cancels them."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def list(self, call: Call, given: DelayedListInput) -> DelayedList:
        after = 0 if given.page is None else int(paging.decode(given.page, (int,))[0])
        rows, more = await self._store.read(lambda session: _page(session, given, after, call.principal))
        next_page = paging.encode([rows[-1].id or 0]) if more else None
        return DelayedList(items=[_view(row) for row in rows], next_page=next_page)

    async def cancel(self, call: Call, given: CancelDelayedInput) -> CancelledDelayed | Preview:
        if call.dry_run:
            outcome = await self._store.read(lambda session: _outcome(session, given))
            if outcome is None:
                raise _absent(given)
            would = [f"{given.message_id} would never come to {given.namespace}/{given.name}"]
            return Preview(operation=call.operation, would=would if outcome == "waits" else [], undo="none")
        about = (given.kind, given.namespace, given.name, given.message_id)
        unit = Unit().raw(sql.CANCEL_DELAYED, [call.now, *about], expect=1)
        unit.event(
            "message.cancelled",
            kind=given.kind,
            namespace=given.namespace,
            name=given.name,
            now=call.now,
            principal=call.principal.name,
            data={"message_id": given.message_id},
        )
        if await self._store.write(unit):
            return CancelledDelayed(message_id=given.message_id, outcome="cancelled")
        found = await self._store.read(lambda session: _outcome(session, given))
        if found is None:
            raise _absent(given)
        if found == "waits":  # put off just now, which a conflict of the writer can look like
            raise refuse("CONFLICT", "others wrote at the same time; try again", retry_after_s=0.1)
        return CancelledDelayed(message_id=given.message_id, outcome=found)


def _page(session: Session, given: DelayedListInput, after: int, principal: Principal) -> tuple[list[DelayedRow], bool]:
    """Rows after an id, as many as an answer may hold; and whether there are more."""
    query = select(DelayedRow).where(*within(principal, DelayedRow.namespace), col(DelayedRow.cancelled_at).is_(None))
    for column, wanted in (
        (DelayedRow.namespace, given.namespace), (DelayedRow.kind, given.kind), (DelayedRow.name, given.name),
    ):  # fmt: skip
        query = query if wanted is None else query.where(col(column) == wanted)
    return pages.page(session, query, DelayedRow, after, given.limit)


def _outcome(session: Session, given: CancelDelayedInput) -> Outcome | Literal["waits"] | None:
    """What became of it, or None of what nobody knows."""
    query = select(DelayedRow.id, DelayedRow.cancelled_at).where(
        DelayedRow.kind == given.kind,
        DelayedRow.namespace == given.namespace,
        DelayedRow.name == given.name,
        DelayedRow.message_id == given.message_id,
    )
    row = session.exec(query).first()
    if row is not None:
        return "waits" if row[1] is None else "cancelled"
    placed = _of_agent(session, given) if given.kind == "Agent" else _of_channel(session, given)
    return "due" if placed or _letter(session, given) else None


def _of_agent(session: Session, given: CancelDelayedInput) -> bool:
    """Whether it is in the inbox, or was handled."""
    here = (AgentRow.namespace == given.namespace, AgentRow.name == given.name)
    uid = session.exec(select(AgentRow.uid).where(*here)).first()
    if uid is None:
        return False
    turn_id = turn_of(uid, given.message_id)
    inbox = (InboxRow.agent == uid, InboxRow.message_id == given.message_id)
    return _any(session, InboxRow.seq, *inbox) or _any(session, TurnRow.turn_id, TurnRow.turn_id == turn_id)


def _of_channel(session: Session, given: CancelDelayedInput) -> bool:
    here = (ChannelRow.namespace == given.namespace, ChannelRow.name == given.name)
    uid = session.exec(select(ChannelRow.uid).where(*here)).first()
    message = (ChannelMessageRow.channel == uid, ChannelMessageRow.message_id == given.message_id)
    return uid is not None and _any(session, ChannelMessageRow.position, *message)


def _letter(session: Session, given: CancelDelayedInput) -> bool:
    """Whether it found nothing when its time came."""
    there = (DeadLetterRow.namespace == given.namespace, DeadLetterRow.name == given.name)
    return _any(session, DeadLetterRow.id, *there, DeadLetterRow.message_id == given.message_id)


def _any(session: Session, column: Any, *where: ColumnElement[bool] | bool) -> bool:
    return session.exec(select(column).where(*where).limit(1)).first() is not None


def _absent(given: CancelDelayedInput) -> Refusal:
    arguments = {"namespace": given.namespace, "kind": given.kind, "name": given.name}
    step = Next(operation="channels.delayed", arguments=arguments, why="shows what waits for its time there")
    detail = f"no message {given.message_id} waits to go to {given.kind.lower()} {given.namespace}/{given.name}"
    about: dict[str, Any] = {**arguments, "kind": "Message", "message_id": given.message_id}
    return refuse("NOT_FOUND", detail, field="/message_id", next=[step], **about)


def _view(row: DelayedRow) -> DelayedView:
    return DelayedView(
        message_id=row.message_id,
        kind="Channel" if row.kind == "Channel" else "Agent",
        namespace=row.namespace,
        name=row.name,
        due_at=moment(row.due_at),
        key=row.key,
        priority=0 if row.rank is None else PRIORITY_MAX - row.rank,
        expires_at=None if row.expires_at is None else moment(row.expires_at),
        envelope=orjson.loads(row.body),
    )
