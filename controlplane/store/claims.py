"""Who has a database: one plane and one gate, whatever folders they were started from.

A claim is a lock that ends with its holder: an advisory lock of a PostgreSQL session, or of a file beside
SQLite's. The gate takes its own on the very connection that writes, so that nothing is written without
it; a connection that was lost has to win it again. The plane's keeps a second installation from starting
at all. The holder's installation can be read beside the lock, to say who is in the way.
"""

import contextlib
import fcntl
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from controlplane.resources.problems import refuse
from controlplane.store.location import dialect_of, sqlite_path
from schemas.problem import Refusal

if TYPE_CHECKING:
    import psycopg

Role = Literal["plane", "gate"]
SPACE = 7_078_801  # of our advisory locks, the same in every release
NUMBER: dict[Role, int] = {"plane": 1, "gate": 2}
PATIENCE_S = 5.0
AGAIN_S = 0.05
CONNECT_S_MAX = 5
_TAKE = "SELECT pg_try_advisory_lock(%s, %s)"
_HOLDER = """SELECT a.application_name FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid
WHERE l.locktype = 'advisory' AND l.granted AND l.classid::bigint = %s AND l.objid::bigint = %s AND l.objsubid = 2
AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())"""


def session_name(role: Role, installation: str) -> str:
    """What a holder's session calls itself."""
    return f"steward {role} {installation}"


def locked(role: Role, holder: str) -> Refusal:
    """The refusal of whoever came second."""
    whose = f"installation {holder}" if holder else "another installation"
    detail = (
        f"the {role} of {whose} has this database; stop it with `steward down --data` and its folder, "
        "or give this one a database of its own with --database-url"
    )
    return refuse("DATABASE_LOCKED", detail, role=role, holder=holder)


def take_session(connection: "psycopg.Connection[Any]", role: Role) -> None:
    """Win the claim for a session; raises DATABASE_LOCKED. A killed holder's session takes a moment to end."""
    give_up_at = time.monotonic() + PATIENCE_S
    while True:
        row = connection.execute(_TAKE, (SPACE, NUMBER[role])).fetchone()
        if row is not None and row[0]:
            return
        if time.monotonic() > give_up_at:
            raise locked(role, _holder_of_session(connection, role))
        time.sleep(AGAIN_S)


def take_file(database: Path, role: Role, installation: str, patience_s: float = PATIENCE_S) -> int:
    """Win the claim of a file; answers the descriptor that holds it, or raises DATABASE_LOCKED."""
    give_up_at = time.monotonic() + patience_s
    descriptor = os.open(_claim_file(database, role), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    while True:
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        if time.monotonic() > give_up_at:
            holder = os.pread(descriptor, 64, 0).decode(errors="replace")
            os.close(descriptor)
            raise locked(role, holder)
        time.sleep(AGAIN_S)
    with contextlib.suppress(OSError):  # on a full disk the lock holds all the same
        os.truncate(descriptor, 0)
        os.pwrite(descriptor, installation.encode(), 0)
    return descriptor


class PlaneClaim:
    """The plane's right to a database, held until `release`."""

    def __init__(self, url: str, installation: str) -> None:
        """Raises DATABASE_LOCKED when another installation's plane, or a gate that it left behind, has the database.

        A database that is away is claimed by nobody: the gate's own claim holds whenever it writes.
        """
        self._session: psycopg.Connection[Any] | None = None
        self._file: int | None = None
        if dialect_of(url) == "sqlite":
            self._claim_file(sqlite_path(url), installation)
        else:
            self._claim_session(url, installation)

    def _claim_file(self, database: Path, installation: str) -> None:
        database.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._file = take_file(database, "plane", installation, patience_s=0.0)
        if (holder := _holder_of_file(database, "gate")) not in ("", installation):
            self.release()
            raise locked("gate", holder)

    def _claim_session(self, url: str, installation: str) -> None:
        import psycopg

        with contextlib.suppress(psycopg.OperationalError):
            self._session = psycopg.connect(
                url,
                autocommit=True,
                connect_timeout=CONNECT_S_MAX,
                application_name=session_name("plane", installation),
            )
            try:
                take_session(self._session, "plane")
                holder = _holder_of_session(self._session, "gate")
                if holder not in ("", installation):
                    raise locked("gate", holder)
            except Refusal:
                self.release()
                raise

    def release(self) -> None:
        if self._session is not None:
            self._session.close()
        if self._file is not None:
            os.close(self._file)
        self._session = self._file = None


def _claim_file(database: Path, role: Role) -> Path:
    return database.with_name(f"{database.name}.{role}")


def _holder_of_file(database: Path, role: Role) -> str:
    """The installation that holds a file's claim now; empty when nobody does."""
    path = _claim_file(database, role)
    if not path.exists():
        return ""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return os.pread(descriptor, 64, 0).decode(errors="replace")
    finally:
        os.close(descriptor)
    return ""


def _holder_of_session(connection: "psycopg.Connection[Any]", role: Role) -> str:
    row = connection.execute(_HOLDER, (SPACE, NUMBER[role])).fetchone()
    return "" if row is None else str(row[0]).removeprefix(session_name(role, ""))
