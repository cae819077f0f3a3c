"""What a transaction of the committer holds: jobs, the lanes they wait in, and how statements share a call.

Pure. A job is a unit on its way: rows of SQL with the count that each must touch, all or nothing.
Lane 0 (receipts, commits) goes before lane 1 (publishes, the plane), which always keeps a share, so
that neither a flood of messages delays turns, nor turns starve the plane.

SQL marked `Many` says that it touches at most `expect` rows each time, and that it may run before
statements of *other* jobs that are marked so too; statements of one job never change their order.
Then all that are alike go to the database in one call. SQL that is not marked runs exactly in the
order of the jobs. A job that begins with a `Guard` comes behind the jobs that it builds on, or behind all.
"""

from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

JOBS_MAX = 256
BYTES_MAX = 1_048_576
LANE_1_SHARE = 4  # lane 1 gets at least one in so many of jobs and bytes

Row = tuple[str, Sequence[Any], int]


class Fixed(str):
    """SQL that is always the same, so that a database may prepare it once; it keeps its place."""

    __slots__ = ()


class Many(Fixed):
    """SQL of which many may go in one call."""

    __slots__ = ()


class Guard(Many):
    """SQL that a job begins with which builds on an earlier one: all of it comes behind that, see `Behind`."""

    __slots__ = ()


class Behind(tuple[Any, ...]):
    """Parameters of a guard, and the number of the last job that it can build on. Without one it is behind all."""

    number: int

    @classmethod
    def of(cls, params: Sequence[Any], number: int) -> "Behind":
        found = cls(params)
        found.number = number
        return found


@dataclass(slots=True, eq=False)
class Job:
    """One unit. `done(outcome, detail)` is called once, after COMMIT; outcome is ok, conflict or error.

    One that is patient may be kept a moment for others to share its transaction. Each that is submitted gets the next
    number.
    """

    rows: Sequence[Row]
    done: Callable[[str, str], None]
    lane: int = 0
    patient: bool = False
    number: int = 0


@dataclass(slots=True)
class Group:
    """One SQL text, and the parameters of every time it runs."""

    sql: str
    expect: int
    params: list[Sequence[Any]] = field(default_factory=list)

    def met(self, rowcount: int) -> bool:
        return self.expect < 0 or rowcount == self.expect * len(self.params)


def size_of(job: Job) -> int:
    """Bytes of the job's texts and blobs, about."""
    values = chain.from_iterable(params for _, params, _ in job.rows)
    return sum(len(value) for value in values if isinstance(value, str | bytes))


class Lanes:
    """Jobs that wait, each lane in its order."""

    def __init__(self) -> None:
        self._lanes: tuple[deque[Job], deque[Job]] = (deque(), deque())

    def __len__(self) -> int:
        return len(self._lanes[0]) + len(self._lanes[1])

    def put(self, job: Job) -> None:
        self._lanes[1 if job.lane else 0].append(job)

    @property
    def patient(self) -> bool:
        """Whether all that waits may be kept a moment."""
        return all(job.patient for lane in self._lanes for job in lane)

    def take(self) -> list[Job]:
        """The next batch: never empty while something waits, even if one job alone is too large."""
        first, second = self._lanes
        kept = LANE_1_SHARE if second else 0
        batch: list[Job] = []
        jobs, size = JOBS_MAX, BYTES_MAX
        if kept:
            jobs, size = jobs - jobs // kept, size - size // kept
        taken = _move(first, batch, jobs, size)
        _move(second, batch, JOBS_MAX - len(batch), BYTES_MAX - taken)
        return batch


def _move(lane: deque[Job], batch: list[Job], jobs: int, size: int) -> int:
    moved = taken = 0
    while lane and moved < jobs:
        bytes_of_job = size_of(lane[0])
        if taken + bytes_of_job > size and (moved or batch):
            break
        batch.append(lane.popleft())
        moved, taken = moved + 1, taken + bytes_of_job
    return taken


class _Ends:
    """Behind which group all jobs are that came up to a number. Each lane holds its jobs in the order of numbers."""

    def __init__(self) -> None:
        self._runs: list[tuple[list[int], list[int]]] = []

    def add(self, number: int, end: int) -> None:
        if not self._runs or self._runs[-1][0][-1] > number:
            self._runs.append(([], []))
        numbers, ends = self._runs[-1]
        numbers.append(number)
        ends.append(max(end, ends[-1]) if ends else end)

    def of(self, number: int) -> int:
        places = ((ends, bisect_right(numbers, number)) for numbers, ends in self._runs)
        return max((ends[at - 1] for ends, at in places if at), default=0)


def grouped(jobs: Sequence[Job]) -> list[Group]:
    """The calls that do all of the jobs, in an order that each job could see."""
    groups: list[Group] = []
    known: dict[tuple[str, int], int] = {}
    floor = 0  # nothing goes before the last SQL that keeps its place
    ends = _Ends()
    for job in jobs:
        after = floor
        for sql, params, expect in job.rows:
            place = known.get((sql, expect), -1) if isinstance(sql, Many) else -1
            if isinstance(sql, Guard):
                after = max(after, ends.of(params.number) if isinstance(params, Behind) else len(groups))
            if place < after:
                place = len(groups)
                groups.append(Group(sql, expect))
                if isinstance(sql, Many):
                    known[(sql, expect)] = place
                else:
                    floor = place + 1
            groups[place].params.append(params)
            after = place
        ends.add(job.number, after + 1)
    return groups
