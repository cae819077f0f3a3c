"""Processes by pid and start time, and the record of those that this installation started.

A pid alone may long belong to somebody else: nothing is signalled unless its start time, counted from
the boot, is the recorded one. The record (`processes.json`) outlives the plane, so that the next one
adopts or ends what a killed one left; it speaks for one folder and one boot, so that a copy of the
folder never takes the processes of the first for its own.
"""

import contextlib
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from controlplane.supervision.folder import read_json, write_json
from schemas.processes import boot, is_it, started

RECORD = "processes.json"


@dataclass(frozen=True)
class Known:
    """A process that cannot be mistaken for another."""

    name: str
    pid: int
    started: float
    mark: str = ""

    def process(self) -> psutil.Process | None:
        """The living process, or None."""
        try:
            if not is_it(self.pid, self.started):
                return None
            found = psutil.Process(self.pid)
            return None if found.status() == psutil.STATUS_ZOMBIE else found
        except psutil.NoSuchProcess:
            return None

    def alive(self) -> bool:
        return self.process() is not None


def known(name: str, pid: int, mark: str = "") -> Known:
    return Known(name, pid, started(pid), mark)


def end(processes: list[Known], grace_s: float) -> list[Known]:
    """SIGTERM, then SIGKILL after `grace_s`. Answers those that were still alive."""
    living = [(it, found) for it in processes if (found := it.process())]
    for _, found in living:
        with contextlib.suppress(psutil.NoSuchProcess):
            found.terminate()
    _, stubborn = psutil.wait_procs([found for _, found in living], timeout=grace_s)
    for found in stubborn:
        with contextlib.suppress(psutil.NoSuchProcess):
            found.kill()
    psutil.wait_procs(stubborn, timeout=5)
    return [it for it, _ in living]


def place(folder: Path) -> str:
    """This very folder on this boot: not a copy of it."""
    held = folder.stat()
    return f"{boot()}:{held.st_dev}:{held.st_ino}"


class Record:
    """The processes of an installation, on disk."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / RECORD
        self._of = place(folder)

    def read(self) -> list[Known]:
        """What this folder's planes started since the boot."""
        rows = read_json(self._path) or []
        return [Known(**{k: v for k, v in row.items() if k != "of"}) for row in rows if row.get("of") == self._of]

    def put(self, *processes: Known) -> None:
        """Add or replace by name and pid; what no longer lives is dropped."""
        new = {(it.name, it.pid) for it in processes}
        kept = [it for it in self.read() if (it.name, it.pid) not in new and it.alive()]
        write_json(self._path, [{**asdict(it), "of": self._of} for it in [*kept, *processes]])

    def find(self, name: str) -> Known | None:
        """The living process of that name."""
        return next((it for it in self.read() if it.name == name and it.alive()), None)

    def clear(self) -> None:
        self._path.unlink(missing_ok=True)
