"""kill -9 around a change of a database: with keys it is done once by itself, without them at most once."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.faults.points import Arming, supervised
from tests.gate.far import HELD, settle
from tests.gate.shop import GROW, execute, scene
from tests.protocols.database import Database, database

pytestmark = pytest.mark.anyio


@pytest.fixture
async def far(
    request: pytest.FixtureRequest, anyio_backend: str, database_url: str, tmp_path: Path
) -> AsyncIterator[Database]:
    """The shop, on the same kind of database as the records."""
    kind = database_url.partition(":")[0].partition("+")[0]
    server = request.getfixturevalue("postgres") if kind == "postgresql" else None
    (tmp_path / "far").mkdir()
    async with database(kind, tmp_path / "far", server) as found:
        yield found


async def test_the_gate_dies_around_a_change(database_url: str, far: Database, arming: Arming) -> None:
    """With keys it is done exactly once by itself; without, at most once, and held until an operator says."""
    points = ("gate.effect.sending", "gate.effect.sent", "gate.receipt.before", "gate.intent.committed")
    async with scene(database_url, far, 2, send_within_s=2.5) as gate, supervised(gate):
        for n, point in enumerate(points):
            arming.arm(point)
            keyed = asyncio.create_task(gate.ask("noter", execute(GROW, "keyed", id=1), f"keyed{n}", 40))
            await arming.fired()
            assert await keyed == {"rows_changed": 1}, point
            assert far.do("SELECT stock FROM item WHERE id = 1") == [(2 + n,)], point
        arming.arm("gate.effect.sent")
        bare = asyncio.create_task(gate.ask("noter", execute(GROW, id=2), "bare", 40))
        await arming.fired()
        turn = (await gate.until(HELD, bool))[0][0]
        assert far.do("SELECT stock FROM item WHERE id = 2") == [(3,)]
        await settle(gate, turn, "succeeded", result={"rows_changed": 1})
        assert await bare == {"rows_changed": 1}
