"""When a process began, counted from the boot of its machine: with its pid, what it can't be mistaken by.

A time of day will not do: whoever sets the clock of the machine would make every process a stranger.
"""

import os
import sys
from pathlib import Path

SAME_START_S = 0.05
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"  # of this process; a turn replays on no other
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_START = 19  # the place after the name, which may hold anything


def started(pid: int) -> float:
    """Seconds from the boot to the start of a process; raises ProcessLookupError when there is none."""
    try:
        line = Path(f"/proc/{pid}/stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        raise ProcessLookupError(f"there is no process {pid}") from None
    return int(line.rpartition(b")")[2].split()[_START]) / _TICKS_PER_S


def is_it(pid: int, began: float) -> bool:
    """Whether the process of a pid is the one that began then; a zombie counts as itself."""
    try:
        return abs(started(pid) - began) < SAME_START_S
    except ProcessLookupError:
        return False


def is_stopped(pid: int) -> bool:
    """Whether somebody stopped it (SIGSTOP, Ctrl-Z); one that a debugger holds for a moment is not."""
    try:
        line = Path(f"/proc/{pid}/stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return line.rpartition(b")")[2].split()[0] == b"T"


def door_of(socket: Path) -> Path:
    """The gate's other socket, for confined hosts: in a folder that holds nothing else, which they are shown."""
    return socket.parent / "confined" / socket.name


def boot() -> str:
    """The boot that starts are counted from."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
