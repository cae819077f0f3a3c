"""Migrates, by Alembic, in one transaction.

Two that migrate at once wait for each other; one that is killed leaves the tables as they were.
"""

import io
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, create_engine, event, inspect, text
from sqlalchemy.pool import NullPool
from tenacity import retry, retry_if_exception_type, stop_after_delay, wait_fixed

from controlplane.resources.problems import refuse
from controlplane.store.location import BUSY_TIMEOUT_MS, dialect_of, sqlite_path, sqlite_uri
from controlplane.store.migrate import HEAD

FOLDER = Path(__file__).resolve().parent / "migrations"
_LOCK = 7_078_801_131  # any number of ours, the same in every release


def upgrade(url: str, revision: str) -> None:
    with _changing(url) as (connection, config):
        _known(config, _revision(connection))
        command.upgrade(config, revision)


def downgrade(url: str, revision: str) -> None:
    with _changing(url) as (connection, config):
        _known(config, _revision(connection))
        command.downgrade(config, revision)


def check(url: str) -> None:
    with _changing(url) as (_, config):
        command.check(config)


def _revision(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    found: str | None = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    return found


def _known(config: Config, revision: str | None) -> None:
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    if revision is not None and revision not in known:
        detail = f"the database is at revision {revision}, which this release does not know; run the newer release"
        raise refuse("NOT_READY", detail, revision=revision, head=HEAD)


@contextmanager
def _changing(url: str) -> Iterator[tuple[Connection, Config]]:
    """A transaction that nobody else migrates in, and Alembic's configuration on it."""
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


@retry(
    retry=retry_if_exception_type(sqlite3.OperationalError),
    stop=stop_after_delay(BUSY_TIMEOUT_MS / 1000),
    wait=wait_fixed(0.02),
    reraise=True,
)
def _wal(connection: sqlite3.Connection) -> None:
    """The change of the mode does not wait for another's lock, whatever the timeout is."""
    connection.execute("PRAGMA journal_mode = WAL").close()


def _engine(url: str) -> Engine:
    if dialect_of(url) == "postgresql":
        return create_engine("postgresql+psycopg://" + url.removeprefix("postgresql://"), poolclass=NullPool)

    def connect() -> sqlite3.Connection:
        connection = sqlite3.connect(
            sqlite_uri(url, "rw"), uri=True, timeout=BUSY_TIMEOUT_MS / 1000, isolation_level=None
        )
        _wal(connection)
        return connection

    engine = create_engine("sqlite://", creator=connect, poolclass=NullPool)

    @event.listens_for(engine, "begin")
    def begin(connection: Any) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine
