"""The lease of a host: kept by a thread of its own, on a connection of its own.

A handler that never comes back must not look like a dead host: the thread goes on renewing, and
says how long the turn loop has not answered it, so that the gate can tell wedged from gone. The same
thread ends the process when the gate, or the installation's folder, has been gone for too long: a
wedged loop could not. It takes no part in turns.
"""

import asyncio
import os
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

from ray_runtime.connection import packed
from schemas import faults
from schemas.frames import Frame
from schemas.wire import Lease, LeaseHello

TICK_S = 0.25
GONE_S = 30.0
LAG_NOTED_MS = 1000.0
EXIT_GRACE_S = 2.0


class LeaseThread(threading.Thread):
    """Renews, measures the loop's lag, and ends what has no installation any more."""

    def __init__(
        self,
        path: Path,
        host_id: str,
        loop: asyncio.AbstractEventLoop,
        *,
        running: Callable[[], int],
        end: Callable[[str], None],
        gone_s: float = GONE_S,
        holding: Callable[[], tuple[str, float]] = lambda: ("", 0.0),
    ) -> None:
        super().__init__(name=f"lease-{host_id}", daemon=True)
        self.renew_s: float | None = None  # no lease before the gate has welcomed the host
        self._path = path
        self._host_id = host_id
        self._loop = loop
        self._running = running
        self._end = end
        self._gone_s = gone_s
        self._holding = holding
        self._stopped = threading.Event()
        self._socket: socket.socket | None = None
        self._seen_at = time.monotonic()
        self._asked_at = 0.0  # when the loop was asked and has not answered yet; 0: not asked
        self._lag_ms = 0.0

    def seen(self) -> None:
        """The gate is there: the turn connection stands."""
        self._seen_at = time.monotonic()

    def stop(self) -> None:
        """End the thread in good order."""
        self._stopped.set()

    def run(self) -> None:
        renewed_at = 0.0
        while not self._stopped.wait(TICK_S):
            lag_ms = self._measure()
            now = time.monotonic()
            due = self.renew_s is not None and now - renewed_at >= self.renew_s
            if due or (self.renew_s is not None and lag_ms >= LAG_NOTED_MS):
                renewed_at = now
                self._renew(lag_ms)
            if now - self._seen_at > self._gone_s or not self._path.parent.is_dir():
                self._end_process()
                return
        self._close()

    def _measure(self) -> float:
        """How long the loop has not answered, or took to answer the last time."""
        if self._asked_at:
            return max(self._lag_ms, (time.monotonic() - self._asked_at) * 1000)
        lag_ms, self._lag_ms = self._lag_ms, 0.0
        self._asked_at = time.monotonic()
        try:
            self._loop.call_soon_threadsafe(self._answered)
        except RuntimeError:  # the loop is closed: the host is ending
            self._stopped.set()
        return lag_ms

    def _answered(self) -> None:
        self._lag_ms = (time.monotonic() - self._asked_at) * 1000
        self._asked_at = 0.0

    def _renew(self, lag_ms: float) -> None:
        try:
            if self._socket is None:
                self._socket = self._connect()
            faults.at("host.lease")
            turn_id, since = self._holding()
            held_ms = (time.monotonic() - since) * 1000 if turn_id else 0.0
            self._send(Lease(self._host_id, lag_ms, self._running(), turn_id, held_ms))
            self.seen()
        except OSError:
            self._close()

    def _connect(self) -> socket.socket:
        opened = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        opened.settimeout(TICK_S * 4)
        try:
            opened.connect(str(self._path))
            opened.sendall(packed(LeaseHello(self._host_id)))
        except OSError:
            opened.close()
            raise
        return opened

    def _send(self, frame: Frame) -> None:
        assert self._socket is not None
        self._socket.sendall(packed(frame))

    def _close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _end_process(self) -> None:
        """Ask the loop to end; a loop that does not answer is ended with the process."""
        self._close()
        reason = "the installation is gone"
        self._loop.call_soon_threadsafe(self._end, reason)
        if not self._stopped.wait(EXIT_GRACE_S):
            os._exit(1)
