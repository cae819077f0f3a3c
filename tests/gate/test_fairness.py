"""Many agents that are woken at once are admitted fairly between namespaces."""

import statistics
import time
from typing import Any

import orjson
import pytest
from sqlalchemy import insert

from controlplane.effects.fairness import Turnstile
from controlplane.store.tables import AgentRow, InboxRow, ResourceRow
from controlplane.store.unit import Unit
from tests.gate.running import running
from tests.gate.test_moving import hosts
from tests.gate.zoo import SOURCE

MANY, FEW = 500, 5
MUCH, LITTLE = "a-much", "z-little"  # found in this order


def test_one_of_each_namespace_is_next() -> None:
    """In the order of coming within one, and whoever has none left is not waited for."""
    line: Turnstile[str] = Turnstile()
    for item in ("a1", "a2", "a3", "b1", "a4", "c1", "b2"):
        line.put(item[0], item)
    assert len(line) == 7
    taken = [line.take() for _ in range(4)]
    line.put("b", "b3")
    taken += [line.take() for _ in range(len(line) + 1)]
    assert taken == ["a1", "b1", "c1", "a2", "b2", "a3", "b3", "a4", None]


def _asleep(unit: Unit, code: str, namespace: str, many: int) -> None:
    """Agents with a first message each."""
    now = time.time()
    spec = orjson.dumps({"code": {"digest": code}, "entrypoint": "zoo:Echo", "suspend_after_ms": 0}).decode()
    for n in range(many):
        uid = f"agent_{namespace}-{n:03}"
        named: dict[str, Any] = {"uid": uid, "namespace": namespace, "name": f"e{n}", "generation": 1}
        resource = named | {"kind": "Agent", "labels": "{}", "spec": spec, "revision": 1}
        unit.run(insert(ResourceRow).values(**resource, created_at=now, updated_at=now))
        unit.run(insert(AgentRow).values(**named, epoch=0, version=0, stopped=0, changed_at=now))
        body = {"specversion": "1.0", "id": f"m-{uid}", "source": "/test", "type": "steward.start"}
        text = orjson.dumps(body | {"time": "2026-01-01T00:00:00Z"}).decode()
        message = {"agent": uid, "message_id": f"m-{uid}", "trigger": "start", "body": text}
        unit.run(insert(InboxRow).values(**message, accepted_at=now, attempts=0))


@pytest.mark.anyio
async def test_five_are_not_behind_five_hundred(database_url: str) -> None:
    """Woken together and found last, the few are served before half of the many are."""
    async with running(database_url, hosts=2) as gate:
        code = await gate.code(SOURCE)
        await hosts(gate, 2)
        for namespace in (MUCH, LITTLE):  # each has its host
            await gate.agent(f"first-{namespace}", code, "Echo", namespace=namespace, suspend_after_ms=60_000)
        await gate.until("SELECT 1 FROM turn", lambda rows: len(rows) == 2)
        unit = Unit()
        _asleep(unit, code, MUCH, MANY)
        _asleep(unit, code, LITTLE, FEW)
        assert await gate.store.write(unit)
        ended = "SELECT agent, finished_at FROM turn WHERE finished_at > 0 AND message_id LIKE 'm-%'"
        rows = await gate.until(ended, lambda found: len(found) == MANY + FEW, 40)
        few = [at for agent, at in rows if LITTLE in agent]
        many = [at for agent, at in rows if MUCH in agent]
        assert (len(few), len(many)) == (FEW, MANY)
        assert max(few) < statistics.median(many)
        assert await gate.rows("SELECT 1 FROM inbox") == []
