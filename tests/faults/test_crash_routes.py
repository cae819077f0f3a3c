"""kill -9 of the gate while routes pass things on: nothing is lost, and nothing comes twice where keys are honoured."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.faults.history import said
from tests.faults.points import Arming, supervised
from tests.gate.routed import POLL, apply, came, publish, read, routed
from tests.operations.plane import route
from tests.protocols.database import Database, database

pytestmark = pytest.mark.anyio
POINTS = (
    "gate.channel.committed",
    "gate.intent.committed",
    "gate.effect.sent",
    "gate.receipt.before",
    "gate.commit.before",
    "gate.commit.committed",
)


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


async def test_the_gate_dies_between_the_steps_of_routes(database_url: str, far: Database, arming: Arming) -> None:
    """Orders change the shop once each and are answered once each; new rows become messages once each; in order."""
    async with routed(database_url, far, send_within_s=2.5) as (gate, plane), supervised(gate):
        execute = {
            "effect": "sql.execute",
            "connection": "shop",
            "arguments": {"statement": "INSERT INTO item VALUES (:id, 'sold', 0)"},
        }
        asked = {**POLL, "begin": 100}
        await apply(
            plane,
            route("rows", source={"poll": asked}, sink={"channel": "done"}),
            route(
                "sales",
                source={"channel": "orders"},
                transform='{"parameters": {"id": n}}',
                sink=execute,
                reply={"channel": "replies"},
            ),
        )
        for n, point in enumerate(POINTS):
            arming.arm(point)
            await said(lambda n=n: publish(gate, "orders", n, {"n": 100 + n}))  # type: ignore[misc]
            await arming.fired()
        many = len(POINTS)
        assert await came(gate, "replies", many) == [{"rows_changed": 1}] * many
        assert [it["causationid"] for it in await read(gate, "replies")] == [f"orders{n}" for n in range(many)]
        assert [it["id"] for it in await came(gate, "done", many)] == [100 + n for n in range(many)]
        assert far.do("SELECT count(*) FROM item WHERE id >= 100") == [(many,)]
        assert await gate.rows("SELECT name, message_id, trigger, reason, detail FROM dead_letter") == []
