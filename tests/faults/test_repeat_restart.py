"""A plane that is killed takes no answer with it, and nobody waits for what it was executing."""

import contextlib
import threading
import time

import httpx
import pytest

from tests.conftest import SOAK
from tests.end_to_end.agents import agent, channel
from tests.stack import Stack


@pytest.mark.parametrize("database", ["sqlite", *(["postgresql"] if SOAK else [])])
def test_answers_outlive_a_killed_plane(database: str, request: pytest.FixtureRequest) -> None:
    """Kept answers come again after kill -9; a question that was under way is asked again at once, and handled once."""
    url = request.getfixturevalue("postgresql_url") if database == "postgresql" else None
    with Stack(url) as stack:
        stack.apply(channel("log"), agent("counter", "Counter"))
        calls = {
            "channels.publish": {"name": "log", "data": 1, "request_id": "p1"},
            "agents.send": {"name": "counter", "data": "sent", "request_id": "s1"},
            "tokens.create": {"principal": "bot", "role": "viewer", "request_id": "t1"},
            "code.put": {"files": {"a.py": "x = 1\n"}, "request_id": "c1"},
        }
        first = {name: stack.call(name, **raw) for name, raw in calls.items()}
        first["tokens.create"]["token"] = None  # shown once
        stack.call("agents.stop", name="counter")
        question = {"name": "counter", "data": "asked", "timeout_s": 120, "request_id": "q1"}

        def asking() -> None:
            with contextlib.suppress(httpx.HTTPError), stack.rest() as client:
                client.post("/v1/operations/agents.ask/call", json=question)

        under_way = threading.Thread(target=asking)
        under_way.start()
        limit = time.monotonic() + 30
        while stack.call("agents.inspect", name="counter")["inbox"] == 0:
            assert time.monotonic() < limit
            time.sleep(0.05)
        stack.kill()
        under_way.join(30)
        stack.up()
        for name, raw in calls.items():
            assert stack.call(name, **raw) == first[name], name
        stack.call("agents.wake", name="counter")
        assert (
            stack.call("agents.ask", **question)["reply"]["got"] == "asked"
        )  # no CONFLICT for the time of its patience
        assert stack.call("agents.ask", name="counter", data="end")["reply"]["seen"] == 3
        assert len(stack.call("channels.read", name="log")["envelopes"]) == 1
        assert [it["principal"] for it in stack.call("tokens.list")["items"]].count("bot") == 1
