"""A fleet on a whole installation: it comes, sleeps, wakes all at once, grows by one, and leaves nothing."""

import sqlite3
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tests.operations.plane import agent
from tests.stack import Stack

AGENTS = 200
ECHO = "from ray_runtime import Agent\n\n\nclass Echo(Agent):\n    async def on_message(self, turn, envelope):\n"
RUNNING = ("agent", "inbox", "label", "subscription", "timer", "awaiting WHERE agent IS NOT NULL")


def fleet(replicas: int) -> dict[str, Any]:
    files = {"echo.py": ECHO + "        return envelope.data\n"}
    spec = agent("x", code={"files": files}, suspend_after_ms=100)["spec"]
    template = {"labels": {"part": "crowd"}, "spec": spec}
    return {"kind": "Fleet", "metadata": {"name": "crowd"}, "spec": {"replicas": replicas, "template": template}}


def until_asleep(stack: Stack) -> dict[str, Any]:
    limit = time.monotonic() + 60
    while (agents := stack.call("system.status")["agents"])["awake"]:
        assert time.monotonic() < limit, agents
        time.sleep(0.1)
    counted: dict[str, Any] = agents
    return counted


def test_two_hundred_come_sleep_wake_and_go() -> None:
    """Every claim holds, each agent answers, all are rows again afterwards, and a fleet of none has no rows."""
    with Stack() as stack:
        change = stack.apply(fleet(AGENTS), timeout_s=120)
        assert (change["outcome"], len(change["claims"])) == ("verified", 1)
        assert until_asleep(stack) == {"total": AGENTS, "awake": 0, "suspended": AGENTS, "stopped": 0}
        with ThreadPoolExecutor(16) as pool:
            asked = [
                pool.submit(stack.call, "agents.ask", name=f"crowd-{n}", data=n, timeout_s=60) for n in range(AGENTS)
            ]
            assert [it.result()["reply"] for it in asked] == list(range(AGENTS))
        assert until_asleep(stack)["suspended"] == AGENTS
        assert stack.apply(fleet(AGENTS + 1))["outcome"] == "verified"
        assert stack.apply(fleet(0), timeout_s=120)["outcome"] == "verified"
        stack.stop()
        connection = sqlite3.connect(stack.data / "steward.db")
        left = {it: connection.execute(f"SELECT COUNT(*) FROM {it}").fetchone()[0] for it in RUNNING}
        owned = connection.execute("SELECT COUNT(*) FROM resource WHERE owner IS NOT NULL").fetchone()[0]
        connection.close()
        assert (left, owned) == (dict.fromkeys(RUNNING, 0), 0)
