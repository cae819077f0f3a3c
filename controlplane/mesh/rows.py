"""What the rooms of the mesh are given: bounded reads, and the way to the writer."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

Row = tuple[str, Sequence[Any], int]
Commit = Callable[[str, Sequence[Any], Callable[[str, str], None], int], None]


class Rows(Protocol):
    """Bounded reads."""

    def rows(self, sql: str, *params: Any) -> list[tuple[Any, ...]]: ...

    def one(self, sql: str, *params: Any) -> tuple[Any, ...] | None: ...
