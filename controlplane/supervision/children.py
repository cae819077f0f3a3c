"""A supervised child: started in its own session, adopted after a plane's death, restarted when it dies.

The child outlives the plane on purpose: kill -9 of the plane must not stop an agent. What a
killed plane left is adopted if its mark (a digest of the settings it runs with) is ours, and
ended otherwise.
"""

import logging
import os
import select
import subprocess
import threading
import time
from collections.abc import Mapping
from pathlib import Path

from tenacity import RetryCallState, wait_exponential

from controlplane.supervision.processes import Known, Record, end, known
from controlplane.supervision.spares import Spare

log = logging.getLogger("steward.supervision")
STABLE_S = 30
STAYS_S = 5.0
ENDS_MIN = 3
WORDS_BYTES = 2_000
_GROWTH = wait_exponential(multiplier=0.1, max=5)


class Child:
    """One child process, by name."""

    def __init__(
        self,
        name: str,
        command: list[str],
        env: Mapping[str, str],
        record: Record,
        logs: Path,
        mark: str,
        *,
        spare: bool = False,
    ) -> None:
        self.name = name
        self.restarts = 0
        self._command = command
        self._env = dict(env)
        self._record = record
        self._out = logs / f"{name}.out"
        self._mark = mark
        self._spare = Spare(command, env, self._out) if spare else None
        self._known: Known | None = None
        self._popen: subprocess.Popen[bytes] | None = None
        self._born = 0.0
        self._failures = 0
        self._not_before = 0.0
        self._lock = threading.Lock()
        self._ended = False

    @property
    def process(self) -> Known | None:
        return self._known

    def alive(self) -> bool:
        if self._popen is not None and self._popen.poll() is not None:
            return False
        return self._known is not None and self._known.alive()

    @property
    def trouble(self) -> str:
        """That it ends again and again, and where its last words are; empty when it stays.

        The words themselves go to the plane's log: this is told to who has no good token yet.
        """
        if self._failures < ENDS_MIN or (self.alive() and time.monotonic() - self._born > STAYS_S):
            return ""
        return (
            f"The {self.name} ended {self._failures} times in a row soon after its start; its last words are in "
            f"{self._out.name}, in the data folder's logs. It is started again and again."
        )

    def ensure(self) -> bool:
        """Start, adopt or restart as needed. Answers whether a new process was started."""
        with self._lock:
            if self._ended:
                return False
            if self.alive():
                if self._spare is not None:
                    self._spare.keep(self._born)
                return False
            if self._known is None and self._adopt():
                return False
            if time.monotonic() < self._not_before:
                return False
            self._start()
            return True

    def _adopt(self) -> bool:
        left = self._record.find(self.name)
        if left is None:
            return False
        if left.mark != self._mark:
            log.info("ending %s of an earlier plane, which ran with other settings", self.name)
            end([left], grace_s=10)
            return False
        log.info("adopted %s, pid %d", self.name, left.pid)
        self._known = left
        return True

    def _start(self) -> None:
        if self._known is not None:
            self._failures = 0 if time.monotonic() - self._born > STABLE_S else self._failures + 1
            self.restarts += 1
            said = _last_line(self._out)
            log.warning("%s (pid %d) is gone; starting it again. It said: %s", self.name, self._known.pid, said)
        self._popen = (self._spare.take() if self._spare is not None else None) or self._new()
        self._born = time.monotonic()
        self._not_before = self._born + _delay_s(self._failures)
        self._known = known(self.name, self._popen.pid, self._mark)
        self._record.put(self._known)

    def _new(self) -> "subprocess.Popen[bytes]":
        with self._out.open("ab") as out:
            return subprocess.Popen(
                self._command,
                env=self._env,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
                cwd=self._out.parent,
            )

    def watch(self, look_s: float) -> None:
        """Wait so long, or until it ends, whichever is first; the kernel says so at once, of an adopted one too."""
        if self._known is None or not self.alive():
            time.sleep(look_s)
            return
        try:
            descriptor = os.pidfd_open(self._known.pid)
        except ProcessLookupError:
            return
        try:
            ends = select.poll()
            ends.register(descriptor, select.POLLIN)
            ends.poll(look_s * 1000)
        finally:
            os.close(descriptor)

    def end(self, grace_s: float) -> None:
        """End the process; the next `ensure` starts another."""
        with self._lock:
            if self._known is not None:
                end([self._known], grace_s)
            if self._popen is not None:
                self._popen.wait(timeout=5)

    def stop(self, grace_s: float) -> None:
        """End it for good."""
        self._ended = True
        self.end(grace_s)
        with self._lock:
            if self._spare is not None:
                self._spare.end()


def _last_line(path: Path) -> str:
    if not path.exists():
        return "nothing"
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - WORDS_BYTES))
        lines = file.read().decode(errors="replace").split("\n")
    return next((it.strip() for it in reversed(lines) if it.strip()), "nothing")


def _delay_s(failures: int) -> float:
    """How long to wait before the next start, from tenacity's growth."""
    state = RetryCallState(retry_object=None, fn=None, args=(), kwargs={})  # type: ignore[arg-type]
    state.attempt_number = failures + 1
    return float(_GROWTH(state)) if failures else 0.0
