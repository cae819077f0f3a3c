"""What a gate of the tests holds, counted from within when a signal asks for it."""

import asyncio
import gc
import os
import signal
from collections import Counter
from collections.abc import Collection
from functools import partial
from pathlib import Path
from typing import Any

import orjson

from controlplane.effects.handing import Answer, Handed
from controlplane.effects.slots import Slot
from controlplane.effects.turnref import TurnRef

COUNTED = (Slot, TurnRef, Handed, Answer)
NONE: dict[str, int] = {it.__name__: 0 for it in COUNTED}
NAMED = "resting"  # what the names of those agents begin with that are looked for
NAMES_MIN = 50  # of them, in one collection: more than what is just being written


def listen(path: Path) -> None:
    """On SIGUSR1, write to a file what there is by then; on the loop that runs."""
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, partial(_write, path))


def _write(path: Path) -> None:
    gc.collect()
    there = gc.get_objects()
    found: dict[str, Any] = NONE | Counter(type(it).__name__ for it in there if isinstance(it, COUNTED))
    found["timers"] = sum("TimerHandle" in type(it).__name__ and not it.cancelled() for it in there)
    plain = {id(it): it for it in gc.get_referents(*there) if isinstance(it, dict)}  # of words alone: gc knows them not
    kept = [*plain.values(), *(it for it in there if isinstance(it, list | set))]
    found["naming"] = [repr(it)[:200] for it in kept if _named(it) >= NAMES_MIN]
    made = path.with_suffix(".part")
    made.write_bytes(orjson.dumps(found))
    os.replace(made, path)


def _named(it: Collection[Any]) -> int:
    """How many names, or uids, of such agents a collection has, as they are or in pairs and the like."""
    parts = [*it, *it.values()] if isinstance(it, dict) else list(it)
    flat = [word for part in parts for word in (part if isinstance(part, tuple) else (part,))]
    return len({word for word in flat if isinstance(word, str) and word.startswith((NAMED, f"agent_{NAMED}"))})
