"""The plane of these tests, on both databases."""

import pytest

from controlplane.store.store import Store
from tests.operations.plane import Plane


@pytest.fixture
async def plane(store: Store) -> Plane:
    return Plane(store)
