"""One step of a handler: from one await to the next, watched.

While a step runs, its thread has no event loop to give: what stands in its place refuses every use,
so tasks, timers, foreign futures and executors end in a Problem. So do threads and processes that a
step starts. The violation is remembered: a handler that swallows the exception ends its turn all
the same. CPU time is that of the thread, measured around each step.
"""

import _thread
import asyncio
import sys
import threading
import time
from collections.abc import Callable
from contextvars import Context
from typing import Any

from ray_runtime.problems import problem
from schemas.problem import Problem, Refusal

_PROCESS_EVENTS = frozenset({"os.fork", "os.forkpty", "os.posix_spawn", "os.spawn", "os.system", "subprocess.Popen"})
_local = threading.local()
_start_new_thread = _thread.start_new_thread
_installed = False


class Steps:
    """The steps of one attempt at a turn: their CPU time, and what they must not have done."""

    def __init__(self) -> None:
        self.violation: Problem | None = None
        self._cpu_ns = 0
        self._context = Context()

    def run(self, call: Callable[..., Any], *args: Any) -> Any:
        """Run one step; raises what it raises."""
        loop = asyncio._get_running_loop()
        outer = getattr(_local, "steps", None)
        _local.steps = self
        asyncio._set_running_loop(_NO_LOOP)  # type: ignore[arg-type]
        started = time.thread_time_ns()
        try:
            return self._context.run(call, *args)
        finally:
            self._cpu_ns += time.thread_time_ns() - started
            asyncio._set_running_loop(loop)
            _local.steps = outer

    def take_cpu_ns(self) -> int:
        """CPU time since the last time."""
        taken, self._cpu_ns = self._cpu_ns, 0
        return taken

    def violate(self, what: str) -> Refusal:
        """Remember what can not be replayed; answers the Refusal to raise."""
        if self.violation is None:
            detail = f"{what}: a handler awaits only what its turn gives (ask, sleep, perform), and starts nothing"
            self.violation = problem("NONDETERMINISTIC", detail, what=what)
        return Refusal(self.violation)


class _NoLoop:
    """Stands where the running event loop would be."""

    def __getattr__(self, name: str) -> Any:
        steps: Steps | None = getattr(_local, "steps", None)
        if steps is None or name.startswith("__"):
            raise AttributeError(name)
        raise steps.violate(f"the handler used the event loop ({name})")


_NO_LOOP = _NoLoop()


def install() -> None:
    """Watch the starts of threads and processes, from now on in this process."""
    global _installed
    if _installed:
        return
    _installed = True
    _thread.start_new_thread = _guarded_start
    threading._start_new_thread = _guarded_start  # type: ignore[attr-defined]
    sys.addaudithook(_audit)


def _guarded_start(*args: Any, **kwargs: Any) -> Any:
    steps: Steps | None = getattr(_local, "steps", None)
    if steps is not None:
        raise steps.violate("the handler started a thread")
    return _start_new_thread(*args, **kwargs)


def _audit(event: str, _args: tuple[Any, ...]) -> None:
    if event in _PROCESS_EVENTS:
        steps: Steps | None = getattr(_local, "steps", None)
        if steps is not None:
            raise steps.violate(f"the handler started a process ({event})")
