"""What was armed, and what really fired: kept by the processes that died of it, compared at the end of each file.

A file says in `FIRES` which points its tests kill a process at. Each process that meets a fault leaves a
mark right before it dies; when all tests of the file have run and passed, the marks must be those of
`FIRES`. Who ran only some of them, by name or by mark, is not asked.
"""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.faults.points import Arming
from tests.postgres import Postgres

_in_part: set[Path] = set()


def pytest_deselected(items: Sequence[pytest.Item]) -> None:
    _in_part.update(item.path for item in items)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    report = yield
    if not report.passed:  # type: ignore[attr-defined]
        _in_part.add(item.path)
    return report  # type: ignore[return-value]


@pytest.fixture(scope="module", autouse=True)
def fired(request: pytest.FixtureRequest) -> Iterator[set[str]]:
    """The points at which the tests of a file killed a process."""
    met: set[str] = set()
    yield met
    some = any("::" in it for it in request.config.args) or request.path in _in_part
    never = set() if some else set(getattr(request.module, "FIRES", ())) - met
    assert not never, f"{request.path.name} says that it fires {sorted(never)}, and nobody died there"


@pytest.fixture
def arming(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fired: set[str]) -> Iterator[Arming]:
    """The folder that processes of a test obey, from their start on."""
    folder = Arming(tmp_path, monkeypatch)
    yield folder
    fired.update(folder.killed())


@pytest.fixture
def own_server() -> Iterator[Postgres]:
    """A database server that may be restarted, or crash: nobody else is on it."""
    server = Postgres()
    yield server
    with contextlib.suppress(Exception):
        server.start_server()
    server.close()
