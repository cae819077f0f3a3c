"""Where the database is, in one normal form.

A database's url is `sqlite:////absolute/path` or `postgresql://…`, and nothing else: every room passes it
on as it is.
"""

from pathlib import Path
from typing import Literal
from urllib.parse import quote, unquote

from controlplane.resources.problems import refuse

Dialect = Literal["sqlite", "postgresql"]
BUSY_TIMEOUT_MS = 5_000
_POSTGRES = ("postgresql://", "postgres://", "postgresql+psycopg://")


def open_url(database_url: str | None, sqlite_path: Path) -> str:
    """The normal form of what the settings say."""
    if database_url is None:
        return f"sqlite:///{sqlite_path.expanduser().resolve()}"
    for scheme in _POSTGRES:
        if database_url.startswith(scheme):
            return "postgresql://" + database_url.removeprefix(scheme)
    if database_url.startswith("sqlite:////"):
        return database_url
    scheme = database_url.partition(":")[0]
    detail = f"a database url starts with postgresql:// or sqlite:////, not with {scheme}"
    raise refuse("INVALID_VALUE", detail, field="/database_url", scheme=scheme)


def dialect_of(url: str) -> Dialect:
    return "sqlite" if url.startswith("sqlite:") else "postgresql"


def sqlite_path(url: str) -> Path:
    """The file of a SQLite url."""
    return Path(unquote(url.removeprefix("sqlite:///")))


def sqlite_uri(url: str, mode: Literal["rw", "rwc"]) -> str:
    return f"file:{quote(str(sqlite_path(url)))}?mode={mode}"
