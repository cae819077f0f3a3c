"""What `machine.read` answers: this machine, by the counters that its kernel keeps.

Counters grow since boot (`*_s`, `*_bytes` of traffic), levels are of the moment. Who wants a rate
takes the difference of two readings: it then covers the time in between, whoever else reads.
"""

from typing import Literal

from pydantic import Field

from schemas.base import Frozen

What = Literal["cpu", "memory", "disks", "network", "processes"]
PROCESSES_MAX = 500


class MachineRead(Frozen):
    """The arguments of `machine.read`."""

    what: What
    limit: int = Field(default=200, ge=1, le=PROCESSES_MAX, description="Of processes: the busiest.")


class Cpu(Frozen):
    """CPU, over all cores and by core, since the last reading of this machine by anybody."""

    cpu_percent: float
    per_core_percent: list[float]
    cores: int
    load_1m: float
    running: int = Field(description="Tasks that run or wait for a core, at this moment.")
    busy_s: float = Field(description="Counter: seconds of all cores not idle.")
    total_s: float = Field(description="Counter: seconds of all cores.")
    per_core_busy_s: list[float] = Field(description="Counter, by core.")


class Memory(Frozen):
    """Memory and swap."""

    memory_percent: float
    total_bytes: int
    available_bytes: int
    swap_percent: float
    swap_used_bytes: int


class Mount(Frozen):
    """One mounted disk."""

    mount: str
    disk_percent: float
    total_bytes: int
    free_bytes: int


class Disks(Frozen):
    """Mounted disks, and the traffic of all."""

    mounts: list[Mount]
    read_bytes: int = Field(description="Counter.")
    written_bytes: int = Field(description="Counter.")


class Network(Frozen):
    """The traffic of all interfaces but loopback."""

    received_bytes: int = Field(description="Counter.")
    sent_bytes: int = Field(description="Counter.")
    interfaces: int


class ProcessReading(Frozen):
    """One process. `pid` and `started_at` together name it for good."""

    pid: int
    started_at: float
    name: str
    cmdline: str = Field(description="As one text, shortened.")
    cpu_s: float = Field(description="Counter: seconds of CPU it used.")
    rss_bytes: int
    status: str


class Processes(Frozen):
    """The processes that used most CPU since they were last looked at, then in all; and how many there are."""

    count: int
    processes: list[ProcessReading]
