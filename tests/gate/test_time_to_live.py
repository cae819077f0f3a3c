"""A message with a time to live is given up when no turn has begun with it by then; and only then."""

import asyncio
import time
from pathlib import Path
from typing import Any

import orjson
import pytest

from controlplane.effects.turnref import at_time
from controlplane.store.unit import Unit
from schemas.posting import Placed
from tests.gate.running import RunningGate, running

pytestmark = pytest.mark.anyio
TTL_S = 0.5
SOURCE = """
import pathlib
import time
from ray_runtime import Agent


class Onward(Agent):
    async def on_message(self, turn, envelope):
        path = pathlib.Path(envelope.data["path"])
        begun = path.exists()
        path.touch()
        if not begun:
            time.sleep(0.8)
            if envelope.data.get("fails"):
                raise ValueError("not yet")
            return turn.continue_as(envelope.data)
        return "done"
"""


async def publish(gate: RunningGate, data: Any, message_id: str, ask_until: float) -> None:
    expires_at = time.time() + TTL_S
    body = {
        "specversion": "1.0", "id": message_id, "source": "/operators/test", "type": "steward.message",
        "subject": "default/onward", "time": "2026-01-01T00:00:00Z", "data": data, "replyto": message_id,
        "expires": at_time(expires_at),
    }  # fmt: skip
    placed = Placed(expires_at=expires_at)
    await gate.client.publish("default", "onward", message_id, orjson.dumps(body), ask_until, "test", b"", placed)


async def ended(gate: RunningGate) -> list[tuple[Any, ...]]:
    """Whether turns committed and failed, once the inbox is empty."""
    await gate.until("SELECT 1 FROM inbox", lambda rows: not rows)
    assert await gate.rows("SELECT reason, detail FROM dead_letter") == []
    return await gate.rows("SELECT outcome FROM turn WHERE trigger = 'message'")


@pytest.mark.parametrize("asks", [True, False])
@pytest.mark.parametrize(("how", "turns"), [("fails", 1), ("goes_on", 2)])
async def test_what_a_turn_has_begun_with(quick_url: str, tmp_path: Path, how: str, turns: int, asks: bool) -> None:
    """It is tried again, and goes on as the next turn, also when its time is over by then."""
    async with running(quick_url) as gate:
        await gate.agent("onward", await gate.code(SOURCE), "Onward", suspend_after_ms=60_000)
        await gate.until("SELECT 1 FROM turn WHERE outcome = 'committed'", bool)
        await publish(gate, {"path": f"{tmp_path}/it", how: 1}, "m1", time.time() + 60 if asks else 0.0)
        assert await ended(gate) == turns * [("committed",)]
        if asks:
            assert await gate.rows("SELECT outcome FROM awaiting") == [("answered",)]


async def test_an_attempt_that_only_its_count_tells_of(quick_url: str, tmp_path: Path) -> None:
    """A turn had begun with a question, and its host was lost before anything of it was written."""
    async with running(quick_url) as gate:
        uid = await gate.agent("onward", await gate.code(SOURCE), "Onward")
        await gate.until("SELECT 1 FROM turn WHERE outcome = 'committed'", bool)
        await gate.client.control("stop", uid, {})
        (tmp_path / "it").touch()
        await publish(gate, {"path": f"{tmp_path}/it"}, "m1", time.time() + 60)
        assert await gate.store.write(Unit().raw("UPDATE inbox SET attempts = 1", [], 1))
        await gate.until("SELECT expires_at FROM awaiting WHERE expires_at IS NOT NULL", lambda rows: not rows)
        await asyncio.sleep(0.1)
        await gate.client.control("wake", uid, {})
        assert await ended(gate) == [("committed",)]
