"""Polls of a database that is away, or can not answer: told when that begins and when it is over, and no letters."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from controlplane.operations import doctor
from schemas.doctor import DoctorInput
from schemas.principal import Call, Principal
from tests.gate.routed import POLL, apply, came, routed
from tests.gate.running import RunningGate
from tests.operations.plane import route
from tests.postgres import Postgres
from tests.protocols.database import Database, database

pytestmark = pytest.mark.anyio
TOLD = "SELECT type, kind, namespace, name, data FROM event WHERE type LIKE 'route.poll%' ORDER BY cursor"
ROWS = route("rows", source={"poll": POLL}, sink={"channel": "done"})


@pytest.fixture
async def far(anyio_backend: str, tmp_path: Path, postgres: Postgres) -> AsyncIterator[Database]:
    (tmp_path / "far").mkdir()
    async with database("postgresql", tmp_path / "far", postgres) as found:
        yield found


async def told(gate: RunningGate, many: int) -> list[tuple[str, dict[str, Any]]]:
    """What was told of the route, once it is so much."""
    found = await gate.until(TOLD, lambda rows: len(rows) >= many)
    assert {it[1:4] for it in found} == {("Route", "default", "rows")}
    return [(it[0], orjson.loads(it[4])) for it in found]


async def fired(gate: RunningGate, more: int) -> None:
    """It was asked some times more."""
    sql = "SELECT 1 FROM turn WHERE trigger = 'timer' AND finished_at IS NOT NULL"
    before = len(await gate.rows(sql))
    await gate.until(sql, lambda rows: len(rows) >= before + more)


async def test_a_database_that_is_away_is_told_once_and_read_on_from(database_url: str, far: Database) -> None:
    """One event when it begins and one when it is over, also where the gate dies in between; nothing is lost, no dead
    letter; route and doctor say it."""
    async with routed(database_url, far) as (gate, plane):
        await apply(plane, ROWS)
        assert len(await came(gate, "done", 10)) == 10
        far.goes()
        ((kind, about),) = await told(gate, 1)
        assert (kind, about["fault"], about["reason"]) == ("route.poll_failed", "away", "EFFECT_FAILED")
        assert about["connection"] == "shop"
        await fired(gate, 2)
        gate.kill()
        gate.start()
        await gate.client.up()
        await fired(gate, 2)
        status = (await plane.call("routes.get", name="rows"))["status"]
        assert (status["dead"], status["poll_failing"]["fault"]) == (0, "away")
        assert status["poll_failing"]["since"][:19] == about["since"][:19]
        report: Any = await doctor.handlers(gate.store)["system.doctor"](
            Call(Principal("eye", "viewer", ("*",)), "system.doctor", 1.0), DoctorInput()
        )
        assert [(it.check, it.subject.name) for it in report.findings] == [("route.poll_failing", "rows")]
        far.do("INSERT INTO item VALUES (10, 'item 10', 10)")
        far.away = False
        assert [it["id"] for it in (await came(gate, "done", 11))[10:]] == [10]
        _, (kind, about) = await told(gate, 2)
        assert (kind, about["connection"], "fault" in about) == ("route.poll_recovered", "shop", False)
        assert (await plane.call("routes.get", name="rows"))["status"]["poll_failing"] is None
        assert (
            await gate.rows("SELECT 1 FROM dead_letter UNION ALL SELECT 1 FROM event WHERE type = 'turn.failed'") == []
        )
        assert len(await gate.rows(TOLD)) == 2


async def test_what_the_database_can_not_answer_is_told_as_wrong(quick_url: str, far: Database) -> None:
    """A table that is gone, a column that is none: told by what is wrong, in each way once; mended, it reads on."""
    async with routed(quick_url, far) as (gate, plane):
        await apply(plane, ROWS)
        assert len(await came(gate, "done", 10)) == 10
        far.do("ALTER TABLE item RENAME TO gone")
        ((_, about),) = await told(gate, 1)
        assert (about["fault"], about["reason"]) == ("wrong", "EFFECT_FAILED")
        assert "item" in about["detail"]
        await apply(plane, route("rows", source={"poll": {**POLL, "id": "none"}}, sink={"channel": "done"}))
        far.do("ALTER TABLE gone RENAME TO item")
        _, (kind, about) = await told(gate, 2)
        assert (kind, about["fault"], about["reason"]) == ("route.poll_failed", "wrong", "INVALID_VALUE")
        assert about["detail"] == "a row of the poll has no value in none"
        await fired(gate, 2)
        await apply(plane, ROWS)
        assert [it[0] for it in await told(gate, 3)] == [
            "route.poll_failed",
            "route.poll_failed",
            "route.poll_recovered",
        ]
        assert await gate.rows("SELECT 1 FROM dead_letter") == []


LIAR = """
from ray_runtime import Agent
from ray_runtime.polled import tell_failed


class Liar(Agent):
    async def on_message(self, turn, envelope):
        tell_failed(turn, "shop", "away", "X", "x", envelope.data)
"""


async def test_of_an_agent_that_does_no_route_nothing_is_told(quick_url: str, far: Database) -> None:
    """Whatever it says of a poll; and what no calendar holds ends its turn."""
    async with routed(quick_url, far, turn_attempts_max=1) as (gate, _):
        await gate.agent("liar-0", await gate.code(LIAR), "Liar")
        await gate.ask("liar-0", 7, "m1")
        assert (await gate.ask("liar-0", 1e12, "m2"))["reason"] == "INTERNAL"
        assert await gate.rows(TOLD) == []
