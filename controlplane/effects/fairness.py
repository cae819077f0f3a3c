"""Who is admitted next: one of each namespace in turn, and within one, higher classes first, in the order of coming.

A namespace with much to do makes another with little wait for one of its own, never for all of them. A class has a
weight, not a right of way: of those who wait, eight high ones and four normal ones go before each low one, so nobody
waits for ever (smooth weighted round robin, as in nginx). Nobody is taken from a place that it has: a turn gives way
where it waits, at its awaits. Pure.
"""

from collections import deque
from typing import Generic, TypeVar

T = TypeVar("T")
WEIGHTS = {"high": 8, "normal": 4, "low": 1}  # in the order in which equals go


class WeightedLine(Generic[T]):
    """Those who wait for one thing, by their class."""

    def __init__(self) -> None:
        self._classes: dict[str, deque[T]] = {}
        self._credits: dict[str, int] = {}

    def __len__(self) -> int:
        return sum(len(it) for it in self._classes.values())

    def put(self, item: T, priority: str = "normal") -> None:
        self._classes.setdefault(priority if priority in WEIGHTS else "normal", deque()).append(item)

    @property
    def first(self) -> T:
        """Who is next; there must be somebody."""
        return self._classes[self._next()][0]

    def take(self) -> T:
        """Whoever is next, out of the line; there must be somebody."""
        chosen = self._next()
        for name in self._classes:
            self._credits[name] = self._credits.get(name, 0) + WEIGHTS[name]
        self._credits[chosen] -= sum(WEIGHTS[name] for name in self._classes)
        item = self._classes[chosen].popleft()
        if not self._classes[chosen]:  # who comes later begins anew
            del self._classes[chosen]
            del self._credits[chosen]
        return item

    def clear(self) -> None:
        self._classes.clear()
        self._credits.clear()

    def _next(self) -> str:
        """The class with the most credit, were all to get theirs now."""
        order = [name for name in WEIGHTS if name in self._classes]
        return max(order, key=lambda name: self._credits.get(name, 0) + WEIGHTS[name])


class Turnstile(Generic[T]):
    """Those who wait, by namespace."""

    def __init__(self) -> None:
        self._lines: dict[str, WeightedLine[T]] = {}  # in the order in which they are served

    def __len__(self) -> int:
        return sum(len(line) for line in self._lines.values())

    def put(self, namespace: str, item: T, priority: str = "normal") -> None:
        self._lines.setdefault(namespace, WeightedLine()).put(item, priority)

    def take(self) -> T | None:
        """The next of the namespace that was served longest ago."""
        if not self._lines:
            return None
        namespace = next(iter(self._lines))
        line = self._lines.pop(namespace)
        item = line.take()
        if line:
            self._lines[namespace] = line  # its turn comes after everybody else's
        return item
