"""`channels.dead_letters` and `channels.redrive`: what was given up, and the way back.

A letter that is put back is a new message: under its old id its turn is over, and would be taken for done. Letter and
message change places in one unit, so that it is put back once, whoever asks how often. Who asked for it has heard that
it failed, so it is answered to nobody. What an agent sent to another namespace and found nobody is kept in its own: it
stays there, since what is open to an agent is judged as that sends, and a local one of the same name is a stranger.
"""

from collections.abc import Sequence
from typing import Any

import orjson
from sqlalchemy import exists
from sqlmodel import Session, and_, col, func, or_, select

from controlplane.mesh.publishing import channel_rows
from controlplane.operations.living import envelopes, pages, paging
from controlplane.operations.visibility import within
from controlplane.operations.workers import worker_name
from controlplane.resources.dead_letters import DeadLetterList
from controlplane.store import dead_letters as sql
from controlplane.store import statements
from controlplane.store.store import Store
from controlplane.store.tables import DeadLetterRow, ResourceRow
from controlplane.store.unit import Unit
from schemas.base import short_id
from schemas.dead_letters import (
    DeadLetterListInput,
    DeadLetterView,
    LeftLetter,
    RedriveInput,
    Redriven,
    RedrivenLetter,
)
from schemas.plan import Preview
from schemas.ports import Handler
from schemas.posting import Placed
from schemas.principal import Call, Principal

LEFT_OUT = ("replyto", "deadline", "expires")  # it is answered to nobody, and lives as long as it must


def handlers(store: Store) -> dict[str, Handler]:
    """The handlers of both operations."""
    letters = DeadLetters(store)
    return {"channels.dead_letters": letters.list, "channels.redrive": letters.redrive}


class DeadLetters:
    """Lists dead letters, and puts them back."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def list(self, call: Call, given: DeadLetterListInput) -> DeadLetterList:
        after = 0 if given.page is None else int(paging.decode(given.page, (int,))[0])
        rows, more = await self._store.read(lambda session: _page(session, given, after, call.principal))
        next_page = paging.encode([rows[-1].id or 0]) if more else None
        return DeadLetterList(items=[_view(row) for row in rows], next_page=next_page)

    async def redrive(self, call: Call, given: RedriveInput) -> Redriven | Preview:
        rows, remaining = await self._store.read(lambda session: _asked_for(session, given))
        if call.dry_run:
            return Preview(operation=call.operation, would=[_would(row) for row in rows], undo="none")
        done: list[RedrivenLetter] = []
        left = [_unknown(it) for it in _missing(rows, given)]
        for row in rows:
            message_id = short_id("msg", "redrive", row.message_id, row.id, near=row.message_id)
            if (kept := _why_left(row)) is not None or not await self._store.write(_unit(row, message_id, call)):
                left.append(kept or _no_target(row))
                continue
            place = {"namespace": row.namespace, "name": row.name}
            done.append(RedrivenLetter(dead_letter_id=str(row.id), message_id=message_id, **place))
        return Redriven(redriven=done, left=left, remaining=remaining)


def _page(
    session: Session, given: DeadLetterListInput, after: int, principal: Principal
) -> tuple[list[DeadLetterRow], bool]:
    """Rows after an id, as many as an answer may hold; and whether there are more."""
    query = select(DeadLetterRow).where(*within(principal, DeadLetterRow.namespace))
    if given.namespace is not None:
        query = query.where(DeadLetterRow.namespace == given.namespace)
    query = query.where(*_narrowed(given))
    return pages.page(session, query, DeadLetterRow, after, given.limit)


def _narrowed(given: DeadLetterListInput | RedriveInput) -> list[Any]:
    wanted: list[Any] = []
    if given.name is not None:
        of_route = and_(col(DeadLetterRow.name) == worker_name(given.name), _of_route(given.name))
        wanted.append(or_(col(DeadLetterRow.name) == given.name, col(DeadLetterRow.channel) == given.name, of_route))
    if given.reason is not None:
        wanted.append(col(DeadLetterRow.reason) == given.reason)
    return wanted


def _of_route(name: str) -> Any:
    """Whether a letter's namespace has a route of this name, or had one."""
    here = col(ResourceRow.namespace) == col(DeadLetterRow.namespace)
    return exists().where(here, col(ResourceRow.kind) == "Route", col(ResourceRow.name) == name)


def _asked_for(session: Session, given: RedriveInput) -> tuple[list[DeadLetterRow], int]:
    """The oldest of those that are asked for, and how many more there are."""
    wanted = and_(col(DeadLetterRow.namespace) == given.namespace, *_narrowed(given))
    if given.dead_letter_ids is not None:
        ids = [int(it) for it in given.dead_letter_ids if it.isascii() and it.isdigit() and len(it) < 19]
        wanted = and_(wanted, col(DeadLetterRow.id).in_(ids))
    rows = session.exec(select(DeadLetterRow).where(wanted).order_by(col(DeadLetterRow.id)).limit(given.limit)).all()
    count = session.exec(select(func.count()).select_from(DeadLetterRow).where(wanted)).one()
    return list(rows), int(count) - len(rows)


