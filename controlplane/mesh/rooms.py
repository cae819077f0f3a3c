"""How much more an inbox or a queue takes: counted once for many messages, and never for each one that is refused.

What is counted is good for some hundred messages, and for as many more as a quarter of it, so that counting costs each
of them the same. Of what is full nothing is counted for a moment: whoever is refused shall come again later anyway;
and what is freed meanwhile is known, and given out. It is in memory: after a death the first message is counted for.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

RECOUNT = 256
RETRY_AFTER_S = 1.0  # whoever is refused comes again after so long; until then what is full stays so


@dataclass(slots=True)
class _Room:
    """What may come before it is counted again; `until` when, if that found it full."""

    left: int
    until: float = 0.0


class Rooms:
    """The room of whatever takes messages, by its uid."""

    def __init__(self, kept_max: int, steady: Callable[[], float] = time.monotonic) -> None:
        self._kept_max = kept_max
        self._steady = steady
        self._of: dict[str, _Room] = {}

    def counts(self, uid: str) -> bool:
        """Whether the next `full` counts."""
        room = self._of.get(uid)
        return room is None or (room.left <= 0 and room.until <= self._steady())

    def full(self, uid: str, most: int, count: Callable[[], int]) -> bool:
        """Whether it takes no more than it has; each False is room for one message. `count` answers up to `most`."""
        if self.counts(uid):
            waiting = count()
            if len(self._of) >= self._kept_max:
                self._of.clear()
            if waiting >= most:
                self._of[uid] = _Room(0, self._steady() + RETRY_AFTER_S)
            else:
                self._of[uid] = _Room(min(max(RECOUNT, waiting // 4), most - waiting))
        room = self._of[uid]
        if room.left <= 0:
            return True
        room.left -= 1
        return False

    def freed(self, uid: str, many: int = 1) -> None:
        """So many have left what was found full a moment ago; else that is seen when it is counted again.

        For no longer: what comes in without being asked for, as what a leaver gives back, is seen only then, too.
        """
        room = self._of.get(uid)
        if room is not None and room.until > self._steady():
            room.left += many
