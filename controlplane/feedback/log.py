"""The feedback log as its readers see it: what happened, after a cursor, oldest first.

What a principal may not see is left out in the query itself, never afterwards, so that neither an
event, nor a count, nor a cursor tells of it: a principal of some namespaces reads those; records of
the installation (tokens, hosts) carry no namespace and are read by principals of all namespaces.
The cursor of an answer is the last event that the principal may see, whether the filter let it
through or not, so that a rare filter does not scan the same stretch again. Reading repeats safely:
delivery is at least once, by cursor.
"""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from time import monotonic
from typing import Any, NamedTuple

import orjson
from sqlalchemy import ColumnElement, Row, bindparam, func, literal, or_, select
from sqlmodel import Session

from controlplane.feedback.cursors import Cursors
from controlplane.feedback.tail import Tail
from controlplane.resources.problems import refuse
from controlplane.store.store import Store
from controlplane.store.tables import EventRow
from schemas.base import INT64_MAX
from schemas.feedback import Event, EventFilter, EventsFound, Subject
from schemas.ports import Doorbell, Handler
from schemas.principal import Call, Principal
from schemas.records import FeedbackInput

PAGES_SHARED_MAX = 8


def read_positions(
    session: Session, after: int, upto: int, limit: int, wanted: EventFilter | None, principal: Principal
) -> tuple[Sequence[Row[Any]], int]:
    """Rows after a position and up to another, and the position to go on from.

    Under a filter the end of the log is taken before the rows: what is committed in between waits
    for the next read.
    """
    given: dict[str, Any] = {"after": after, "upto": upto, "limit": limit}
    everywhere = "*" in principal.namespaces
    if not everywhere:
        given["namespaces"] = list(principal.namespaces)
    rows_of, end_of = (_ROWS, _END) if everywhere else (_ROWS_SEEN, _END_SEEN)
    connection = session.connection()
    conditions = _matching(wanted)
    if not conditions:
        rows = connection.execute(rows_of, given).all()
        return rows, rows[-1].cursor if rows else after
    end = connection.execute(end_of, given).scalar_one() or 0
    if end <= after:
        return [], after
    rows = connection.execute(rows_of.where(_EVENT.c.cursor <= end, *conditions), given).all()
    return rows, rows[-1].cursor if len(rows) == limit else end


def _matching(wanted: EventFilter | None) -> list[ColumnElement[bool]]:
    if wanted is None:
        return []
    pairs = (
        (_EVENT.c.kind, wanted.kind),
        (_EVENT.c.namespace, wanted.namespace),
        (_EVENT.c.name, wanted.name),
        (_EVENT.c.change_id, wanted.change_id),
    )
    conditions: list[ColumnElement[bool]] = [column == value for column, value in pairs if value is not None]
    if wanted.types:
        conditions.append(or_(*(_of_type(pattern) for pattern in wanted.types)))
    return conditions


def _of_type(pattern: str) -> ColumnElement[bool]:
    prefix = pattern[:-1]
    start: ColumnElement[str] = func.substr(_EVENT.c.type, 1, len(prefix))
    return start == prefix if pattern.endswith(".*") else literal(pattern) == _EVENT.c.type


# Made once: a statement that is put together anew with every call costs more than its answer.
_EVENT = EventRow.__table__  # type: ignore[attr-defined]
_SEEN = _EVENT.c.namespace.in_(bindparam("namespaces", expanding=True))
_UPTO = _EVENT.c.cursor <= bindparam("upto")
_ROWS = select(_EVENT).where(_EVENT.c.cursor > bindparam("after"), _UPTO)
_ROWS = _ROWS.order_by(_EVENT.c.cursor).limit(bindparam("limit"))
_ROWS_SEEN = _ROWS.where(_SEEN)
_LAST = select(func.max(_EVENT.c.cursor))
_END = _LAST.where(_UPTO)
_END_SEEN = _END.where(_SEEN)


def _event(row: Row[Any], cursor: str) -> Event:
    return Event(
        cursor=cursor,
        id=f"evt_{cursor}",
        type=row.type,
        time=datetime.fromtimestamp(row.time, UTC),
        subject=Subject(kind=row.kind, namespace=row.namespace, name=row.name),
        principal=row.principal,
        change_id=row.change_id,
        turn_id=row.turn_id,
        data=_object(orjson.loads(row.data)),
    )


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


class FeedbackLog:
    """Answers `feedback.read`, at once or when something happened."""

    def __init__(self, store: Store, doorbell: Doorbell, cursors: Cursors) -> None:
        self._store = store
        self._cursors = cursors
        self._tail = Tail(store, doorbell, _end)
        self._shared: dict[tuple[Any, ...], asyncio.Future[Page]] = {}

    async def read(self, call: Call, given: FeedbackInput) -> EventsFound:
        """Events after the cursor; with `wait_s`, waits for the first one that matches."""
        _require_reach(call.principal, given.filter)
        position = self._cursors.open(given.after) if given.after else 0
        until = monotonic() + given.wait_s
        while (left := until - monotonic()) > 0:
            mark = self._tail.mark
            page = await self._page_under(mark, position, given, call.principal)
            if page.told.events:
                return page.told
            position = page.position
            await self._tail.wait(mark, left)
        return (await self._page(position, INT64_MAX, given, call.principal)).told

    async def _page_under(self, mark: int, position: int, given: FeedbackInput, principal: Principal) -> "Page":
        """A page that was read under the mark: one for all who stand at this place and may see the same."""
        if not self._tail.live or self._tail.end is None:
            return await self._page(position, INT64_MAX, given, principal)
        wanted = given.filter and given.filter.model_dump_json()
        key = (mark, position, given.limit, wanted, principal.namespaces)
        page = self._shared.get(key)
        if page is None:
            page = self._shared[key] = asyncio.ensure_future(self._page(position, self._tail.end, given, principal))
            page.add_done_callback(lambda read: self._keep_or_not(key, read))
            if len(self._shared) > PAGES_SHARED_MAX:
                del self._shared[next(iter(self._shared))]
        return await asyncio.shield(page)

    def _keep_or_not(self, key: tuple[Any, ...], read: "asyncio.Future[Page]") -> None:
        """A read that failed is shared by those who waited for it, and by nobody after them."""
        if read.cancelled() or read.exception() is not None:
            self._shared.pop(key, None)

    async def _page(self, position: int, upto: int, given: FeedbackInput, principal: Principal) -> "Page":
        def query(session: Session) -> Page:
            rows, end = read_positions(session, position, upto, given.limit, given.filter, principal)
            *sealed, cursor = self._cursors.seal_all([*(row.cursor for row in rows), end])
            events = [_event(row, its) for row, its in zip(rows, sealed, strict=True)]
            return Page(EventsFound(events=events, cursor=cursor), end)

        return await self._store.read(query)


class Page(NamedTuple):
    """What was read, and the position to go on from."""

    told: EventsFound
    position: int


def _end(session: Session) -> int:
    return int(session.connection().execute(_LAST).scalar_one() or 0)


def _require_reach(principal: Principal, wanted: EventFilter | None) -> None:
    if wanted is not None and wanted.namespace is not None and not principal.reaches(wanted.namespace):
        raise refuse(
            "FOREIGN_NAMESPACE",
            f"the token of {principal.name} does not reach namespace {wanted.namespace}",
            field="/filter/namespace",
            principal=principal.name,
            namespace=wanted.namespace,
        )


def handlers(store: Store, doorbell: Doorbell, cursors: Cursors) -> dict[str, Handler]:
    """`feedback.read`."""
    return {"feedback.read": FeedbackLog(store, doorbell, cursors).read}
