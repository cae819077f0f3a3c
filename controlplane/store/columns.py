"""The kinds of columns and indexes that the tables are made of, the same on both databases."""

from sqlalchemy import BigInteger, Column, Double, Index, Integer, String, Text, text

from controlplane.store.packed import Packed

_BIG = BigInteger().with_variant(Integer, "sqlite")  # SQLite counts up only an INTEGER PRIMARY KEY


def auto() -> Column[int]:
    return Column(_BIG, primary_key=True, autoincrement=True)


def big(default: int = 0) -> Column[int]:
    return Column(BigInteger, nullable=False, server_default=str(default))


def by_bytes() -> Column[str]:
    """A part of a key whose order is that of its bytes on both databases, so that an index gives it."""
    return Column(String().with_variant(String(collation="C"), "postgresql"), primary_key=True)


def bytewise() -> Column[str]:
    """The same, outside of a key."""
    return Column(String().with_variant(String(collation="C"), "postgresql"), nullable=False)


def seconds() -> Column[float]:
    return Column(Double, nullable=False)


def seconds_or_none() -> Column[float | None]:
    return Column(Double, nullable=True)


def text_column() -> Column[str]:
    return Column(Text, nullable=False)


def packed() -> Column[str]:
    """A document that is kept for long, and looked for by nothing that is in it."""
    return Column(Packed, nullable=False)


def packed_or_none() -> Column[str | None]:
    return Column(Packed, nullable=True)


def text_or_none() -> Column[str | None]:
    return Column(Text, nullable=True)


def partial(name: str, *columns: str, where: str) -> Index:
    """An index over the rows that a sweep or a query looks for, and no others."""
    return Index(name, *columns, sqlite_where=text(where), postgresql_where=text(where))
