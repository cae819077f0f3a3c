"""`machine.read`: this machine, as its kernel counts it. The built-in effector.

It reads and changes nothing, so doing it twice is doing it once. Reading is done in a thread: the
files of `/proc` are many, and the gate's loop waits for nobody. What the kernel does not tell in
this place (disks in a container, a process of somebody else) is left out or zero, never guessed.
"""

import asyncio
import contextlib
import threading
from collections.abc import Callable
from math import inf
from pathlib import Path
from typing import Any

import psutil
from pydantic import BaseModel

from schemas.endpoint import ConnectionSpec
from schemas.machine import Cpu, Disks, MachineRead, Memory, Mount, Network, Processes, ProcessReading, What
from schemas.ports import EffectCall
from schemas.protocols import Declaration

COMMAND_CHARS = 200
ROOT = "/"
STAT = Path("/proc/stat")
LOOPBACK = "lo"
_OF_PROCESS = ["pid", "create_time", "name", "cmdline", "cpu_times", "memory_info", "status"]
_Known = dict[tuple[int, float], float]


class MachineEffector:
    """Reads the machine that the gate runs on."""

    name = "machine.read"
    protocol: str | None = None
    timeout_s = 10.0
    reads_only = True
    arguments: type[BaseModel] = MachineRead

    def __init__(self) -> None:
        self._reading = threading.Lock()  # what was seen last belongs to one reading at a time
        self._cores = _core_times()
        self._known: _Known = {}

    def repeats_for_s(self, arguments: BaseModel, spec: ConnectionSpec | None) -> float:
        return inf

    async def ready(self) -> None:
        """It is, once it is made."""

    async def execute(self, arguments: BaseModel, call: EffectCall) -> Any:
        """The reading, as JSON."""
        asked = MachineRead.model_validate(arguments, from_attributes=True)
        return await asyncio.to_thread(self._read, asked)

    def _read(self, asked: MachineRead) -> Any:
        readers: dict[What, Callable[[], BaseModel]] = {
            "cpu": self._cpu,
            "memory": _memory,
            "disks": _disks,
            "network": _network,
            "processes": lambda: self._processes(asked.limit),
        }
        with self._reading:
            return readers[asked.what]().model_dump(mode="json")

    def _cpu(self) -> Cpu:
        before, now = self._cores, _core_times()
        self._cores = now
        steps = [(b - bb, t - bt) for (b, t), (bb, bt) in zip(now, before, strict=False)]
        return Cpu(
            cpu_percent=_percent(sum(b for b, _ in steps), sum(t for _, t in steps)),
            per_core_percent=[_percent(b, t) for b, t in steps],
            cores=len(now),
            load_1m=round(psutil.getloadavg()[0], 2),
            running=_running(),
            busy_s=round(sum(b for b, _ in now), 2),
            total_s=round(sum(t for _, t in now), 2),
            per_core_busy_s=[round(b, 2) for b, _ in now],
        )

    def _processes(self, limit: int) -> Processes:
        seen = [process for process in map(_process, psutil.process_iter(_OF_PROCESS)) if process is not None]
        known, self._known = self._known, {(p.pid, p.started_at): p.cpu_s for p in seen}
        seen.sort(key=lambda p: (p.cpu_s - known.get((p.pid, p.started_at), 0.0), p.cpu_s), reverse=True)
        return Processes(count=len(seen), processes=seen[:limit])


def _core_times() -> list[tuple[float, float]]:
    """Busy and all seconds of each core since boot."""
    times = []
    for core in psutil.cpu_times(percpu=True):
        total = core.user + core.nice + core.system + core.idle + core.iowait + core.irq + core.softirq + core.steal
        times.append((total - core.idle - core.iowait, total))
    return times


def _running() -> int:
    """Tasks on a core or waiting for one. Use stops at 100 %; this goes on where a machine has too much to do."""
    for line in STAT.read_text().splitlines():
        if line.startswith("procs_running "):
            return int(line.split()[1])
    return 0


def _percent(part: float, whole: float) -> float:
    return round(min(100.0, max(0.0, 100.0 * part / whole)), 1) if whole > 0 else 0.0


def _memory() -> Memory:
    memory, swap = psutil.virtual_memory(), psutil.swap_memory()
    return Memory(
        memory_percent=memory.percent,
        total_bytes=memory.total,
        available_bytes=memory.available,
        swap_percent=swap.percent,
        swap_used_bytes=swap.used,
    )


def _disks() -> Disks:
    places = dict.fromkeys([ROOT, *(part.mountpoint for part in psutil.disk_partitions(all=False))])
    mounts = []
    for place in places:
        with contextlib.suppress(OSError):  # unmounted meanwhile, or not for us to see
            usage = psutil.disk_usage(place)
            mounts.append(
                Mount(mount=place, disk_percent=usage.percent, total_bytes=usage.total, free_bytes=usage.free)
            )
    traffic = None
    with contextlib.suppress(OSError, NotImplementedError, RuntimeError):  # a container may not be told
        traffic = psutil.disk_io_counters()
    return Disks(
        mounts=mounts,
        read_bytes=traffic.read_bytes if traffic else 0,
        written_bytes=traffic.write_bytes if traffic else 0,
    )


def _network() -> Network:
    counters = {name: each for name, each in psutil.net_io_counters(pernic=True).items() if name != LOOPBACK}
    return Network(
        received_bytes=sum(each.bytes_recv for each in counters.values()),
        sent_bytes=sum(each.bytes_sent for each in counters.values()),
        interfaces=len(counters),
    )


def _process(process: psutil.Process) -> ProcessReading | None:
    """One process; None for one that ended while it was looked at."""
    info: dict[str, Any] = process.info
    times, memory = info["cpu_times"], info["memory_info"]
    if times is None or memory is None or info["create_time"] is None:
        return None
    command = " ".join(info["cmdline"] or []) or f"[{info['name']}]"
    return ProcessReading(
        pid=info["pid"],
        started_at=info["create_time"],
        name=_text(info["name"] or "?"),
        cmdline=_text(command if len(command) <= COMMAND_CHARS else command[: COMMAND_CHARS - 1] + "…"),
        cpu_s=round(times.user + times.system, 2),
        rss_bytes=memory.rss,
        status=info["status"] or "?",
    )


def _text(raw: str) -> str:
    """Names are bytes to the kernel; what is no UTF-8 in them is shown as such."""
    return raw.encode("utf-8", "backslashreplace").decode()


PROTOCOL = Declaration("machine", lambda _: (MachineEffector(),), connects=False)
