"""Whether a peer is the confined host that it says it is, and confined.

Nothing is believed that a process says of itself: its uid is the one that was given to this host and to no
other, and what the kernel keeps of it must be confined. So a verdict may call `enforced` what is asked for
over such a connection. Whom a host serves is what was recorded of it, never what it says: a confined agent
can not have itself given another's turns or code. And who is not confined is never taken for it.
"""

import os
from pathlib import Path
from typing import NamedTuple

import msgspec

from schemas.frames import Apart
from schemas.wire import Hello

_NONE = frozenset({"0000000000000000"})
_CAPABILITIES = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")
_NAMESPACES = ("net", "mnt", "pid", "ipc")


class Known(NamedTuple):
    """What is recorded of a host: its uid, 0 where it has ours, and whom it serves."""

    uid: int
    namespace: str
    digest: str
    address: str


def apart_of(reserved: str) -> Apart | None:
    """For whom a host says that it is kept; None when agents share it, or it makes no sense."""
    try:
        return msgspec.json.decode(reserved, type=Apart) if reserved else None
    except msgspec.MsgspecError:
        return None


def is_confined(reserved: str) -> bool:
    apart = apart_of(reserved)
    return apart is not None and apart.confined


def unfit(uid: int, pid: int, said: Hello, known: Known | None, *, foreign: bool) -> str:
    """Why a peer is not taken for the host that it says it is; empty when it fits."""
    confined = is_confined(said.reserved)
    if not foreign:
        return "it is to be confined, and is not" if confined else ""
    if known is None or known.uid != uid:
        return f"uid {uid} is not that of this host"
    apart = apart_of(said.reserved)
    if apart is None or not confined or apart.address != known.address:
        return "it is kept for another agent than it says"
    if (said.namespace, said.digest) not in (("", ""), (known.namespace, known.digest)):
        return "it serves other code than it says"
    return unlike(pid, uid)


def unlike(pid: int, uid: int) -> str:
    """In what a process of that uid is not confined, by what the kernel says; empty when it is."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        status = {name: value.split() for name, _, value in (line.partition(":") for line in lines)}
        shared = [it for it in _NAMESPACES if os.readlink(f"/proc/{pid}/ns/{it}") == os.readlink(f"/proc/self/ns/{it}")]
    except OSError as error:
        return f"nothing is known of its process: {error.strerror}"
    if set(status["Uid"] + status["Gid"]) != {str(uid)} or status["Groups"]:
        return "it has more than its own uid"
    if any(set(status[it]) != _NONE for it in _CAPABILITIES):
        return "it has capabilities"
    if status["NoNewPrivs"] != ["1"] or status["Seccomp"] != ["2"]:
        return "it may become more than it is"
    return f"it shares namespaces with this machine: {', '.join(shared)}" if shared else ""
