"""What a measurement is given: how much it shall do, and the installation and PostgreSQL that several share."""

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

from controlplane.store import migrate
from tests.postgres import Postgres
from tests.stack import Stack

SQLITE, POSTGRES = "SQLite", "PostgreSQL"


class Given:
    """`quick` is for a look: a tenth of the samples. `agents` is the most that are made at once; None: as is usual."""

    def __init__(self, *, quick: bool, agents: int | None = None) -> None:
        self.quick = quick
        self._agents = agents
        self._stack: Stack | None = None
        self._postgres: Postgres | None = None

    def several(self, full: int, quick: int = 0) -> int:
        """How many samples to take, or seconds to load."""
        return (quick or max(full // 10, 3)) if self.quick else full

    def agents(self, usual: int) -> int:
        """The most agents that are made at once."""
        asked = usual if self._agents is None else self._agents
        return min(asked, 100) if self.quick else asked

    def new_stack(self) -> Stack:
        """An installation that has not been started; those after it get the same one, started."""
        self.drop()
        self._stack = Stack(ray_dashboard=True, gate_spare=True, empty=True)  # as for a user
        return self._stack

    def stack(self) -> Stack:
        """An installation that runs, on SQLite."""
        if self._stack is None:
            self.new_stack().up()
        assert self._stack is not None
        return self._stack

    @contextlib.contextmanager
    def sqlite(self) -> Iterator[str]:
        """The url of a new migrated database."""
        with tempfile.TemporaryDirectory(prefix="bench-") as folder:
            url = f"sqlite:///{Path(folder).resolve()}/steward.db"
            migrate.upgrade(url)
            yield url

    @contextlib.contextmanager
    def postgres(self) -> Iterator[str]:
        """The same of a server whose commits are durable: `fsync` is on."""
        if self._postgres is None:
            self._postgres = Postgres(fsync=True)
        url = self._postgres.lend()
        try:
            yield url
        finally:
            self._postgres.give_back(url)

    def database(self, kind: str) -> contextlib.AbstractContextManager[str]:
        return self.sqlite() if kind == SQLITE else self.postgres()

    @contextlib.contextmanager
    def empty_postgres(self) -> Iterator[str]:
        """The url of a database with nothing in it, for a peer."""
        with self.postgres():  # the server is there
            assert self._postgres is not None
            url = self._postgres.create(template="template0")
        try:
            yield url
        finally:
            self._postgres.drop(url)

    def drop(self) -> None:
        """Close the shared installation: the next that asks gets a new one."""
        stack, self._stack = self._stack, None
        if stack is not None:
            stack.close()

    def close(self) -> None:
        self.drop()
        if self._postgres is not None:
            self._postgres.close()
