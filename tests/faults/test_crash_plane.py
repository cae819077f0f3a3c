"""kill -9 of a plane at each of its points: the next one converges to what a life without death leaves."""

from pathlib import Path

import pytest

from controlplane.store.direct import DirectWriter
from controlplane.store.store import Store
from schemas.faults import POINTS
from tests.conftest import SOAK
from tests.faults.lives import lives
from tests.faults.points import Arming
from tests.laws.acts import Story
from tests.laws.test_crashes import state
from tests.operations.plane import Plane

pytestmark = pytest.mark.anyio
OF_PLANE = [point for point in POINTS if point.startswith("plane.")]
FIRES = frozenset(OF_PLANE)
PASSINGS = (1, 2, 3, 5) if SOAK else (1,)
PG_EVERY = 12
ONCE = ("plane.revert.planned", "plane.revert.committed")


@pytest.mark.parametrize("nth", PASSINGS)
async def test_a_plane_that_dies_at_any_point_converges_to_the_same_state(
    database_url: str, writer: DirectWriter, tmp_path: Path, arming: Arming, nth: int
) -> None:
    """A story of every kind, killed at each point in turn; its end is that of the story without a death.

    On PostgreSQL at a sample of the points; in a soak at each.
    """
    progress = tmp_path / "progress"
    store = Store(database_url, writer)
    plane = Plane(store)
    assert lives(database_url, None, "whole", progress) == 1
    wanted = await state(Story(plane, "whole"))
    every = 1 if SOAK or database_url.startswith("sqlite") else PG_EVERY
    for n, point in enumerate(OF_PLANE[::every]):
        if nth > 1 and point in ONCE:
            continue
        namespace = f"n{n}"
        arming.arm(point, nth=nth)
        taken = lives(database_url, arming.folder, namespace, progress)
        assert (arming.left(), taken) == ([], 2), f"{point} was not passed {nth} times"
        assert await state(Story(plane, namespace)) == wanted, f"died at {point}"
        await _doomed_is_gone(plane, f"{namespace}x", point)
    await store.close()


async def _doomed_is_gone(plane: Plane, namespace: str, point: str) -> None:
    """Made once, missed, and taken back once, with one verdict for each claim."""
    changes = await plane.rows("SELECT * FROM change WHERE namespace = :n ORDER BY committed_at", n=namespace)
    assert [it["reverts"] is not None for it in changes] == [False, True], f"died at {point}"
    assert all(it["done_at"] is not None for it in changes), f"died at {point}"
    live = await plane.rows("SELECT name FROM resource WHERE namespace = :n AND deleted_at IS NULL", n=namespace)
    assert live == [], f"died at {point}"
    told = await plane.rows(
        "SELECT COUNT(*) AS many FROM event WHERE namespace = :n AND type = 'change.done'", n=namespace
    )
    assert told[0]["many"] == len(changes), f"died at {point}"
    open_ = await plane.rows(
        "SELECT k.claim_id FROM claim k JOIN change c ON c.change_id = k.change_id"
        " WHERE c.namespace = :n AND k.verdict IS NULL",
        n=namespace,
    )
    assert open_ == [], f"died at {point}"
