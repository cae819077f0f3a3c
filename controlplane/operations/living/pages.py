"""Pages of rows with a body: as many as were asked for, and no more than an answer may hold. Reads only."""

from typing import Any, Protocol, TypeVar

from sqlmodel import Session, col

PAGE_BYTES_MAX = 4 * 1024 * 1024
CHUNK = 50


class Bodied(Protocol):
    """A row with a number that grows, and a body."""

    id: int | None
    body: str


Row = TypeVar("Row", bound=Bodied)


def page(session: Session, query: Any, table: type[Row], after: int, limit: int) -> tuple[list[Row], bool]:
    """The rows of a query behind one, in their order; and whether there are more."""
    query = query.order_by(col(table.id))
    rows: list[Row] = []
    size = 0
    while True:
        chunk = session.exec(query.where(col(table.id) > after).limit(CHUNK)).all()
        for row in chunk:
            if len(rows) == limit or (rows and size + len(row.body) > PAGE_BYTES_MAX):
                return rows, True
            rows.append(row)
            size += len(row.body)
            after = row.id or 0
        if len(chunk) < CHUNK:
            return rows, False
