"""An agent that is a model, from its manifest to its answer, through a whole installation."""

import asyncio
import threading
from collections.abc import Iterator

import pytest

from tests.end_to_end.agents import agent
from tests.gate.model import Endpoint, Reply, endpoint
from tests.stack import Stack

SECRET = "correct horse"


@pytest.fixture
def far() -> Iterator[Endpoint]:
    """A model's endpoint, on a loop of its own."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    opened = endpoint()
    yield asyncio.run_coroutine_threadsafe(opened.__aenter__(), loop).result(10)
    asyncio.run_coroutine_threadsafe(opened.__aexit__(None, None, None), loop).result(10)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(10)
    loop.close()


def test_a_model_answers_in_its_form_and_asks_another_agent(stack: Stack, far: Endpoint) -> None:
    """Secret, connection and two agents are applied at once; a wrong answer is asked for again."""
    output = {"type": "object", "properties": {"n": {"type": "integer", "minimum": 5}}, "required": ["n"]}
    llm = {"connection": "model", "model": "m", "tools": [{"name": "friend", "agent": "echo"}], "output": output}
    connection = {
        "protocol": "llm",
        "endpoint": far.url,
        "secret": {"name": "model-key", "key": "token"},
        "options": {"allow_private": True},
    }
    grants = [{"effect": "llm.request", "connection": "model"}]
    change = stack.apply(
        {"kind": "Secret", "metadata": {"name": "model-key"}, "spec": {"values": {"token": SECRET}}},
        {"kind": "Connection", "metadata": {"name": "model"}, "spec": connection},
        agent("echo", "Echo"),
        {
            "kind": "Agent",
            "metadata": {"name": "thinker"},
            "spec": {"runtime": "llm", "llm": llm, "mandate": {"grants": grants}},
        },
    )
    assert change["outcome"] == "verified", change
    far.script = [
        Reply(calls=[("friend", {"data": "five?"})]),
        Reply(calls=[("final_answer", {"n": 4})]),
        Reply(calls=[("final_answer", {"n": 5})]),
    ]
    answer = stack.call("agents.ask", name="thinker", data="which number?", timeout_s=60)  # its host is a new one
    assert (answer["answered"], answer["reply"]) == (True, {"n": 5})
    results = [it["content"] for it in far.bodies[-1]["messages"] if it["role"] == "tool"]
    assert results == ["five?", '{"error":"$.n: 4 is less than the minimum of 5"}']
    assert {it.headers["authorization"] for it in far.asked} == {f"Bearer {SECRET}"}
