"""Who is admitted next: one of each namespace in turn, in the order of coming within one.

A namespace with much to do makes another with little wait for one of its own, never for all of them. Pure.
"""

from collections import deque
from typing import Generic, TypeVar

T = TypeVar("T")


class Turnstile(Generic[T]):
    """Those who wait, by namespace."""

    def __init__(self) -> None:
        self._lines: dict[str, deque[T]] = {}  # in the order in which they are served

    def __len__(self) -> int:
        return sum(len(line) for line in self._lines.values())

    def put(self, namespace: str, item: T) -> None:
        self._lines.setdefault(namespace, deque()).append(item)

    def take(self) -> T | None:
        """The first of the namespace that was served longest ago."""
        if not self._lines:
            return None
        namespace = next(iter(self._lines))
        line = self._lines.pop(namespace)
        item = line.popleft()
        if line:
            self._lines[namespace] = line  # its turn comes after everybody else's
        return item
