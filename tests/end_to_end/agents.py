"""Agents of the end-to-end tests, and their manifests."""

from typing import Any

SOURCE = """
from pydantic import BaseModel
from ray_runtime import Agent, Turn


class CounterState(BaseModel):
    seen: int = 0
    ticks: int = 0
    replies: list = []


class Echo(Agent):
    async def on_message(self, turn: Turn, envelope):
        return envelope.data


class Caller(Agent):
    async def on_message(self, turn: Turn, envelope):
        return await turn.perform("http.request", connection=envelope.data, method="POST", json={"n": 1})


class Late(Agent):
    state: CounterState

    async def on_message(self, turn: Turn, envelope):
        import os, pathlib, time
        if "mark" in envelope.data:
            with pathlib.Path(envelope.data["mark"]).open("a") as mark:
                mark.write(f"{os.getpid()}\\n")
            time.sleep(envelope.data["s"])
        await turn.perform("http.request", connection="far", method="POST", json=envelope.data)
        self.state.seen += 1
        return self.state.seen


class Counter(Agent):
    state: CounterState

    async def on_message(self, turn: Turn, envelope):
        self.state.seen += 1
        return {"seen": self.state.seen, "got": envelope.data}


class Asker(Agent):
    state: CounterState

    async def on_message(self, turn: Turn, envelope):
        answer = await turn.ask(envelope.data["whom"], envelope.data.get("what"))
        self.state.seen += 1
        return {"answer": answer.data, "asked": self.state.seen}


class Requester(Agent):
    state: CounterState

    async def on_message(self, turn: Turn, envelope):
        await turn.request("echo", {"n": 1})
        return "requested"

    async def on_reply(self, turn: Turn, reply):
        self.state.replies.append(reply.data)


class Ticker(Agent):
    state: CounterState

    async def on_start(self, turn: Turn):
        turn.timer("tick", every_s=0.5)

    async def on_timer(self, turn: Turn, timer):
        self.state.ticks += 1


class Reader(Agent):
    async def on_message(self, turn: Turn, envelope):
        reading = await turn.perform("machine.read", what="cpu")
        await turn.sleep(0.2)
        return {"cpu": reading["cpu_percent"], "now": turn.now().isoformat(), "uuid": str(turn.uuid())}


class Forwarder(Agent):
    async def on_message(self, turn: Turn, envelope):
        turn.publish("e2e-log", {"n": envelope.data["n"]})
        turn.send("collector", envelope.data)


class Collector(Agent):
    state: CounterState

    async def on_message(self, turn: Turn, envelope):
        if envelope.data == "list":
            return self.state.replies
        self.state.replies.append(envelope.data["n"])


class Parent(Agent):
    async def on_message(self, turn: Turn, envelope):
        await turn.spawn(envelope.data["child"], entrypoint="zoo:Echo")
        return "spawned"


class Person(Agent):
    async def on_message(self, turn: Turn, envelope):
        return await turn.ask_human("Shall I?", envelope.data, forever=True)


class Broken(Agent):
    async def on_message(self, turn: Turn, envelope):
        raise ValueError("on purpose")
"""


def agent(name: str, cls: str, *, grants: list[str] | None = None, **spec: Any) -> dict[str, Any]:
    """A manifest of one of the classes above."""
    return {
        "kind": "Agent",
        "metadata": {"name": name, "labels": {"app": "e2e"}},
        "spec": {
            "code": {"files": {"zoo.py": SOURCE}},
            "entrypoint": f"zoo:{cls}",
            "suspend_after_ms": 300,
            "mandate": {"purpose": "tests", "grants": [{"effect": it} for it in grants or []]},
            **spec,
        },
    }


def channel(name: str) -> dict[str, Any]:
    return {"kind": "Channel", "metadata": {"name": name}, "spec": {}}
