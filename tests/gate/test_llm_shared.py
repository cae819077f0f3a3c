"""One endpoint of models for many agents: its limits and their budgets hold together; documents are tools."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest

from controlplane.operations.runtimes import DIGEST
from controlplane.store.unit import Unit
from schemas.connection import connection_spec
from tests.economy.test_budgets import budget
from tests.gate import test_llm_agent as llm_agent
from tests.gate.counting import counting
from tests.gate.far import connected, put
from tests.gate.model import Endpoint, Reply, endpoint
from tests.gate.running import RunningGate, running, true
from tests.gate.zoo import SOURCE
from tests.protocols.test_openapi import DOCUMENT

pytestmark = pytest.mark.anyio
GRANT = {"mandate": {"grants": [{"effect": "llm.request", "connection": "model"}]}}
ASKED = {
    "effect": "llm.request",
    "connection": "model",
    "model": "m",
    "messages": [{"role": "user", "text": "go"}],
    "output_tokens_max": 100,
}
ANTHROPIC = {
    "id": "msg_1", "type": "message", "role": "assistant", "model": "m", "stop_reason": "end_turn",
    "content": [{"type": "text", "text": "fine"}], "usage": {"input_tokens": 10, "output_tokens": 5},
}  # fmt: skip


def reply(api: str, **more: Any) -> Reply:
    return Reply("fine", **more) if api == "openai" else Reply(body=orjson.dumps(ANTHROPIC), **more)


@contextlib.asynccontextmanager
async def scene(url: str, api: str, **limits: Any) -> AsyncIterator[tuple[RunningGate, Endpoint]]:
    async with endpoint() as far, running(url) as gate:
        far.otherwise = reply(api)
        options = {"allow_private": True, "api": api}
        given = {"protocol": "llm", "endpoint": far.url, "options": options, "limits": {"timeout_s": 60, **limits}}
        await put(gate, Unit(), "Connection", "model", connection_spec(given).model_dump(mode="json"))
        code = await gate.code(SOURCE)
        for n in range(4):
            await gate.agent(f"n{n}", code, "Noter", **GRANT)
        yield gate, far


@pytest.mark.parametrize("api", ["openai", "anthropic"])
async def test_all_agents_share_the_limits_of_an_endpoint(quick_url: str, api: str) -> None:
    """Never more requests on their way than it allows, whoever asks; each is answered in the end."""
    async with scene(quick_url, api, in_flight_max=2, calls_per_s_max=1000) as (gate, far):
        until = asyncio.Event()
        far.script = [reply(api, until=until) for _ in range(4)]
        asking = [asyncio.create_task(gate.ask(f"n{n}", dict(ASKED), f"m{n}", 60)) for n in range(4)]
        await true(lambda: len(far.asked) == 2)
        await gate.until("SELECT 1 FROM journal WHERE kind = 'effect'", lambda rows: len(rows) == 4)
        assert len(far.asked) == 2, "all are written ahead, and two are on their way"
        until.set()
        answers = await asyncio.gather(*asking)
        assert [it["text"] for it in answers] == ["fine"] * 4
        assert len(far.asked) == 4


@pytest.mark.parametrize("api", ["openai", "anthropic"])
async def test_all_agents_share_a_budget_of_tokens(quick_url: str, api: str) -> None:
    """What one has used the others have not; it acts before its limit, by what an answer may have at most."""
    async with scene(quick_url, api) as (gate, far):
        await budget(gate, "tokens", {"tokens_out": 110}, "deny")
        assert (await gate.ask("n0", dict(ASKED), "m0", 60))["usage"] == {"tokens_in": 10, "tokens_out": 5}
        assert (await gate.ask("n1", dict(ASKED), "m1", 60))["text"] == "fine"
        assert (await gate.ask("n2", dict(ASKED), "m2", 60))["text"] == "fine"
        assert await gate.ask("n3", dict(ASKED), "m3", 60) == "BUDGET_EXCEEDED", "15 are used, and 100 more would pass"
        assert len(far.asked) == 3


async def test_operations_of_a_document_are_tools_of_a_model(quick_url: str) -> None:
    """It is told their arguments, in one schema of its own; what it calls is sent, or told why not."""
    async with llm_agent.scene(quick_url) as (gate, far), counting() as shop:
        await connected(gate, "shop", shop, {"allow_private": True, "openapi": DOCUMENT})
        tools = [
            {"name": "order", "effect": "http.orders_get", "connection": "shop"},
            {"name": "put", "effect": "http.putOrder", "connection": "shop"},
        ]
        spec = llm_agent.spec(tools=tools)
        spec["mandate"]["grants"].append({"effect": "http.*", "connection": "shop"})
        await gate.agent("buyer", DIGEST, "LlmAgent", **spec)
        far.script = [
            Reply(calls=[("order", {"path": {"id": 7}}), ("put", {"path": {"id": 7}, "body": {"items": [{}]}})]),
            Reply("bought"),
        ]
        assert await gate.ask("buyer", "buy", "m1", 40) == "bought"
        assert [(it.method, it.path) for it in shop.asked] == [("GET", "/v1/orders/7")]
        told = {it["function"]["name"]: it["function"]["parameters"] for it in far.bodies[0]["tools"]}
        assert told["order"]["properties"]["path"]["properties"]["id"] == {"type": "integer", "minimum": 1}
        assert len(told["put"]["$defs"]) == 2
        assert "components" not in told["put"]
        assert "sku" in far.bodies[1]["messages"][-1]["content"], "why it could not be sent"
