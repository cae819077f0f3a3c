"""The data folder and the runtime folder of one installation.

The data folder belongs to one plane at a time: an advisory lock that the kernel releases with the
process, so that kill -9 leaves nothing to clean. The runtime folder holds sockets and Ray's
session under a short path, readable by its owner only; one that belongs to another is refused.
"""

import contextlib
import fcntl
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson

from controlplane.resources.problems import refuse

PLANE = "plane.json"


@contextlib.contextmanager
def needed(folder: Path) -> Iterator[None]:
    """What a plane can not begin without: raises DATA_UNWRITABLE when the machine does not let it write."""
    try:
        yield
    except OSError as error:
        path, cause = str(error.filename or folder), error.strerror or str(error)
        detail = f"can not write {path} ({cause}); make it writable, make room, or choose another folder with --data"
        raise refuse("DATA_UNWRITABLE", detail, field="/data", path=path, error=cause) from error


def prepare(folder: Path, runtime: Path) -> None:
    """Make both folders, 0700."""
    for path in (folder, folder / "logs", runtime):
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    for path in (folder, runtime):
        held = path.stat()
        if held.st_uid != os.getuid():
            raise refuse("DATA_LOCKED", f"{path} belongs to another user", path=str(path))
        if stat.S_IMODE(held.st_mode) & 0o077:
            path.chmod(0o700)


class Lock:
    """The right to run a plane on a data folder."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "plane.lock"
        self._file: int | None = None

    def acquire(self) -> None:
        """Raises DATA_LOCKED when another plane has it."""
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(descriptor, 32).decode() or "unknown"
            os.close(descriptor)
            raise refuse(
                "DATA_LOCKED",
                f"a plane (pid {holder}) already runs on {self._path.parent}; stop it with `steward down`, "
                "or choose another folder with --data",
                pid=holder,
                folder=str(self._path.parent),
            ) from None
        os.truncate(descriptor, 0)
        os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        self._file = descriptor

    def release(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None


def keep(path: Path, make: Any) -> str:
    """The text of a 0600 file, made by `make()` when there is none."""
    if path.exists():
        return path.read_text().strip()
    text: str = make()
    write_private(path, text)
    return text


def write_private(path: Path, text: str) -> None:
    """Write a 0600 file so that no reader ever sees half of it."""
    partial = path.with_name(path.name + ".partial")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    partial.replace(path)


def write_json(path: Path, value: Any) -> None:
    write_private(path, orjson.dumps(value).decode())


def read_json(path: Path) -> Any:
    """The value of a JSON file; None when there is none or it is no JSON."""
    try:
        return orjson.loads(path.read_bytes())
    except (FileNotFoundError, orjson.JSONDecodeError):
        return None


def installation(folder: Path) -> str:
    """The id of this installation, made at its first start."""
    return keep(folder / "installation", lambda: secrets.token_hex(6))


def gate_key(folder: Path) -> str:
    """What a plane proves itself with to the gate."""
    return keep(folder / "gate.key", lambda: secrets.token_urlsafe(32))
