"""Fixtures for every room: the event loop, both real databases, the store on them.

`database_url` runs a test on SQLite and on PostgreSQL; `quick_url` on SQLite, and on both in
`make soak`. Both are migrated. PostgreSQL starts when the first test asks for it.
"""

import os
import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

from controlplane.store import migrate
from controlplane.store.direct import DirectWriter
from controlplane.store.store import Store
from tests import trust

trust.keep()
SOAK = bool(os.environ.get("STEWARD_SOAK"))
# Look at what the machine has left for others, so nobody else may run.
ALONE = ("hostile/", "examples/test_machine_read.py", "examples/test_machine_watch_live.py")
# Go by fractions of seconds: with a core for each, they may. The longest come first.
PAIRED = ("faults/test_schedule.py", "faults/test_crash_effects.py", "gate/test_http.py")
APART = "tests/faults/test_schedule.py"  # each test of it goes where there is room
TOGETHER = ("end_to_end", "clients")  # share an installation
MARKED = {"alone": ALONE, "paired": PAIRED}
HERE = Path(__file__).parent


def _mark(path: Path) -> str | None:
    """When a file of tests runs, if not with all others."""
    name = path.relative_to(HERE).as_posix()
    return next((mark for mark, files in MARKED.items() if name.startswith(files)), None)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Who asks for those of one mark has no other file read, which takes longer than some of them."""
    asked = config.option.markexpr
    if asked in MARKED and collection_path.name.startswith("test_"):
        return _mark(collection_path) != asked or None
    return None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Which tests run alone or in pairs, and which of these first."""
    for item in items:
        if mark := _mark(item.path):
            item.add_marker(mark)
    order = {name: n for n, name in enumerate(PAIRED)}
    items.sort(key=lambda it: order.get(it.path.relative_to(HERE).as_posix(), len(order)))


class ByRoom(LoadScopeScheduling):
    """Which tests go to one worker together: those of a file, or of a room that shares an installation."""

    def _split_scope(self, nodeid: str) -> str:
        path, _, _ = nodeid.partition("::")
        room = path.split("/")[1]
        return nodeid if path == APART else room if room in TOGETHER else path


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadScopeScheduling:
    return ByRoom(config, log)


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def postgres() -> Iterator[object]:
    from tests.postgres import Postgres

    server = Postgres()
    yield server
    server.close()


@pytest.fixture(scope="session")
def _migrated_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("template") / "steward.db"
    migrate.upgrade(f"sqlite:///{path}")
    return path


@pytest.fixture
def sqlite_url(_migrated_file: Path, tmp_path: Path) -> str:
    """A migrated SQLite database of this test alone."""
    path = tmp_path / "steward.db"
    shutil.copy(_migrated_file, path)
    return f"sqlite:///{path}"


@pytest.fixture
def postgresql_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """A migrated PostgreSQL database of this test alone."""
    server = request.getfixturevalue("postgres")
    url = server.lend()
    yield url
    server.give_back(url)


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest) -> str:
    """The test runs on both databases."""
    url: str = request.getfixturevalue(f"{request.param}_url")
    return url


@pytest.fixture
def writer(database_url: str) -> Iterator[DirectWriter]:
    """The one writer of the test's database, in this process."""
    direct = DirectWriter(database_url)
    yield direct
    direct.close()


@pytest.fixture
async def store(anyio_backend: str, database_url: str, writer: DirectWriter) -> AsyncIterator[Store]:
    """The store, on both databases, with a writer that needs no gate."""
    opened = Store(database_url, writer)
    yield opened
    await opened.close()


@pytest.fixture(params=["sqlite", "postgresql"] if SOAK else ["sqlite"])
def quick_url(request: pytest.FixtureRequest) -> str:
    """SQLite; in a soak both. For what the store's own tests have shown to be alike on both."""
    url: str = request.getfixturevalue(f"{request.param}_url")
    return url


@pytest.fixture
async def quick_store(anyio_backend: str, quick_url: str) -> AsyncIterator[Store]:
    """The store on `quick_url`, with a writer that needs no gate."""
    direct = DirectWriter(quick_url)
    opened = Store(quick_url, direct)
    yield opened
    await opened.close()
    direct.close()
