"""What an installation has on a node that is not the gate's: one folder, with the socket of a relay and code that runs.

Its path follows from that of the gate, so anybody of that machine could have made it first: it is used only where it
is our own and closed to others. Whoever comes first of a node makes it; the relay puts away what others have left,
and at its end the whole of it.
"""

import contextlib
import errno
import os
import shutil
import stat
from pathlib import Path

from schemas.processes import is_it, started

TASKS = "tasks"


def folder_of(socket_path: Path, node_id: str) -> Path:
    """Where a node's relay has its socket, beside that of the gate: short, as the path of a socket must be."""
    return socket_path.parent / f"n-{node_id[:12]}"


def private(folder: Path) -> Path:
    """Make the folder of a node, and that of the installation above it; PermissionError where one is another's."""
    for path in (folder.parent, folder):
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        held = path.stat()
        if {path.lstat().st_uid, held.st_uid} != {os.geteuid()}:
            raise PermissionError(errno.EPERM, "it belongs to another user, and is not used", str(path))
        if stat.S_IMODE(held.st_mode) & 0o077:
            path.chmod(0o700)
    return folder


def of_this_task(folder: Path) -> Path:
    """Below the folder of a node, a place for what this process runs: by its name it is known whose it was."""
    return folder / TASKS / f"{os.getpid()}-{started(os.getpid()):.2f}"


def put_away(folder: Path) -> None:
    """What tasks have left whose process has ended."""
    with contextlib.suppress(FileNotFoundError):
        for path in list((folder / TASKS).iterdir()):
            pid, _, began = path.name.partition("-")
            with contextlib.suppress(ValueError):  # it is none of theirs
                if not is_it(int(pid), float(began)):
                    shutil.rmtree(path, ignore_errors=True)


def leave(folder: Path) -> None:
    """Remove the folder of a node with all that is in it, and that of the installation, if nothing else is there."""
    shutil.rmtree(folder, ignore_errors=True)
    with contextlib.suppress(OSError):
        folder.parent.rmdir()
