"""Looking up the names of hosts, in threads of their own: a resolver that does not answer holds only who asked it.

The system's resolver blocks, and can not be stopped. So a look-up that nobody waits for any more goes on to its end;
whoever asks for the same name meanwhile shares it. A connection has `EACH_MAX` at once, all together `ALL_MAX`; others
wait for their turn, and those of one connection are passed over where it has enough.
"""

import asyncio
import contextlib
import socket
import threading
from collections import Counter
from collections.abc import Hashable
from dataclasses import dataclass, field

ALL_MAX = 64
EACH_MAX = 4
Name = tuple[str | None, int]
Waiter = asyncio.Future[list[str]]


@dataclass(eq=False)
class _Lookup:
    """One name, for one connection; and who waits for its addresses."""

    name: Name
    whose: Hashable
    waiters: set[Waiter] = field(default_factory=set)


class Lookups:
    """Those of one process, whatever loop asks."""

    def __init__(self, all_max: int = ALL_MAX, each_max: int = EACH_MAX) -> None:
        self._all_max, self._each_max = all_max, each_max
        self._lock = threading.Lock()
        self._begun: dict[Name, _Lookup] = {}
        self._waiting: list[_Lookup] = []
        self._each: Counter[Hashable] = Counter()

    async def addresses(self, host: str | None, port: int, whose: Hashable, within_s: float) -> list[str]:
        """What a name leads to, each once; raises OSError where it leads nowhere, or is not known in time."""
        waiter: Waiter = asyncio.get_running_loop().create_future()
        asked = self._asked((host, port), whose, waiter)
        try:
            async with asyncio.timeout(within_s):
                return await waiter
        except TimeoutError as error:
            raise OSError(f"it could not be looked up within {within_s:.3g} s") from error
        finally:
            self._left(asked, waiter)

    def _asked(self, name: Name, whose: Hashable, waiter: Waiter) -> _Lookup:
        with self._lock:
            own = (it for it in self._waiting if (it.name, it.whose) == (name, whose))
            found = self._begun.get(name) or next(own, None)
            if found is None:
                self._waiting.append(found := _Lookup(name, whose))
            found.waiters.add(waiter)
            self._begin()
        return found

    def _left(self, asked: _Lookup, waiter: Waiter) -> None:
        """What nobody waits for any more, and was not begun, never is."""
        with self._lock:
            asked.waiters.discard(waiter)
            if not asked.waiters and asked in self._waiting:
                self._waiting.remove(asked)

    def _begin(self) -> None:
        """As many of those that wait as may."""
        for it in list(self._waiting):
            if (same := self._begun.get(it.name)) is not None:
                self._waiting.remove(it)
                same.waiters |= it.waiters
            elif len(self._begun) < self._all_max and self._each[it.whose] < self._each_max:
                try:
                    threading.Thread(target=self._look, args=(it,), name="lookup", daemon=True).start()
                except RuntimeError:  # the machine has no room for one: it waits like others
                    return
                self._waiting.remove(it)
                self._begun[it.name] = it
                self._each[it.whose] += 1

    def _look(self, it: _Lookup) -> None:
        found: list[str] | OSError
        try:
            listed = socket.getaddrinfo(*it.name, type=socket.SOCK_STREAM)
            found = list(dict.fromkeys(str(one[4][0]) for one in listed))
        except OSError as error:
            found = error
        except Exception as error:  # noqa: BLE001 - of a text that is no name (UnicodeError), or of the machine
            found = OSError(f"it can not be looked up: {error}")
        with self._lock:
            del self._begun[it.name]
            self._each -= Counter({it.whose: 1})
            waiters = list(it.waiters)
            self._begin()
        for waiter in waiters:
            with contextlib.suppress(RuntimeError):  # its loop is closed
                waiter.get_loop().call_soon_threadsafe(_tell, waiter, found)


def _tell(waiter: Waiter, found: list[str] | OSError) -> None:
    if waiter.done():
        return
    if isinstance(found, OSError):
        waiter.set_exception(found)
    else:
        waiter.set_result(list(found))


LOOKUPS = Lookups()