def _missing(rows: Sequence[DeadLetterRow], given: RedriveInput) -> list[str]:
    """Ids that name no letter here; those beyond the limit are counted, and not named."""
    if given.dead_letter_ids is None or len(rows) == given.limit:
        return []
    found = {str(row.id) for row in rows}
    return [it for it in dict.fromkeys(given.dead_letter_ids) if it not in found]


def _unit(row: DeadLetterRow, message_id: str, call: Call) -> Unit:
    """The letter goes, and the message comes; nothing changes where the letter or its target is not there."""
    body = {**orjson.loads(row.body), "id": message_id, "causationid": row.message_id}
    text = orjson.dumps({key: value for key, value in body.items() if key not in LEFT_OUT}).decode()
    unit = Unit().raw(sql.TAKE, [row.id], expect=1)
    how = Placed(body.get("partitionkey"), body.get("priority") or 0)
    channel = _channel(row)
    if channel is not None:
        for sql_text, params, _ in channel_rows(row.namespace, channel, message_id, text, how, call.now):
            once = 1 if sql_text in (statements.CHANNEL_PUT, statements.CHANNEL_BUMP) else None
            unit.raw(sql_text, params, expect=once)
    else:
        place = (row.namespace, row.name)
        trigger = "message" if row.trigger == "queue" else row.trigger
        unit.raw(sql.TO_INBOX, [message_id, trigger, text, call.now, how.key, how.rank, *place], expect=1)
    return unit.event(
        "message.redriven",
        kind="Agent" if channel is None else "Channel",
        namespace=row.namespace,
        name=channel or row.name,
        now=call.now,
        principal=call.principal.name,
        data={"dead_letter_id": str(row.id), "message_id": message_id, "was": row.message_id, "reason": row.reason},
    )


def _channel(row: DeadLetterRow) -> str | None:
    """The channel that it goes back to: the one that was not there, or the queue that it was of."""
    return {"publish": row.name, "queue": row.channel}.get(row.trigger)


def _would(row: DeadLetterRow) -> str:
    if (kept := _why_left(row)) is not None:
        return f"dead letter {row.id} would stay: {kept.detail}"
    return f"dead letter {row.id} would be put back to {row.namespace}/{_channel(row) or row.name}"


def _why_left(row: DeadLetterRow) -> LeftLetter | None:
    if row.trigger == "start":
        detail = "an agent starts once for each generation of its spec; a changed spec starts it anew"
        return LeftLetter(dead_letter_id=str(row.id), reason="NOT_REPEATABLE", detail=detail)
    if (to := _abroad(row)) is not None:
        detail = f"it was for {to}, of another namespace, and only an agent that this is open to sends there"
        return LeftLetter(dead_letter_id=str(row.id), reason="TARGET_NOT_FOUND", detail=detail)
    return None


def _abroad(row: DeadLetterRow) -> str | None:
    """Whom of another namespace an agent's turn did not find; the letter has that one's bare name, beside its sender's
    namespace. None of all other letters, whatever their subject says."""
    if row.reason != "TARGET_NOT_FOUND" or row.turn_id is None:
        return None
    if row.trigger != "publish" and (row.trigger != "message" or row.channel is not None):
        return None
    to = str(orjson.loads(row.body).get("subject") or "")
    namespace, _, name = to.partition("/")
    return to if name == row.name and namespace != row.namespace else None


def _no_target(row: DeadLetterRow) -> LeftLetter:
    channel = _channel(row)
    what = "agent" if channel is None else "channel"
    detail = (
        f"there is no {what} {row.namespace}/{channel or row.name}, or somebody else put this back at the same time"
    )
    return LeftLetter(dead_letter_id=str(row.id), reason="TARGET_NOT_FOUND", detail=detail)


def _unknown(letter: str) -> LeftLetter:
    return LeftLetter(dead_letter_id=letter, reason="NOT_FOUND", detail=f"there is no dead letter {letter} here")


def _view(row: DeadLetterRow) -> DeadLetterView:
    return DeadLetterView(
        dead_letter_id=str(row.id),
        namespace=row.namespace,
        name=row.name,
        channel=row.channel,
        message_id=row.message_id,
        trigger=row.trigger,
        reason=row.reason,
        detail=row.detail,
        turn_id=row.turn_id,
        at=envelopes.moment(row.at),
        envelope=orjson.loads(row.body),
    )
