"""Databases that connections of protocol `sql` name: pools, checked addresses, allowed files.

A host is resolved here and each of its addresses checked, then one of them is connected to, as for
`http.request`. A file of SQLite is opened where the installation allows it, and never made. Pools hold as
many connections as the connection may have calls in flight; what was not used for a while is closed.
"""

import asyncio
import sqlite3
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any
from urllib.parse import quote

from sqlalchemy import URL, Engine, NullPool, QueuePool, create_engine, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError

from controlplane.protocols.addresses import ADDRESSES_MAX, Asker, allowed
from controlplane.resources.problems import refuse
from schemas.ports import Link, Unreached
from schemas.sql_connection import SqlConnection

ENGINES_MAX = 64
IDLE_S = 300.0
RECYCLE_S = 900
CONNECT_PART = 0.25  # of the connection's timeout
VALUE_BYTES_MAX = 4_194_304  # of one value, where the database can be told so
Key = tuple[str, ...]


@dataclass
class Database:
    """An engine, and the threads that wait for it."""

    engine: Engine
    threads: ThreadPoolExecutor
    used_at: float
    busy: int = 0

    def close(self) -> None:
        self.threads.shutdown(wait=False, cancel_futures=True)
        self.engine.dispose()


class Databases:
    """The databases that this gate's agents use; `folders` are those that files may lie in."""

    def __init__(self, folders: Sequence[Path]) -> None:
        self._folders = [it.expanduser() for it in folders]
        self._known: dict[Key, Database] = {}

    async def of(self, link: Link, *, writes: bool) -> Database:
        """The database of a connection, ready to be connected to."""
        url = make_url(link.spec.endpoint)
        where = await self._where(url, link)
        limits, own = link.spec.limits, str(writes and url.get_backend_name() == "sqlite")
        bounds = str(limits.in_flight_max), str(limits.timeout_s)
        key = (link.namespace, link.name, link.spec.endpoint, link.secret, *bounds, own, *where)
        await self._close_idle()
        found = self._known.get(key)
        if found is None:
            engine = await asyncio.to_thread(_engine, url, link, where, writes=writes)
            threads = ThreadPoolExecutor(link.spec.limits.in_flight_max, thread_name_prefix="sql")
            found = self._known.setdefault(key, Database(engine, threads, monotonic()))
        found.used_at = monotonic()
        return found

    async def _close_idle(self) -> None:
        now = monotonic()
        idle = [key for key, it in self._known.items() if not it.busy and now - it.used_at > IDLE_S]
        if len(self._known) - len(idle) >= ENGINES_MAX:
            free = (key for key, it in self._known.items() if not it.busy and key not in idle)
            idle += sorted(free, key=lambda key: self._known[key].used_at)[:1]
        for closed in [self._known.pop(key) for key in idle]:
            await asyncio.to_thread(closed.close)

    async def _where(self, url: URL, link: Link) -> list[str]:
        """The addresses, or the file."""
        if url.get_backend_name() == "sqlite":
            return [await asyncio.to_thread(self._file, url.database or "", link.name)]
        assert isinstance(link.spec, SqlConnection)
        asker = Asker(link.name, link.namespace, link.spec.options.allow_private, link.spec.limits.timeout_s)
        try:
            found = await allowed(url.host, url.port or 0, asker)
        except OSError as error:
            raise Unreached(f"could not reach {link.name}: the name {url.host} has no address: {error}") from error
        return sorted(found)[:ADDRESSES_MAX]

    def _file(self, name: str, connection: str) -> str:
        """The file, if it is there and in a folder that is allowed, whatever links lead to it."""
        for folder in self._folders:
            path = (folder / name).resolve()
            if path.is_relative_to(folder.resolve()) and path.is_file():
                return str(path)
        detail = f"connection {connection} names {name}, which is no file in a folder of the setting connection_folders"
        raise refuse("FORBIDDEN_ADDRESS", detail, host=name, address=name, connection=connection)


def _engine(url: URL, link: Link, where: list[str], *, writes: bool) -> Engine:
    limits = link.spec.limits
    if url.get_backend_name() == "sqlite":
        return create_engine(
            "sqlite://", creator=lambda: _opened(where[0], limits.timeout_s, writes), poolclass=NullPool
        )
    if url.drivername == "postgresql":
        url = url.set(drivername="postgresql+psycopg")
    url = url.set(password=link.secret or None)
    try:
        return create_engine(
            _pinned(url, where),
            poolclass=QueuePool,
            pool_size=limits.in_flight_max,
            max_overflow=0,
            pool_timeout=limits.timeout_s,
            pool_pre_ping=True,
            pool_recycle=RECYCLE_S,
            connect_args=_connecting(url, where, limits.timeout_s),
        )
    except (NoSuchModuleError, ImportError, ArgumentError) as error:
        detail = f"connection {link.name} needs a driver that is not installed: {error}"
        raise refuse("NOT_SET_UP", detail, connection=link.name, name=url.drivername, kind="Connection") from error


def _pinned(url: URL, addresses: list[str]) -> URL:
    """libpq is told the addresses beside the name, which TLS goes by; other drivers connect to one of them."""
    if url.drivername == "postgresql+psycopg":
        return url
    return url.set(host=addresses[0])


def _connecting(url: URL, addresses: list[str], timeout_s: float) -> dict[str, Any]:
    if url.drivername != "postgresql+psycopg":
        return {}
    within = max(2, round(timeout_s * CONNECT_PART / len(addresses)))  # seconds; libpq takes no less than two
    return {
        "host": ",".join([str(url.host)] * len(addresses)),
        "hostaddr": ",".join(addresses),
        "connect_timeout": within,
        "prepare_threshold": None,
        "application_name": "steward",
    }


def _opened(path: str, timeout_s: float, writes: bool) -> sqlite3.Connection:
    mode = "rw" if writes else "ro"
    raw = sqlite3.connect(
        f"file:{quote(path)}?mode={mode}",
        uri=True,
        timeout=timeout_s * CONNECT_PART,
        isolation_level=None,
        check_same_thread=False,
    )
    raw.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, VALUE_BYTES_MAX)
    raw.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
    return raw
