"""Arming fault points, and keeping a gate and its hosts going as a supervisor would."""

import asyncio
import contextlib
import itertools
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from schemas.faults import PLAN, VARIABLE, Fault
from tests.gate.running import RunningGate

_ids = itertools.count(1)


class Arming:
    """The folder that processes of a test obey, from their start on."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder / "faults"
        self.folder.mkdir(mode=0o700)
        self._faults: list[Fault] = []
        monkeypatch.setenv(VARIABLE, str(self.folder))

    def arm(self, *points: str, act: str = "kill", nth: int = 1, seconds: float = 0.0) -> None:
        """From now on these faults and no others."""
        self._faults = [Fault(f"f{next(_ids)}", point, act, nth, seconds) for point in points]
        self.put(*self._faults)

    def put(self, *faults: Fault) -> None:
        self._faults = list(faults)
        new = self.folder / "new"
        new.write_bytes(msgspec.json.encode(self._faults))
        new.rename(self.folder / PLAN)

    def pid(self, which: int = 0) -> int | None:
        """The process that met the fault; None when none has."""
        with contextlib.suppress(FileNotFoundError, ValueError):
            return int((self.folder / f"fired-{self._faults[which].id}").read_text())
        return None

    def left(self) -> list[str]:
        """The points that nobody has passed yet."""
        return [it.point for i, it in enumerate(self._faults) if self.pid(i) is None]

    async def fired(self, which: int = 0, timeout_s: float = 30) -> int:
        limit = time.monotonic() + timeout_s
        while (pid := self.pid(which)) is None:
            assert time.monotonic() < limit, f"nobody passed {self._faults[which].point}"
            await asyncio.sleep(0.01)
        return pid


def fault(point: str, act: str = "kill", nth: int = 1, seconds: float = 0.0) -> Fault:
    return Fault(f"f{next(_ids)}", point, act, nth, seconds)


@contextlib.asynccontextmanager
async def supervised(gate: RunningGate, hosts: int = 1) -> AsyncIterator[None]:
    """Whatever of the gate and its hosts has died is started again."""

    async def keep() -> None:
        while True:
            await asyncio.sleep(0.02)
            if gate.gate is not None and gate.gate.poll() is not None:
                gate.start()
            living = [it for it in gate.hosts if it.poll() is None and not _stopped(it.pid)]
            for _ in range(hosts - len(living)):
                gate.host()

    task = asyncio.create_task(keep())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def _stopped(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "T"
    return False


def gone(pid: int) -> bool:
    """Whether the process has ended, or is a zombie."""
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except OSError:
        return True
