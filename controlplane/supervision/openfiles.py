"""How many files and sockets this process may have open: raised to what the system allows, within reason.

Two thousand readers are two thousand sockets, and many systems begin with 1,024. A limit that can not be
raised lowers what the plane offers instead: it takes fewer connections, and says so.
"""

import resource

WANTED = 65_536
RESERVED = 512  # files, databases, children, the listener


def allow_open_files() -> int:
    """Raise the soft limit as far as the hard one goes, and answer it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = WANTED if hard == resource.RLIM_INFINITY else min(WANTED, hard)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return WANTED if soft == resource.RLIM_INFINITY else soft
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return wanted


def connections_possible(wanted: int) -> int:
    """How many of the wanted connections the limit leaves room for."""
    return max(16, min(wanted, allow_open_files() - RESERVED))
