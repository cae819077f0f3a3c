"""What the kernel says of hosts' processes; of another node's, their connections say it."""

import contextlib
import os

import psutil

from controlplane.effects.placing import Host
from controlplane.effects.wireio import Wire
from schemas.processes import is_it


def process_of(pid: int, began: float) -> psutil.Process | None:
    """The living process of a pid and start time."""
    with contextlib.suppress(psutil.Error):
        process = psutil.Process(pid)
        if is_it(pid, began) and process.status() != psutil.STATUS_ZOMBIE:
            return process
    return None


def same(host: Host, wire: Wire) -> bool:
    """Whether a connection is of the host's process."""
    return (host.pid, host.wire.node) == (wire.pid, wire.node)


def lives(host: Host) -> bool:
    """Whether a host's process is alive; of another node's its connection says so."""
    return host.wire.open if host.wire.node else process_of(host.pid, host.pid_started) is not None


def uid_of(process: psutil.Process) -> int:
    """As whom a process runs, where that is somebody else than we and root."""
    with contextlib.suppress(psutil.Error):
        uid = process.uids().real
        return 0 if uid == os.geteuid() else uid
    return 0
