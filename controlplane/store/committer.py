"""The one writer: a thread that commits jobs in groups, each job all or nothing.

It takes what waits (one batch), does it in one transaction, and only after COMMIT tells each job
its outcome, all of a batch in one delivery. Where any part of a batch misses its count or fails, the
transaction is rolled back and the jobs are done again one by one, each under a savepoint: then a bad
job harms nobody but itself. No job ends the thread; should anything else end it, `died` is called.
An `error` is told only of jobs that certainly did not commit (or says IN_DOUBT, when the end came
first); its detail starts with a reason of the catalogue. A lost database is waited for, for a while,
and the batch done again on the new connection.
"""

import queue
import threading
import time
from collections.abc import Callable, Sequence

from controlplane.store.batching import Job, Lanes, Many, Row, grouped
from controlplane.store.connection import RECONNECT_S, Connection, Ended, InDoubt, Lost, connect, described
from schemas import faults

__all__ = ["Committer", "Delivery", "Job", "Many", "Row"]

AWAY_S_MAX = 10.0
REST_AFTER_S = 0.05
PATIENCE_S = 0.002  # for what follows from a patient job: a turn's next effect, or its end
OK = ("ok", "")
CONFLICT = ("conflict", "")
Outcome = tuple[str, str]
Delivery = list[tuple[Job, str, str]]


def deliver_here(delivery: Delivery) -> None:
    """Tell each job on the committer's own thread."""
    for job, outcome, detail in delivery:
        job.done(outcome, detail)


class Committer(threading.Thread):
    """Opens the database when made, so that a wrong url fails there; `start`, `submit`, `stop`."""

    def __init__(
        self,
        url: str,
        deliver: Callable[[Delivery], None] = deliver_here,
        sole: str | None = None,
        died: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__(name="committer", daemon=True)
        self._died = died
        self._deliver = deliver
        self.last = 0  # the number of the job that was submitted last
        self._submitted: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._lanes = Lanes()
        self._stopping = threading.Event()
        self._ended = False
        self._restless = False
        self._connection: Connection = connect(url, self._stopping.wait, sole)

    def submit(self, job: Job) -> None:
        """From any thread. The job's outcome comes by `deliver`. Numbers follow the order of one thread's calls."""
        self.last = job.number = self.last + 1
        self._submitted.put(job)
        if self._ended:
            self._refuse_rest()

    def hurry(self) -> None:
        """Somebody waits for what is patient."""
        self.submit(Job((), lambda outcome, detail: None))

    @property
    def waiting(self) -> int:
        """How many jobs wait, about."""
        return self._submitted.qsize() + len(self._lanes)

    def stop(self, timeout_s: float = 10) -> None:
        """Commit what was submitted before, and end."""
        self._submitted.put(None)
        if self.is_alive():
            self.join(timeout_s / 2)
            self._stopping.set()  # gives up on a database that is away
            self.join(timeout_s / 2)
        else:
            self._refuse_rest()

    def run(self) -> None:
        try:
            while self._gather():
                batch = self._lanes.take()
                outcomes = self._settle(batch)
                self._restless = True
                faults.at("store.committed")
                self._deliver([(job, *outcome) for job, outcome in zip(batch, outcomes, strict=True)])
        except BaseException:  # the end of the thread, whatever it was: told, and raised on
            self._died()
            raise
        finally:
            self._ended = True
            self._refuse_rest()
            self._connection.close()

    def _gather(self) -> bool:
        """Take in what was submitted; wait while that is nothing, and a moment while all is patient. False: the end."""
        going = self._take_in(0.0)
        while going and not len(self._lanes):
            going = self._take_in(REST_AFTER_S if self._restless else None)
            if going and not len(self._lanes):
                self._rest()
        kept_until = time.monotonic() + PATIENCE_S
        while going and self._lanes.patient and (left := kept_until - time.monotonic()) > 0:
            going = self._take_in(left)
        return len(self._lanes) > 0

    def _take_in(self, wait_s: float | None) -> bool:
        """What was submitted, if the first of it comes in time; False when that is all that will come."""
        try:
            job = self._submitted.get(timeout=wait_s)
            while job is not None:
                self._lanes.put(job)
                job = self._submitted.get_nowait()
        except queue.Empty:
            return True
        self._submitted.put(None)  # stays the last one, until the lanes are empty
        return False

    def _rest(self) -> None:
        self._restless = False
        try:
            self._connection.rest()
        except self._connection.faults:  # the next commit meets the same trouble, and has somebody to tell
            self._connection.rollback()

    def _refuse_rest(self) -> None:
        waiting = []
        while len(self._lanes):
            waiting += self._lanes.take()
        while not self._submitted.empty():
            job = self._submitted.get()
            waiting += [job] if job is not None else []
        if waiting:
            self._deliver([(job, "error", "NOT_READY: the writer has ended") for job in waiting])

    def _settle(self, batch: Sequence[Job]) -> list[Outcome]:
        """The outcome of each job; waits for a database that is away, up to a bound."""
        give_up_at = time.monotonic() + AWAY_S_MAX
        while True:
            try:
                outcomes = self._together(batch) or self._separately(batch)
            except Lost as lost:
                if not self._reconnected(give_up_at):
                    return [("error", described(lost))] * len(batch)
            except InDoubt as doubt:
                return [("error", described(doubt))] * len(batch)
            else:
                return outcomes or [self._settle([job])[0] for job in batch]

    def _reconnected(self, give_up_at: float) -> bool:
        while not self._connection.reopen():
            if time.monotonic() > give_up_at or self._stopping.wait(RECONNECT_S):
                return False
        return time.monotonic() <= give_up_at

    def _together(self, batch: Sequence[Job]) -> list[Outcome] | None:
        """All in one transaction, or nothing of them."""
        try:
            faults.at("store.begin")
            if self._connection.whole(grouped(batch)):
                return [OK] * len(batch)
        except self._connection.faults as error:
            if len(batch) == 1:
                self._connection.rollback()
                return [("error", described(error))]
        self._connection.rollback()
        return [CONFLICT] if len(batch) == 1 else None

    def _separately(self, batch: Sequence[Job]) -> list[Outcome] | None:
        """Each by itself under a savepoint, in one transaction; None when that one failed as a whole."""
        try:
            self._connection.begin()
        except self._connection.faults as error:  # nobody's fault here: the database is locked or gone wrong
            self._connection.rollback()
            return [("error", described(error))] * len(batch)
        undone: tuple[type[Exception], ...] = (Ended, *self._connection.faults)
        try:
            outcomes = [self._attempt(job) for job in batch]
            self._connection.commit()
        except undone:
            self._connection.rollback()
            return None
        return outcomes

    def _attempt(self, job: Job) -> Outcome:
        try:
            return OK if self._connection.attempt(grouped([job])) else CONFLICT
        except self._connection.faults as error:
            return "error", described(error)
