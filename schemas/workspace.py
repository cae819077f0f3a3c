"""An agent's folder: what may lie in it, and how it travels. A file is known by the sha256 of its bytes."""

import re
from collections.abc import Iterable, Mapping
from hashlib import sha256
from typing import Any, NamedTuple

import msgspec
from pydantic import Field

from schemas.base import Frozen

PATH_CHARS_MAX = 500
WORKSPACE_BYTES_MAX = 16 * 1_048_576  # with a state it still fits into one frame


FILES_MAX = 10_000


class Workspace(Frozen):
    """A folder of the agent's own: kept as it is at the end of a turn, and there again at the next one, anywhere."""

    bytes_max: int = Field(default=4 * 1_048_576, ge=1, le=WORKSPACE_BYTES_MAX, description="Of all files together.")
    files_max: int = Field(default=1000, ge=1, le=FILES_MAX)


class Saved(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """One file, its path relative to the folder."""

    path: str
    digest: str
    executable: bool
    body: bytes


class Folder(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """The folder at the start of a turn; `files` is None when the host holds them already."""

    bytes_max: int
    files_max: int
    files: list[Saved] | None = None


class Fault(NamedTuple):
    """Why a folder can not be kept."""

    limit: str | None
    detail: str
    values: dict[str, Any]


def saved(path: str, body: bytes, *, executable: bool) -> Saved:
    """A file with the hash of what it holds."""
    return Saved(path, sha256(body).hexdigest(), executable, body)


def wrong_path(path: str) -> str | None:
    """Why a file can not be kept under a path; None when it can."""
    parts = path.split("/")
    if any(it in ("", ".", "..") for it in parts):
        return "is no path within the folder"
    if len(path) > PATH_CHARS_MAX:
        return f"is longer than {PATH_CHARS_MAX} characters"
    if re.search(r"[\x00-\x1f\x7f\\]", path) or not path.isprintable():
        return "holds what can not be printed"
    return None


def over(sizes: Mapping[str, int], bytes_max: int, files_max: int) -> Fault | None:
    """Which limit the files pass together, by path and size in bytes."""
    if len(sizes) > files_max:
        detail = f"the workspace has {len(sizes)} files, and at most {files_max} are kept"
        return Fault("files_max", detail, {"files": len(sizes), "max": files_max})
    if (total := sum(sizes.values())) > bytes_max:
        detail = f"the workspace has {total} bytes, and at most {bytes_max} are kept"
        return Fault("bytes_max", detail, {"bytes": total, "max": bytes_max})
    return None


def unfit_paths(paths: Iterable[str]) -> Fault | None:
    """The first path that can not be kept."""
    for path in paths:
        if (why := wrong_path(path)) is not None:
            shown = path[:PATH_CHARS_MAX].encode("unicode_escape", "surrogatepass").decode()
            return Fault(None, f"the workspace has a file {shown!r}, which {why}", {"path": shown})
    return None
