"""Worlds for tests of one module, on SQLite: in process, or on a real port."""

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
    async with standing(_copy(_migrated_file, tmp_path_factory), full=True) as world:
        yield world


@pytest.fixture(scope="module")
async def served(
    anyio_backend: str, _migrated_file: Path, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[World]:
    """The same on a real port."""
    async with standing(_copy(_migrated_file, tmp_path_factory), full=True, served=True) as world:
        yield world


def _copy(migrated: Path, folders: pytest.TempPathFactory) -> str:
    path = folders.mktemp("world") / "steward.db"
    shutil.copy(migrated, path)
    return f"sqlite:///{path}"
