"""The plane of these tests, on both databases."""

import pytest

from controlplane.operations.living import hosts, moving, nodes
from controlplane.store.store import Store
from tests.operations.mover import Mover
from tests.operations.plane import Plane


@pytest.fixture
async def plane(store: Store) -> Plane:
    return Plane(store)


@pytest.fixture
def mover(plane: Plane, monkeypatch: pytest.MonkeyPatch) -> Mover:
    """The plane's gate, which moves; calls do not wait, and loops are run by hand."""
    monkeypatch.setattr(moving, "WAIT_S", 0)
    plane.gate = found = Mover(plane.store, plane.clock)
    plane.handlers |= moving.handlers(plane.store, found, plane.doorbell)  # type: ignore[arg-type]
    plane.handlers |= nodes.handlers(plane.store, found)  # type: ignore[arg-type]
    plane.handlers |= hosts.handlers(plane.store)
    plane.restart()
    return found
