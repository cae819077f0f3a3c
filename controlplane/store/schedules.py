"""When a timer is due: every so many seconds, or by a cron expression in a time zone; and what was missed.

The next time follows from the scheduled one, never from the moment of looking: nothing drifts. Where a
zone's clocks are moved, an expression that names its minute and its hour is due once a day: a time that
the day does not have is moved to the first moment after the gap, one that it has twice is the first of
the two. Any other expression goes by the time that passes: it is due at what the clocks do show. Pure.
"""

from collections import deque
from collections.abc import Iterator
from datetime import UTC, datetime, tzinfo
from functools import lru_cache
from itertools import islice, takewhile
from typing import NamedTuple
from zoneinfo import ZoneInfo

from cronsim import CronSim

MADE_UP_MAX = 100  # the newest missed times, at most, are made up for one by one
COUNTED_MAX = 1_000  # so many missed times of a cron expression are counted, and no more


class Schedule(NamedTuple):
    """How a timer repeats; not at all, without `every_s` and `cron`."""

    every_s: float | None = None
    cron: str | None = None
    zone: str | None = None
    missed: str = "fire_once"

    @property
    def repeats(self) -> bool:
        return self.every_s is not None or self.cron is not None


class Passed(NamedTuple):
    """Scheduled times that are over: the newest of them, oldest first, and how many there were; and the next."""

    times: tuple[float, ...]
    many: int
    next_at: float | None


def first_at(schedule: Schedule, after_s: float | None, now: float) -> float | None:
    """When a timer that is set now is due first; None when never."""
    if schedule.cron is not None:
        return next(_times(schedule, now), None)
    return now + (after_s if after_s is not None else schedule.every_s or 0.0)


@lru_cache(maxsize=256)  # many timers share an expression, and are looked at in the same moment
def passed(schedule: Schedule, due_at: float, now: float) -> Passed:
    """What is over by now, from a scheduled time on."""
    if schedule.every_s is not None:
        count = max(0, int((now - due_at) / schedule.every_s)) + 1
        numbers = range(max(0, count - MADE_UP_MAX), count)
        times = tuple(due_at + number * schedule.every_s for number in numbers)
        return Passed(times, count, due_at + count * schedule.every_s)
    if schedule.cron is None:
        return Passed((due_at,), 1, None)
    newest, count = deque([due_at], MADE_UP_MAX), 1
    for at in _times(schedule, due_at):
        if at > now:
            return Passed(tuple(newest), count, at)
        if count == COUNTED_MAX:
            return Passed(_before(schedule, now), count, next(_times(schedule, now), None))
        newest.append(at)
        count += 1
    return Passed(tuple(newest), count, None)


def many_between(schedule: Schedule, after: float, until: float) -> int:
    """How often a cron expression is due after the one moment, and up to the other."""
    return sum(1 for _ in takewhile(lambda at: at <= until, _times(schedule, after)))


def _times(schedule: Schedule, after: float) -> Iterator[float]:
    """Scheduled times after a moment."""
    for found in CronSim(schedule.cron or "", datetime.fromtimestamp(after, _zone(schedule.zone))):
        if (at := found.timestamp()) > after:  # of a time that comes twice, the first may be over
            yield at


def _before(schedule: Schedule, now: float) -> tuple[float, ...]:
    """The newest scheduled times up to a moment, oldest first."""
    back = CronSim(schedule.cron or "", datetime.fromtimestamp(now, _zone(schedule.zone)), reverse=True)
    return tuple(reversed([found.timestamp() for found in islice(back, MADE_UP_MAX)]))


def _zone(name: str | None) -> tzinfo:
    return UTC if name in (None, "UTC") else ZoneInfo(name or "UTC")
