"""The two worlds: one pair for all tests of a module, on SQLite."""

import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.authorization.worlds import World, standing


@pytest.fixture(scope="module")
async def full(
    anyio_backend: str, _migrated_file: Path, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[World]:
    """The world with a rich namespace `elsewhere`."""
    path = tmp_path_factory.mktemp("full") / "steward.db"
    shutil.copy(_migrated_file, path)
    async with standing(f"sqlite:///{path}", full=True) as world:
        yield world
