"""A spare: a process that has imported what it needs, and waits to be told to begin.

A child that dies is replaced by its spare, which saves the second that imports take while everybody waits.
The next one is made when the child has been there for a while, so that a start and a child that ends again
and again are not slowed by it; behind one that took a place, sooner. A spare ends with whoever keeps it: its
standard input ends then.
"""

import contextlib
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

AFTER_S, AGAIN_S = 5.0, 1.0
ENDED_S_MAX = 5.0


class Spare:
    """One process ahead of need, of the same command as the child."""

    def __init__(self, command: list[str], env: Mapping[str, str], out: Path) -> None:
        self._command = [*command, "--spare"]
        self._env = dict(env)
        self._out = out
        self._made = time.monotonic()
        self._after_s = AFTER_S
        self._popen: subprocess.Popen[bytes] | None = None

    def keep(self, born: float) -> None:
        """There is one, once the child that was born then has been there for a while."""
        if self._popen is not None and self._popen.poll() is None:
            return
        if time.monotonic() - max(born, self._made) < self._after_s:
            return
        self._made = time.monotonic()
        with self._out.open("ab") as out:
            self._popen = subprocess.Popen(
                self._command,
                env=self._env,
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=out,
                start_new_session=True,
                cwd=self._out.parent,
            )

    def take(self) -> "subprocess.Popen[bytes] | None":
        """Let it begin, and be it; None when there is none."""
        popen, self._popen = self._popen, None
        if popen is None or popen.poll() is not None or popen.stdin is None:
            return None
        with contextlib.suppress(OSError):
            popen.stdin.write(b"begin\n")
            popen.stdin.close()
            self._after_s = AGAIN_S
            return popen
        return None

    def end(self) -> None:
        """It is not needed any more."""
        popen, self._popen = self._popen, None
        if popen is not None:
            popen.kill()
            popen.wait(timeout=ENDED_S_MAX)
            assert popen.stdin is not None
            popen.stdin.close()
