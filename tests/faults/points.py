"""Arming fault points, and keeping a gate and its hosts going as a supervisor would."""

import asyncio
import contextlib
import itertools
import os
import random
import time
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from schemas.faults import MOMENTS, PLAN, VARIABLE, Fault
from tests.conftest import SOAK
from tests.gate.running import RunningGate

_ids = itertools.count(1)
SEED = int(os.environ.get("STEWARD_SEED", "20261126"))
SAMPLED = (  # each of their deaths takes a host's or a world's start
    "lease", "lost", "host", "ended", "orphan", "asker", "never", "fenced", "trouble", "hold", "resend", "settle",
    "place", "drain", "node", "held", "freed", "pause", "withhold",
    "pin", "prove", "offers", "diverged",
)  # fmt: skip


def moments(unit: str) -> tuple[str, ...]:
    """At which of its points a unit of the gate meets a death: all; outside a soak one, if the unit is sampled."""
    if SOAK or unit not in SAMPLED:
        return MOMENTS
    return (random.Random(f"{SEED} {unit}").choice(MOMENTS),)


def around(*units: str) -> list[str]:
    """The points of units."""
    return [f"gate.{unit}.{it}" for unit in units for it in moments(unit)]


class Arming:
    """The folder that processes of a test obey, from their start on."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder / "faults"
        self.folder.mkdir(mode=0o700)
        self._faults: list[Fault] = []
        self._ever: list[Fault] = []
        monkeypatch.setenv(VARIABLE, str(self.folder))

    def arm(self, *points: str, act: str = "kill", nth: int = 1, seconds: float = 0.0) -> None:
        """From now on these faults and no others."""
        self._faults = [Fault(f"f{next(_ids)}", point, act, nth, seconds) for point in points]
        self.put(*self._faults)

    def put(self, *faults: Fault) -> None:
        self._faults = list(faults)
        self._ever += faults
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

    def go(self, which: int = 0) -> None:
        """Let go of a process that stands at a point."""
        (self.folder / f"go-{self._faults[which].id}").touch()

    def killed(self) -> set[str]:
        """The points at which a process has died, by the marks that it left."""
        return {it.point for it in self._ever if it.act == "kill" and (self.folder / f"fired-{it.id}").exists()}

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
