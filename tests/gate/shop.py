"""A gate whose agent may read and change a shop's database, once with keys and once without."""

import contextlib
from collections.abc import AsyncIterator
from typing import Any

from controlplane.store.unit import Unit
from schemas.connection import connection_spec
from tests.gate.far import put
from tests.gate.running import RunningGate, running
from tests.gate.zoo import SOURCE
from tests.protocols.database import Database

GROW = "UPDATE item SET stock = stock + 1 WHERE id = :id"
KEYED = {"keys_table": "steward_keys"}


@contextlib.asynccontextmanager
async def scene(url: str, far: Database, timeout_s: float = 20, **bounds: Any) -> AsyncIterator[RunningGate]:
    """A gate, an agent that may read and change the shop, and the shop, once with keys and once without."""
    given = {"send_within_s": 5, "hold_s": 60} | bounds
    async with running(url, connection_folders=[str(far.folder)], **given) as gate:
        code = await gate.code(SOURCE)
        effects = ("sql.query", "sql.execute")
        granted = [{"effect": it, "connection": name} for it in effects for name in ("shop", "keyed")]
        await gate.agent("noter", code, "Noter", mandate={"grants": granted})
        for name, options in (("shop", {"rows_max": 5}), ("keyed", KEYED)):
            whole = {
                "protocol": "sql",
                "endpoint": far.endpoint,
                "limits": {"calls_per_s_max": 1000, "timeout_s": timeout_s},
                "options": {"allow_private": True, **options},
            }
            await put(gate, Unit(), "Connection", name, connection_spec(whole).model_dump(mode="json"))
        yield gate


def execute(statement: str, connection: str = "shop", **parameters: Any) -> dict[str, Any]:
    return {"effect": "sql.execute", "connection": connection, "statement": statement, "parameters": parameters}
