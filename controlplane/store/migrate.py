"""Brings the tables to a revision.

`steward up` and every start of a gate call `upgrade` before anything else opens the database. A database
that is at the head already costs one read: SQLAlchemy and Alembic are imported only when there is something
to do. A database of a newer release is refused, and never touched.
"""

from controlplane.store.connection import reading
from controlplane.store.location import dialect_of, sqlite_path

HEAD = "0033"
_TABLES = {
    "sqlite": "SELECT 1 FROM sqlite_master WHERE name = 'alembic_version'",
    "postgresql": "SELECT 1 WHERE to_regclass('alembic_version') IS NOT NULL",
}


def current(url: str) -> str | None:
    """The revision of the tables; None when there are none."""
    dialect = dialect_of(url)
    if dialect == "sqlite" and not sqlite_path(url).exists():
        return None
    connection = reading(url)
    try:
        if not connection.rows(_TABLES[dialect], ()):
            return None
        rows = connection.rows("SELECT version_num FROM alembic_version", ())
        return str(rows[0][0]) if rows else None
    finally:
        connection.close()


def upgrade(url: str, revision: str = "head") -> None:
    """Up to a revision. At the head already, it is one read."""
    if revision == "head" and current(url) == HEAD:
        return
    from controlplane.store import migrating

    migrating.upgrade(url, revision)


def downgrade(url: str, revision: str) -> None:
    """Down to a revision; `base` drops every table."""
    from controlplane.store import migrating

    migrating.downgrade(url, revision)


def check(url: str) -> None:
    """Raises `alembic.util.CommandError` when the tables are not what `tables.py` declares."""
    from controlplane.store import migrating

    migrating.check(url)
