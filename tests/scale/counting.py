"""What a piece of work costs, counted: statements read and written, and steps of SQLite's machine. Never time."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from sqlalchemy import event

from controlplane.store.direct import DirectWriter
from controlplane.store.store import Store

STEPS_EACH = 10  # the machine is asked after so many of its steps


@dataclass
class Cost:
    """Steps are those of reads; they grow with every row and index entry that is looked at."""

    reads: int = 0
    writes: int = 0
    steps: int = 0


class CountedStore(Store):
    """A store on SQLite that counts what goes through it."""

    def __init__(self, url: str, writer: DirectWriter) -> None:
        super().__init__(url, writer)
        self.cost = Cost()
        event.listen(self._engine, "connect", self._connected)
        event.listen(self._engine, "before_cursor_execute", self._read)

    async def write(self, unit: Any) -> bool:
        self.cost.writes += len(unit)
        return await super().write(unit)

    @contextmanager
    def counted(self) -> Iterator[Cost]:
        """The cost of what is done within."""
        self.cost = Cost()
        yield self.cost
        self.cost = Cost()

    def _connected(self, connection: Any, _record: Any) -> None:
        connection.set_progress_handler(self._stepped, STEPS_EACH)

    def _stepped(self) -> int:
        self.cost.steps += STEPS_EACH
        return 0

    def _read(self, *_: Any) -> None:
        self.cost.reads += 1
