"""kill -9 of the gate while a route reads its source again: all of it once more, once each, then on as before."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.faults.points import Arming, supervised
from tests.gate.routed import apply, came, ended, publish, routed
from tests.operations.plane import route
from tests.protocols.database import Database, database

pytestmark = pytest.mark.anyio
POINTS = ("gate.delivery.committed", "gate.commit.before", "gate.commit.committed")


@pytest.fixture
async def far(anyio_backend: str, tmp_path: Path) -> AsyncIterator[Database]:
    (tmp_path / "far").mkdir()
    async with database("sqlite", tmp_path / "far", None) as found:
        yield found


async def test_the_gate_dies_while_a_route_reads_again(database_url: str, far: Database, arming: Arming) -> None:
    """At each point of a replay under new keys: what is passed on again is so once, in its order."""
    many = 5
    async with routed(database_url, far, send_within_s=2.5) as (gate, plane), supervised(gate):
        await apply(plane, route("all", source={"channel": "orders"}, sink={"channel": "done"}))
        for n in range(many):
            await publish(gate, "orders", n, n)
        expected = list(range(many))
        assert await came(gate, "done", many) == expected
        for point in POINTS:
            arming.arm(point)
            answered = await plane.call("routes.replay", name="all", keys="new")
            await arming.fired()
            change = await ended(plane, answered["change_id"])
            assert change["outcome"] == "verified"
            expected += range(many)
            assert await came(gate, "done", len(expected)) == expected
        await publish(gate, "orders", many, many)
        assert await came(gate, "done", len(expected) + 1) == [*expected, many]
        assert await gate.rows("SELECT 1 FROM dead_letter") == []
