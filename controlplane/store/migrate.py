"""Brings the tables to a revision, programmatically and in one transaction.

`steward up` calls `upgrade` before anything else opens the database. A database that is at the head
already costs one read: Alembic is imported only when there is something to do. Two that migrate at
once wait for each other; one that is killed leaves the tables as they were. A database of a newer
release is refused, and never touched.
"""

import io
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Engine, create_engine, event, inspect, text
from sqlalchemy.pool import NullPool

from controlplane.resources.problems import refuse
from controlplane.store.engine import BUSY_TIMEOUT_MS, dialect_of, sqlite_path, sqlite_uri

if TYPE_CHECKING:
    from alembic.config import Config

HEAD = "0003"
FOLDER = Path(__file__).resolve().parent / "migrations"
_LOCK = 7_078_801_131  # any number of ours, the same in every release


def current(url: str) -> str | None:
    """The revision of the tables; None when there are none."""
    if dialect_of(url) == "sqlite" and not sqlite_path(url).exists():
        return None
    engine = _engine(url)
    try:
        with engine.connect() as connection:
            return _revision(connection)
    finally:
        engine.dispose()


def upgrade(url: str, revision: str = "head") -> None:
    """Up to a revision. At the head already, it is one read."""
    if revision == "head" and current(url) == HEAD:
        return
    from alembic import command

    with _changing(url) as (connection, config):
        _known(config, _revision(connection))
        command.upgrade(config, revision)


def downgrade(url: str, revision: str) -> None:
    """Down to a revision; `base` drops every table."""
    from alembic import command

    with _changing(url) as (connection, config):
        _known(config, _revision(connection))
        command.downgrade(config, revision)


def check(url: str) -> None:
    """Raises `alembic.util.CommandError` when the tables are not what `tables.py` declares."""
    from alembic import command

    with _changing(url) as (_, config):
        command.check(config)


def _revision(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    found: str | None = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    return found


def _known(config: "Config", revision: str | None) -> None:
    from alembic.script import ScriptDirectory

    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    if revision is not None and revision not in known:
        detail = f"the database is at revision {revision}, which this release does not know; run the newer release"
        raise refuse("NOT_READY", detail, revision=revision, head=HEAD)


@contextmanager
def _changing(url: str) -> Iterator[tuple[Connection, "Config"]]:
    """A transaction that nobody else migrates in, and Alembic's configuration on it."""
    from alembic.config import Config

    _private_file(url)
    engine = _engine(url)
    try:
        with engine.begin() as connection:
            if dialect_of(url) == "postgresql":
                connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
            config = Config(stdout=io.StringIO())
            config.set_main_option("script_location", str(FOLDER).replace("%", "%%"))
            config.attributes["connection"] = connection
            yield connection, config
    finally:
        engine.dispose()


def _private_file(url: str) -> None:
    """SQLite's file holds hashes and ciphertext: nobody else reads it."""
    if dialect_of(url) == "sqlite":
        os.close(os.open(sqlite_path(url), os.O_RDWR | os.O_CREAT, 0o600))


def _engine(url: str) -> Engine:
    if dialect_of(url) == "postgresql":
        return create_engine("postgresql+psycopg://" + url.removeprefix("postgresql://"), poolclass=NullPool)

    def connect() -> sqlite3.Connection:
        connection = sqlite3.connect(
            sqlite_uri(url, "rw"), uri=True, timeout=BUSY_TIMEOUT_MS / 1000, isolation_level=None
        )
        connection.execute("PRAGMA journal_mode = WAL").close()
        return connection

    engine = create_engine("sqlite://", creator=connect, poolclass=NullPool)

    @event.listens_for(engine, "begin")
    def begin(connection: Any) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine
