"""Agents that are a model on a real gate and real hosts: what has a receipt is asked of nobody again."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest
from sqlalchemy import insert, update

from controlplane.operations.runtimes import DIGEST, ENTRYPOINT, FILES
from controlplane.store.tables import CodeRow, ResourceRow
from controlplane.store.unit import Unit
from schemas.agent import AgentSpec
from schemas.connection import connection_spec
from tests.economy.test_budgets import budget
from tests.gate.far import put, secret
from tests.gate.model import Endpoint, Reply, endpoint
from tests.gate.running import RunningGate, running, true

pytestmark = pytest.mark.anyio
GRANTS = [{"effect": "llm.request", "connection": "model"}, {"effect": "machine.read"}]
TOOLS = [
    {"name": "cpu", "effect": "machine.read", "fixed": {"what": "cpu"}},
    {"name": "disk", "effect": "http.request"},
]


def spec(**llm: Any) -> dict[str, Any]:
    """As it is stored once it was admitted; code and entrypoint are the fixture's to add."""
    given = {"runtime": "llm", "llm": {"connection": "model", "model": "m", "tools": TOOLS, **llm}}
    whole = AgentSpec.model_validate({**given, "mandate": {"grants": GRANTS}}).model_dump(mode="json")
    return {name: it for name, it in whole.items() if name != "code"} | {"entrypoint": ENTRYPOINT}


@contextlib.asynccontextmanager
async def scene(url: str, **bounds: Any) -> AsyncIterator[tuple[RunningGate, Endpoint]]:
    async with endpoint() as far, running(url, lease_s=2.0, **bounds) as gate:
        row = {"digest": DIGEST, "files": orjson.dumps(FILES).decode(), "bytes": 1, "created_at": 1.0}
        await gate.store.write(Unit().run(insert(CodeRow).values(row)))
        options = {"allow_private": True}
        to = {"protocol": "llm", "endpoint": far.url, "options": options, "secret": {"name": "key", "key": "token"}}
        await secret(gate, "key")
        connection = connection_spec(to).model_dump(mode="json")
        await put(gate, Unit(), "Connection", "model", connection)
        await gate.agent("thinker", DIGEST, "LlmAgent", **spec())
        yield gate, far


async def test_a_turn_goes_on_where_its_host_died(quick_url: str) -> None:
    """Of three requests the first has a receipt and the second is on its way when the host dies: none is repeated.

    A spec that is changed meanwhile is the next turn's; the guard's refusal of a tool is told to the model.
    """
    async with scene(quick_url) as (gate, far):
        slow = Reply(calls=[("disk", {})], until=asyncio.Event())
        far.script = [Reply(calls=[("cpu", {})]), slow, Reply("done")]
        asked = asyncio.create_task(gate.ask("thinker", "how are you?", "m1", 40))
        await true(lambda: len(far.asked) == 2)
        await respecified(gate, spec(instructions="new", tools=[]))
        gate.hosts[0].kill()
        gate.host()
        assert slow.until is not None
        slow.until.set()
        assert await asked == "done"
        assert len(far.asked) == 3
        messages = far.bodies[2]["messages"]
        assert [it["role"] for it in messages] == ["user", *("assistant", "tool") * 2], "no instructions yet"
        assert "cpu_percent" in messages[2]["content"]
        assert "NOT_GRANTED" in messages[4]["content"]
        rows = await gate.rows("SELECT outcome, result FROM journal WHERE kind = 'effect' ORDER BY position")
        assert [row[0] for row in rows] == ["succeeded", "succeeded", "succeeded", "failed", "succeeded"]
        assert orjson.loads(rows[0][1])["usage"] == {"tokens_in": 10, "tokens_out": 5}
        (concluded,) = await gate.rows("SELECT body FROM journal WHERE kind = 'conclude'")
        turn = (await gate.rows("SELECT turn_id FROM turn WHERE message_id = 'm1'"))[0][0]
        said = {"alternatives": [], "because": [], "confidence": None, "text": "done"}
        assert orjson.loads(concluded[0]) == {**said, "seen": ["m1", f"{turn}:0:1", f"{turn}:0:3"]}
        assert await gate.ask("thinker", "and now?", "m2") == "fine"
        assert [it["role"] for it in far.bodies[3]["messages"]][:2] == ["system", "user"]
        assert "tools" not in far.bodies[3]


async def test_a_long_retry_after_is_waited_for_as_a_row(quick_url: str) -> None:
    """Longer than a request may wait: the turn parks, its agent is suspended, and it asks again when it may."""
    async with scene(quick_url) as (gate, far):
        rows = await gate.rows("SELECT spec FROM resource WHERE kind = 'Connection'")
        slow = orjson.dumps({**orjson.loads(rows[0][0]), "limits": {"timeout_s": 16}}).decode()
        changed = update(ResourceRow).where(ResourceRow.kind == "Connection").values(spec=slow, generation=2)  # type: ignore[arg-type]
        assert await gate.store.write(Unit().run(changed))
        far.script = [Reply(status=429, headers={"Retry-After": "9"}, body=b"come back"), Reply("at last")]
        asked = asyncio.create_task(gate.ask("thinker", "how are you?", "m1", 40))
        resting = "SELECT 1 FROM awaiting w JOIN agent a ON a.uid = w.agent"
        await gate.until(f"{resting} WHERE w.kind = 'sleep' AND w.resolved_at IS NULL AND a.owner IS NULL", bool)
        assert await asked == "at last"
        assert len(far.asked) == 2


async def test_a_summary_fits_into_a_budget_as_its_answer_does(sqlite_url: str) -> None:
    """A budget that has room for answers of the agent's own length has room for what it makes of old ones."""
    async with scene(sqlite_url) as (gate, far):
        await budget(gate, "tokens", {"tokens_out": 1000}, "deny")
        await gate.agent("talker", DIGEST, "LlmAgent", **spec(output_tokens_max=100, history_tokens_max=200, tools=[]))
        far.script = [Reply("fine"), Reply("in short")]
        assert await gate.ask("talker", "x" * 1000, "m1", 40) == "fine"
        asked = [it.get("max_completion_tokens") or it.get("max_tokens") for it in far.bodies]
        assert asked == [100, 50]
        rows = await gate.rows("SELECT outcome FROM journal WHERE kind = 'effect'")
        assert rows == [("succeeded",)] * 2


async def respecified(gate: RunningGate, given: dict[str, Any]) -> None:
    """What the plane writes when a spec has changed."""
    text = orjson.dumps({**given, "code": {"digest": DIGEST}}).decode()
    changed = update(ResourceRow).where(ResourceRow.name == "thinker").values(spec=text)  # type: ignore[arg-type]
    assert await gate.store.write(Unit().run(changed))
    await gate.client.control("reload", "agent_thinker", {})
