"""One piece of work on a database, in a thread: stopped from outside, and never committed after that.

Drivers of databases block, so the gate's loop only waits. Who gives up says so under a lock: work that is
not at its commit by then never will be, so that what was given up before is known not to have happened.
The statement that still runs is cancelled where the driver can.
"""

import asyncio
import contextlib
import threading
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Any

from controlplane.resources.problems import refuse
from schemas.ports import Doubt

PATIENCE = 0.85  # of the connection's timeout: whoever waits for the answer knows it before he gives up
CANCEL_S = 2.0


class Stopped(Exception):  # noqa: N818 - a state: whoever waited has given up
    """It is too late to go on."""


class Work:
    """What a thread does, and what is known of it from outside."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._raw: Any = None
        self._stopped = False
        self._committing = False

    def uses(self, raw: Any) -> None:
        """The driver's connection that it is done on; raises Stopped."""
        with self._lock:
            self._require()
            self._raw = raw

    def commits(self) -> None:
        """Right before the commit; raises Stopped. After it, nobody stops the work."""
        with self._lock:
            self._require()
            self._committing = True

    def ended(self) -> None:
        """The driver's connection is another's from now on."""
        with self._lock:
            self._raw = None

    @property
    def committing(self) -> bool:
        return self._committing

    @property
    def stopped(self) -> bool:
        return self._stopped

    def stop(self) -> bool:
        """Whether it is certain now that nothing will be committed."""
        with self._lock:
            self._stopped = not self._committing
            return self._stopped

    def cancel(self) -> None:
        """End the statement that runs; blocks for a moment. What can not be cancelled ends when it ends."""
        with self._lock, contextlib.suppress(Exception):
            if self._raw is None or not self._stopped:
                return
            if hasattr(self._raw, "cancel_safe"):
                self._raw.cancel_safe(timeout=CANCEL_S)
            elif hasattr(self._raw, "interrupt"):
                self._raw.interrupt()

    def _require(self) -> None:
        if self._stopped:
            raise Stopped


async def done(pool: Executor, act: Callable[[Work], Any], timeout_s: float, effect: str) -> Any:
    """What `act` answers, in a thread of the pool; refused when it takes too long to be committed."""
    work, loop = Work(), asyncio.get_running_loop()
    task = loop.run_in_executor(pool, act, work)
    patience_s = timeout_s * PATIENCE
    try:
        ended, _ = await asyncio.wait((task,), timeout=patience_s)
        if not ended and work.stop():
            detail = f"{effect} did not end within {patience_s:.3g} s; it was cancelled, and nothing of it is written"
            raise refuse("EFFECT_FAILED", detail, effect=effect, error="Timeout")
        return await asyncio.shield(task)
    except Stopped:
        raise Doubt("was given up") from None
    finally:
        if not task.done():
            work.stop()
            task.add_done_callback(_heard)
            loop.run_in_executor(None, work.cancel)


def _heard(task: "asyncio.Future[Any]") -> None:
    """What came of work that nobody waits for."""
    if not task.cancelled():
        task.exception()
