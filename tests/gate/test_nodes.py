"""A node that is drained: its hosts end, its agents wait with their messages, and go on when it is undone."""

import asyncio
import time
from typing import Any

import pytest

from schemas.problem import Refusal
from tests.gate.running import RunningGate, running
from tests.gate.test_moving import hosts
from tests.gate.zoo import SOURCE

pytestmark = pytest.mark.anyio
ENDED = "SELECT COUNT(*) FROM host WHERE ended_at IS NULL"


async def drain(gate: RunningGate, node: str = "local", **more: Any) -> dict[str, Any]:
    return await gate.client.control("drain_node", node, {"principal": "test", **more})


async def why_awake(gate: RunningGate, uid: str, timeout_s: float = 20) -> str:
    """What an agent waits for, once the gate has taken up that it does."""
    limit = time.monotonic() + timeout_s
    while not (why := (await gate.client.control("look", uid, {}))["why_awake"]):
        assert time.monotonic() < limit, "it waits for nothing"
        await asyncio.sleep(0.02)
    return str(why)


async def test_a_drained_node_takes_nobody_until_it_is_undone(quick_url: str) -> None:
    """Over a restart of the gate too; who waits says why, and nothing that was sent is lost."""
    async with running(quick_url, hosts=2, hosts_warm=1) as gate:
        code = await gate.code(SOURCE)
        await hosts(gate, 2)
        await gate.agent("echo", code, "Echo", suspend_after_ms=60_000)
        assert await gate.ask("echo", 0, "e0") == 0
        with pytest.raises(Refusal) as refused:
            await drain(gate, "nowhere")
        assert (refused.value.problem.reason, refused.value.problem.field) == ("NOT_FOUND", "/node")
        assert (await drain(gate, dry_run=True))["draining"] is False
        done = await drain(gate)
        assert (done["draining"], done["done"], done["hosts"], done["agents"]) == (True, True, 0, 0)
        assert (await drain(gate))["done"], "saying it again changes nothing"
        for process in gate.hosts:
            assert await asyncio.to_thread(process.wait, 10) == 0
        asked = asyncio.create_task(gate.ask("echo", 1, "e1", 40))
        gate.kill()
        gate.start()
        late = gate.host()
        assert await asyncio.to_thread(late.wait, 20) == 0, "a host that comes is let go"
        assert (await gate.client.control("nodes", "", {}))["closed"] == ["local"]
        await gate.until(
            "SELECT 1 FROM inbox WHERE message_id = 'e1'", bool
        )  # it may be sent once more, to the next gate
        assert "nodes.drain with undo" in await why_awake(gate, "agent_echo")
        assert not asked.done()
        assert (await drain(gate, undo=True))["draining"] is False
        gate.host()
        assert await asked == 1
        types = await gate.rows("SELECT type FROM event WHERE type LIKE 'node.%' ORDER BY cursor")
        assert [row[0] for row in types] == ["node.draining", "node.opened"]
