"""A gate that the tests of a file share, where a start of its own would be most of what a test takes."""

import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.gate.running import RunningGate, running


@pytest.fixture(scope="module")
async def shared(
    anyio_backend: str, _migrated_file: Path, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[RunningGate]:
    """On SQLite. Each test has agents, and message ids, of names that no other has."""
    path = tmp_path_factory.mktemp("shared") / "steward.db"
    shutil.copy(_migrated_file, path)
    async with running(f"sqlite:///{path}") as gate:
        yield gate
