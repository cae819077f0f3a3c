"""Waiting for a record: the bell is a hint, the record is the truth.

Who waits listens before reading, so that a bell between the two is heard, and reads again every
second whatever was heard. Nothing is left behind when the waiting ends, however it ends.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

RECHECK_S = 1.0

T = TypeVar("T")


async def until(
    done: Callable[[T], bool],
    read: Callable[[], Awaitable[T]],
    listen: Callable[[float], Awaitable[None]],
    wait_s: float,
) -> T:
    """What was read when it was done, or when the time was over. `listen` returns at a bell or after its time."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + wait_s
    while (left := deadline - loop.time()) > 0:
        heard = asyncio.ensure_future(listen(min(left, RECHECK_S)))
        try:
            await asyncio.sleep(0)  # it listens from here on
            found = await read()
            if done(found):
                return found
            await heard
        finally:
            heard.cancel()
            await asyncio.gather(heard, return_exceptions=True)
    return await read()
