"""Finding a plane: by address and token, by environment, or by data folder.

A flag outranks the environment, the environment outranks the data folder. The admin token of a
data folder is given only to the address that this same folder names, never to another.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from controlplane.resources.problems import refuse
from schemas.problem import Refusal

DATA = Path(".steward")


@dataclass(frozen=True)
class Wanted:
    """Where the person said that the plane is."""

    url: str | None = None
    token: str | None = None
    data: Path | None = None


@dataclass(frozen=True)
class Target:
    """Where it is."""

    url: str
    token: str | None
    data: Path


def folder(data: Path | None, environ: Mapping[str, str] = os.environ) -> Path:
    """The data folder: the flag, then `STEWARD_DATA`, then `.steward`."""
    return (data or Path(environ.get("STEWARD_DATA") or DATA)).expanduser()


def find(wanted: Wanted, environ: Mapping[str, str] = os.environ) -> Target:
    """The plane that is meant, or the Problem NO_PLANE."""
    data = folder(wanted.data, environ)
    named = wanted.url or (None if wanted.data else environ.get("STEWARD_URL"))
    token = wanted.token or (None if wanted.data and not wanted.url else environ.get("STEWARD_TOKEN"))
    recorded = plane_record(data)
    local = str(recorded["url"]) if recorded else None
    url = named or local
    if url is None:
        raise no_plane(f"no plane runs on {data}", data=str(data))
    if token is None and local is not None and url.rstrip("/") == local.rstrip("/"):
        token = stored_token(data)
    return Target(url.rstrip("/"), token, data)


def plane_record(data: Path) -> dict[str, Any] | None:
    """What DATA/plane.json says, if there is one that can be read."""
    try:
        record = json.loads((data / "plane.json").read_bytes())
    except (OSError, ValueError):
        return None
    return record if isinstance(record, dict) and isinstance(record.get("url"), str) else None


def stored_token(data: Path) -> str | None:
    path = data / "admin.token"
    return path.read_text(encoding="utf-8").strip() if path.is_file() else None


def no_plane(detail: str, **metadata: Any) -> Refusal:
    """NO_PLANE, with what to do about it."""
    advice = "start one with `steward up`, or name one by --url and --token, STEWARD_URL and STEWARD_TOKEN, or --data"
    return refuse("NO_PLANE", f"{detail}; {advice}", **metadata)
