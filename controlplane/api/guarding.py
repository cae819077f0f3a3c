"""The guard over all connections of a listener, those that speak HTTP and those that were upgraded.

One number of places, one time in which what is sent must be taken, and one bound of all that was sent and nobody takes.
One sweep a second looks at those that are over time.
"""

import asyncio
from typing import Protocol

CONNECTIONS_MAX = 4096
HEAD_S_MAX = 15.0
REST_S_MAX = 75.0
ANSWER_S_MAX = 30.0  # in which an answer, or what is left of it, must be taken
UNSENT_BYTES_MAX = 256 * 1024 * 1024  # of all answers that wait for their clients
LINGER_S_MAX = 5.0  # for which a body that nobody wants is let run out, so that its client reads the answer
SWEEP_S = 1.0


class Guarded(Protocol):
    """A connection that the guard can end."""

    def end(self) -> None:
        """End it now. It stands in no table of the guard from then on, long before its loss is told."""


class Guard:
    """All connections of a listener, by what they wait for. Each table is in order of time."""

    def __init__(
        self,
        connections_max: int = CONNECTIONS_MAX,
        head_s_max: float = HEAD_S_MAX,
        answer_s_max: float = ANSWER_S_MAX,
        unsent_bytes_max: int = UNSENT_BYTES_MAX,
    ) -> None:
        self.connections_max = connections_max
        self.unsent_bytes_max = unsent_bytes_max
        self.open: set[Guarded] = set()
        self.heads: dict[Guarded, float] = {}  # no whole head yet
        self.resting: dict[Guarded, float] = {}  # answered, and silent since
        self.stalled: dict[Guarded, float] = {}  # does not take its answer
        self.lingering: dict[Guarded, float] = {}  # answered, and still sending its body
        self.unsent_bytes = 0
        self._seconds_max = (
            (self.heads, head_s_max),
            (self.stalled, answer_s_max),
            (self.lingering, LINGER_S_MAX),
            (self.resting, REST_S_MAX),
        )
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(SWEEP_S, self._sweep)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def admit(self) -> bool:
        """Whether one more has a place; an idle one goes for it."""
        if len(self.open) < self.connections_max:
            return True
        for idle in (self.heads, self.resting):
            if idle:
                next(iter(idle)).end()
                return True
        return False

    def unsent(self, connection: Guarded, size: int, now: float) -> None:
        """The connection does not keep up; the longest stalled go when all of them hold too much."""
        self.stalled[connection] = now
        self.unsent_bytes += size
        while self.unsent_bytes > self.unsent_bytes_max and self.stalled:
            next(iter(self.stalled)).end()

    def _sweep(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        for waiting, seconds_max in self._seconds_max:
            for connection in [it for it, since in waiting.items() if now - since > seconds_max]:
                connection.end()
        self._timer = loop.call_later(SWEEP_S, self._sweep)


class Unsent:
    """Beside a protocol of uvicorn: what its connection was sent and has not taken is counted by the guard."""

    _guard: Guard
    _unsent_bytes = 0
    loop: asyncio.AbstractEventLoop
    transport: asyncio.Transport

    def end(self) -> None:
        """End the connection now, whatever it does."""
        self._guard.open.discard(self)
        self._taken()
        self.transport.abort()

    def pause_writing(self) -> None:
        super().pause_writing()  # type: ignore[misc] # it stands before the protocol
        self._unsent_bytes = self.transport.get_write_buffer_size()
        self._guard.unsent(self, self._unsent_bytes, self.loop.time())

    def resume_writing(self) -> None:
        super().resume_writing()  # type: ignore[misc]
        self._taken()

    def _taken(self) -> None:
        """There is nothing any more that it does not take."""
        if self._guard.stalled.pop(self, None) is not None:
            self._guard.unsent_bytes -= self._unsent_bytes
            self._unsent_bytes = 0
