"""A plane's stages on a real gate with hosts, a shop's database, and routes between channels and it."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from typing import Any

import orjson

from controlplane.operations.living import dead_letters, routes
from tests.gate.running import RunningGate, running
from tests.gate.test_moving import step
from tests.operations.plane import Plane, channel, connection
from tests.protocols.database import Database

POLL = {
    "connection": "shop",
    "statement": "SELECT id, name, stock FROM item WHERE id >= :cursor ORDER BY id",
    "cursor": "id",
    "id": "id",
    "begin": 0,
    "cron": "* * * * * *",
}


@contextlib.asynccontextmanager
async def routed(url: str, far: Database, **bounds: Any) -> AsyncIterator[tuple[RunningGate, Plane]]:
    """Channels `orders`, `done` and `replies`; connection `shop`, whose keys are kept there."""
    async with running(url, hosts=3, connection_folders=[str(far.folder)], hold_s=60, **bounds) as gate:
        plane = Plane(gate.store)
        plane.gate = gate.client  # type: ignore[assignment]
        plane.now = time.time()  # what is scheduled is due by the gate's clock
        plane.handlers |= routes.handlers(gate.store, gate.client) | dead_letters.handlers(gate.store)
        plane.restart()
        shop = {
            "protocol": "sql",
            "endpoint": far.endpoint,
            "limits": {"calls_per_s_max": 1000, "timeout_s": 5},
            "options": {"allow_private": True, "keys_table": "steward_keys"},
        }
        await apply(plane, connection("shop", **shop), channel("orders"), channel("done"), channel("replies"))
        yield gate, plane


async def apply(plane: Plane, *manifests: dict[str, Any]) -> None:
    """Committed, and verified."""
    committed = await plane.commit(await plane.propose(*manifests))
    found = await ended(plane, committed["change_id"])
    assert found["outcome"] == "verified", found


async def ended(plane: Plane, change_id: str) -> dict[str, Any]:
    """A change, once it is done."""
    async with asyncio.timeout(40):
        while not (found := await plane.call("changes.get", change_id=change_id))["done"]:
            await step(plane)
    return found


async def publish(gate: RunningGate, name: str, number: int, data: Any) -> None:
    body = {
        "specversion": "1.0", "id": f"{name}{number}", "source": "/operators/test", "type": "steward.message",
        "subject": f"default/{name}", "time": "2026-01-01T00:00:00Z", "data": data,
    }  # fmt: skip
    await gate.client.publish_channel("default", name, f"{name}{number}", orjson.dumps(body))


async def read(gate: RunningGate, name: str) -> list[dict[str, Any]]:
    """The envelopes of a channel."""
    sql = (
        "SELECT m.body FROM channel c JOIN channel_message m ON m.channel = c.uid"
        " WHERE c.name = :name ORDER BY m.position"
    )
    return [orjson.loads(it[0]) for it in await gate.rows(sql, name=name)]


async def came(gate: RunningGate, name: str, many: int, timeout_s: float = 40) -> list[Any]:
    """The data of a channel, once there is so much."""
    sql = f"SELECT 1 FROM channel c JOIN channel_message m ON m.channel = c.uid WHERE c.name = '{name}'"
    await gate.until(sql, lambda rows: len(rows) >= many, timeout_s)
    return [it["data"] for it in await read(gate, name)]
