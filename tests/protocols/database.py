"""A database of the outside: a file of SQLite, or PostgreSQL behind a port of loopback that can be cut off."""

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
from sqlalchemy import make_url

from tests.postgres import Postgres

KEYS = (
    "CREATE TABLE steward_keys (idempotency_key VARCHAR(255) PRIMARY KEY, answer TEXT NOT NULL,"
    " done_at DOUBLE PRECISION NOT NULL)"
)
SHOP = (
    "CREATE TABLE item (id INTEGER PRIMARY KEY, name TEXT, stock INTEGER)",
    "INSERT INTO item VALUES " + ", ".join(f"({n}, 'item {n}', {n})" for n in range(10)),
    KEYS,
)


class Database:
    """What the owner of the database does, and how a connection names it."""

    def __init__(self, folder: Path, url: str = "", port: int = 0) -> None:
        self.folder = folder
        self.sqlite = not url
        self._url = url
        self.port = port
        self.cut_on: bytes | None = None  # a client that sends this is cut off, after it went through
        self.away = False
        self.clients: set[asyncio.StreamWriter] = set()

    @property
    def endpoint(self) -> str:
        if self.sqlite:
            return "sqlite:///shop.db"
        url = make_url(self._url)
        return f"postgresql://{url.username}@127.0.0.1:{self.port}/{url.database}"

    def goes(self) -> None:
        """It is away: whoever is connected is cut off, and nobody is let in."""
        self.away = True
        for it in self.clients:
            it.close()

    def do(self, *statements: str) -> list[Any]:
        """Statements of its owner; the rows of the last."""
        if self.sqlite:
            with closing(sqlite3.connect(self.folder / "shop.db", timeout=10, isolation_level=None)) as raw:
                return [raw.execute(it).fetchall() for it in statements][-1]
        with psycopg.connect(self._url, autocommit=True) as other:
            found: list[Any] = []
            for it in statements:
                done = other.execute(it.encode())
                found = done.fetchall() if done.description else []
            return found


@contextlib.asynccontextmanager
async def database(kind: str, folder: Path, postgres: Postgres | None) -> AsyncIterator[Database]:
    """A shop with ten items, and a table for keys."""
    if postgres is None:
        found = Database(folder)
        found.do(*SHOP)
        yield found
        return
    assert kind == "postgresql"
    url = postgres.create("template1")
    found = Database(folder, url)
    found.do(*SHOP)
    socket = f"{make_url(url).query['host']}/.s.PGSQL.5432"
    server = await asyncio.start_server(lambda *it: _forward(found, socket, *it), "127.0.0.1", 0)
    found.port = server.sockets[0].getsockname()[1]
    try:
        yield found
    finally:
        server.close()
        postgres.drop(url)


async def _forward(
    database: Database, socket: str, from_client: asyncio.StreamReader, to_client: asyncio.StreamWriter
) -> None:
    if database.away:
        to_client.close()
        return
    database.clients.add(to_client)
    from_server, to_server = await asyncio.open_unix_connection(socket)

    async def pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, watched: bool) -> None:
        with contextlib.suppress(OSError):
            while chunk := await reader.read(65536):
                if watched and database.cut_on is not None and database.cut_on in chunk:
                    database.cut_on = None
                    to_client.close()
                writer.write(chunk)
                await writer.drain()
        writer.close()

    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.gather(pipe(from_client, to_server, watched=True), pipe(from_server, to_client, watched=False))
    database.clients.discard(to_client)
