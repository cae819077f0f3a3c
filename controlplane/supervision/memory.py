"""Memory that was freed goes back to the system, so that an hour of large bodies is not kept for life.

glibc learns from large blocks that were freed to keep more of their kind, and keeps them in many arenas. A
plane holds large bodies now and then, and many of them only under attack: blocks from a fixed size on are
mapped one by one and unmapped when they are freed. Elsewhere than on glibc nothing is done.
"""

import ctypes

MAPPED_FROM_BYTES = 65_536
KEPT_BYTES_MAX = 131_072
ARENAS_MAX = 2
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8  # of <malloc.h>


def give_freed_memory_back() -> None:
    """For this process, before it starts a thread."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return
    for option, value in (
        (_MMAP_THRESHOLD, MAPPED_FROM_BYTES),
        (_TRIM_THRESHOLD, KEPT_BYTES_MAX),
        (_ARENA_MAX, ARENAS_MAX),
    ):
        mallopt(option, value)
