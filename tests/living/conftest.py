"""A real gate on the test's database, and one real host process beside it: no Ray, nothing pretended."""

import asyncio
import shutil
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import pytest

from controlplane.effects.client import GateClient
from controlplane.effects.gate import Gate
from controlplane.effects.node import Bounds
from controlplane.feedback.doorbell import LocalDoorbell
from controlplane.operations import views
from controlplane.operations.living import (
    agents,
    channels,
    dead_letters,
    delayed,
    inspection,
    invitations,
    members,
    moving,
    questions,
    turns,
)
from controlplane.protocols.machine import MachineEffector
from controlplane.store.store import Store
from controlplane.store.tables import CodeRow
from schemas.agent import Agent
from schemas.base import canonical, digest
from schemas.calls import Named
from schemas.ports import Handler
from tests import zygote
from tests.living import world

KEY = "key of this test"
INBOX_MAX = 50
SOURCE = """
import pathlib
import time
from pydantic import BaseModel
from ray_runtime import Agent, Refusal, Turn


class Kept(BaseModel):
    got: list = []


class Echo(Agent):
    async def on_message(self, turn: Turn, envelope):
        return envelope.data


class Keeper(Agent):
    state: Kept

    async def on_message(self, turn: Turn, envelope):
        if envelope.data == "what?":
            return self.state.got
        self.state.got.append(envelope.data)


class Alarm(Agent):
    async def on_message(self, turn: Turn, envelope):
        turn.timer("alarm", every_s=0.05)

    async def on_timer(self, turn: Turn, timer):
        time.sleep(0.02)


class Slow(Agent):
    async def on_message(self, turn: Turn, envelope):
        await turn.sleep(0.7)
        return {"slept": True, "source": envelope.source, "onbehalfof": envelope.onbehalfof}


class Person(Agent):
    async def on_message(self, turn: Turn, envelope):
        try:
            return await turn.ask_human("Shall I?", **envelope.data)
        except Refusal as refusal:
            return refusal.problem.reason


class Several(Agent):
    async def on_message(self, turn: Turn, envelope):
        asked = [turn.ask_human(it) for it in envelope.data]
        echo, *answers = await turn.gather(turn.ask("echo", 1), *asked)
        return [echo.data, *answers]


class Poster(Agent):
    async def on_message(self, turn: Turn, envelope):
        for how, to, more in envelope.data:
            (turn.send if how == "send" else turn.publish)(to, "posted", **more)


class Stander(Agent):
    async def on_message(self, turn: Turn, envelope):
        flag = pathlib.Path(envelope.data)
        flag.with_suffix(".here").touch()
        while not flag.exists():
            time.sleep(0.01)
        await turn.sleep(60)


class Asker(Agent):
    state: Kept

    async def on_message(self, turn: Turn, envelope):
        how = {"priority": 4, "ttl_s": 0.05}
        if envelope.data == "heard?":
            return self.state.got
        if envelope.data == "request":
            turn.request("slow", 1, **how)
            return None
        try:
            await turn.ask("slow", 1, **how)
        except Refusal as refusal:
            replies = await turn.ask_all(["slow"], 1, **how)
            return [refusal.problem.reason, *[it.reason for it in replies.failures.values()]]

    async def on_reply(self, turn: Turn, envelope):
        self.state.got.append(envelope.data["reason"])


class Broken(Agent):
    async def on_message(self, turn: Turn, envelope):
        raise ValueError("it can not do that")
"""
FILES = {"living.py": SOURCE}


@dataclass
class Living:
    """The handlers, on a gate that runs."""

    store: Store
    gate: GateClient
    doorbell: LocalDoorbell
    handlers: dict[str, Handler]

    async def call(self, operation: str, given: Any, **about: Any) -> Any:
        return await self.handlers[operation](world.call(operation, now=time.time(), **about), given)

    async def agent(self, name: str, entrypoint: str, **spec: Any) -> str:
        """A living agent of the test's code."""
        whole = {
            "code": {"digest": digest(FILES)},
            "entrypoint": f"living:{entrypoint}",
            "suspend_after_ms": 60_000,
            **spec,
        }
        return await world.agent(self.store, name, spec=whole)

    async def until(self, done: Any, limit_s: float = 15) -> Any:
        """Poll until `done()` answers something true."""
        deadline = asyncio.get_running_loop().time() + limit_s
        while not (found := await done()):
            assert asyncio.get_running_loop().time() < deadline, "it did not come true in time"
            await asyncio.sleep(0.02)
        return found


@asynccontextmanager
async def running_gate(url: str, socket: Path) -> AsyncIterator[None]:
    gate = Gate(
        url=url,
        socket=socket,
        key=KEY,
        effectors={"machine.read": MachineEffector()},
        bounds=Bounds(turn_attempts_max=1, inbox_messages_max=INBOX_MAX),
    )
    task = asyncio.ensure_future(gate.serve())
    try:
        yield
    finally:
        assert gate._ended is not None
        gate._ended.set()
        await task


@asynccontextmanager
async def running_host(socket: Path) -> AsyncIterator[None]:
    process = zygote.start("host", "--socket", str(socket), "--host-id", "host_living")
    try:
        yield
    finally:
        process.kill()
        process.wait(timeout=10)


@pytest.fixture
async def living(anyio_backend: str, store: Store, database_url: str) -> AsyncIterator[Living]:
    """The handlers of living things on both databases, with a gate and a host."""
    folder = Path(tempfile.mkdtemp(prefix="stl-"))
    doorbell = LocalDoorbell()
    client = GateClient(folder / "gate.sock", KEY, doorbell.ring)

    async def view_agent(namespace: str, name: str) -> Agent:
        found = await views.get(store, "Agent", Named(namespace=namespace, name=name))
        assert isinstance(found, Agent)
        return found

    files = canonical(FILES).decode()
    await world.add(store, CodeRow, digest=digest(FILES), files=files, bytes=len(files), created_at=world.NOW)
    async with running_gate(database_url, folder / "gate.sock"), running_host(folder / "gate.sock"):
        client.connect()
        yield Living(
            store,
            client,
            doorbell,
            {
                **agents.handlers(store, client, view_agent, INBOX_MAX),
                **channels.handlers(store, client, doorbell),
                **members.handlers(store, client),
                **inspection.handlers(store, client),
                **moving.handlers(store, client, doorbell),
                **dead_letters.handlers(store),
                **delayed.handlers(store),
                **invitations.handlers(store),
                **questions.handlers(store, client),
                **turns.handlers(store),
            },
        )
        await client.close()
    shutil.rmtree(folder)


def as_json(data: Any) -> Any:
    return orjson.loads(orjson.dumps(data))
