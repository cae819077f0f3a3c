"""The doorbell of one process: rings after a commit that readers of the feedback log may care about.

Only a hint. Who waits looks again by itself at least every second, so a ring that was missed costs
a second and nothing else. Ringing is cheap, never blocks, and is allowed from any thread. After
`close` nobody waits any more: whoever would is told that the plane is stopping.
"""

import asyncio
import contextlib

from controlplane.resources.problems import refuse
from schemas.problem import Refusal

RETRY_AFTER_S = 2.0
AT_ONCE_MAX = 64


class LocalDoorbell:
    """Implements `schemas.ports.Doorbell` within one event loop."""

    def __init__(self) -> None:
        self._waiting: set[asyncio.Future[None]] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False
        self.rung = 0  # how often

    @property
    def closed(self) -> bool:
        return self._closed

    def ring(self) -> None:
        """Wake everybody who waits now."""
        self.rung += 1
        loop = self._loop
        if loop is None or loop.is_closed():
            return
        if _running() is loop:
            self._wake()
        else:
            loop.call_soon_threadsafe(self._wake)

    def close(self) -> None:
        """Wake everybody, and let nobody wait again."""
        self._closed = True
        self.ring()

    async def wait(self, timeout_s: float, since: int | None = None) -> None:
        """Return at the next ring or after `timeout_s`; raises NOT_READY once the plane is stopping.

        With `since`, what `rung` was before the caller looked, it returns at once when there was a ring meanwhile.
        """
        self._refuse_when_closed()
        if since is not None and since != self.rung:
            return
        self._loop = asyncio.get_running_loop()
        ring = self._loop.create_future()
        self._waiting.add(ring)
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout_s):
                    await ring
        finally:
            self._waiting.discard(ring)
        self._refuse_when_closed()

    def _wake(self) -> None:
        rings = list(self._waiting)
        self._waiting.clear()
        self._wake_some(rings)

    def _wake_some(self, rings: list[asyncio.Future[None]]) -> None:
        """So many in one pass of the loop that others come in between."""
        for ring in rings[:AT_ONCE_MAX]:
            if not ring.done():
                ring.set_result(None)
        if len(rings) > AT_ONCE_MAX:
            asyncio.get_running_loop().call_soon(self._wake_some, rings[AT_ONCE_MAX:])

    def _refuse_when_closed(self) -> None:
        if self._closed:
            raise stopping()


def stopping() -> Refusal:
    """What whoever waits is told when the plane stops."""
    return refuse(
        "NOT_READY",
        "the plane is stopping; ask again once it is back",
        retry_after_s=RETRY_AFTER_S,
    )


def _running() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
