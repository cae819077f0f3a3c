"""A real gate process with plain host processes, on a database of its own, for the tests of the gate."""

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import orjson
from sqlalchemy import insert

from controlplane.effects.client import GateClient
from controlplane.operations.starting import reach_generation
from controlplane.operations.world import Known
from controlplane.store.store import Store
from controlplane.store.tables import AgentRow, ChannelRow, CodeRow, InboxRow, ResourceRow, SubscriptionRow
from controlplane.store.unit import Unit
from schemas.base import digest, short_id
from tests import zygote

KEY = "key-of-tests"


class RunningGate:
    """Gate and hosts as processes; `client` is a plane's."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.folder = Path(tempfile.mkdtemp(prefix="gate-"))
        self.socket = self.folder / "gate.sock"
        self.gate: zygote.Forked | None = None
        self.hosts: list[zygote.Forked] = []
        self.bounds: dict[str, Any] = {}
        self.client = GateClient(self.socket, KEY, lambda: None)
        self.store = Store(url, self.client)

    def start(self, **bounds: Any) -> None:
        self.bounds = self.bounds | bounds
        bounds = self.bounds
        self.gate = zygote.start("gate", self.url, str(self.socket), KEY, orjson.dumps(bounds).decode())

    def kill(self) -> None:
        assert self.gate is not None
        self.gate.kill()
        self.gate.wait(timeout=10)

    def host(self, host_id: str = "") -> zygote.Forked:
        called = host_id or f"h{len(self.hosts)}-{os.getpid()}"
        process = zygote.start("host", "--socket", str(self.socket), "--host-id", called)
        self.hosts.append(process)
        return process

    def end(self) -> None:
        for process in [*self.hosts, *([self.gate] if self.gate else [])]:
            process.send_signal(signal.SIGCONT)
            process.send_signal(signal.SIGTERM)
        for process in [*self.hosts, *([self.gate] if self.gate else [])]:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=10)
                continue
            process.kill()
            process.wait(timeout=5)
        shutil.rmtree(self.folder, ignore_errors=True)

    # What the reconciler would write

    async def code(self, source: str) -> str:
        files = {"zoo.py": source}
        found = digest(files)
        row = {"digest": found, "files": orjson.dumps(files).decode(), "bytes": len(source), "created_at": time.time()}
        if not await self.rows("SELECT 1 FROM code WHERE digest = :it", it=found):
            await self.store.write(Unit().run(insert(CodeRow).values(row)))
        return found

    async def agent(self, name: str, code: str, cls: str, *, namespace: str = "default", **spec: Any) -> str:
        """An agent's rows and its first message, as one unit; then the gate is told."""
        uid, now = f"agent_{name}", time.time()
        whole = {"code": {"digest": code}, "entrypoint": f"zoo:{cls}", "suspend_after_ms": 200, **spec}
        start = short_id("msg", "start", uid, 1)
        body = {
            "specversion": "1.0",
            "id": start,
            "source": "/test",
            "type": "steward.start",
            "time": "2026-01-01T00:00:00Z",
        }
        unit = Unit()
        unit.run(
            insert(ResourceRow).values(
                kind="Agent", namespace=namespace, name=name, uid=uid, labels="{}", spec=orjson.dumps(whole).decode(),
                revision=1, generation=1, created_at=now, updated_at=now,
            )
        )  # fmt: skip
        unit.run(
            insert(AgentRow).values(
                uid=uid, namespace=namespace, name=name, generation=1, epoch=0, version=0, stopped=0, changed_at=now
            )
        )
        unit.run(
            insert(InboxRow).values(
                agent=uid,
                message_id=start,
                trigger="start",
                body=orjson.dumps(body).decode(),
                accepted_at=now,
                attempts=0,
            )
        )
        assert await self.store.write(unit)
        await self.client.control("reload", uid, {})
        return uid

    async def deploy(self, name: str, generation: int, code: str, cls: str, *, told: bool = True, **spec: Any) -> None:
        """A new generation of an agent, as a commit and the reconciler write it; then the bell, unless it is lost."""
        uid = f"agent_{name}"
        whole = {"code": {"digest": code}, "entrypoint": f"zoo:{cls}", "suspend_after_ms": 50, "watches": [], **spec}
        text = orjson.dumps(whole).decode()
        unit = Unit().raw("UPDATE resource SET spec = ?, generation = ? WHERE uid = ?", [text, generation, uid], 1)
        known = Known("Agent", "default", name, uid, generation, spec=whole)
        await self.store.write(reach_generation(unit, [(uid, known)], time.time()))
        if told:
            await self.client.control("reload", uid, {})

    async def channel(self, name: str, *members: str, **running: Any) -> str:
        uid = f"channel_{name}"
        unit = Unit().run(
            insert(ChannelRow).values(
                uid=uid, namespace="default", name=name, next_position=1, retention_s=3600.0, **running
            )
        )
        for member in members:
            unit.run(insert(SubscriptionRow).values(channel=uid, agent=member, position=0, since=time.time()))
        assert await self.store.write(unit)
        return uid

    # What operators do

    async def send(
        self,
        name: str,
        data: Any,
        message_id: str,
        ask_until: float = 0.0,
        namespace: str = "default",
        chain: dict[str, Any] | None = None,
    ) -> None:
        body = {
            "specversion": "1.0", "id": message_id, "source": "/operators/test", "type": "steward.message",
            "subject": f"{namespace}/{name}", "time": "2026-01-01T00:00:00Z", "data": data,
        }  # fmt: skip
        if ask_until:
            body["replyto"] = message_id
        if chain is not None:
            body |= {"chainid": message_id, "intentid": message_id, "onbehalfof": "test"}
        said = b"" if chain is None else orjson.dumps(chain)
        await self.client.publish(namespace, name, message_id, orjson.dumps(body), ask_until, "test", said)

    async def ask(
        self, name: str, data: Any, message_id: str, timeout_s: float = 20, chain: dict[str, Any] | None = None
    ) -> Any:
        """The answer, or the Problem as a dict with `reason`. `chain` is that of the message: limits and intent."""
        await self.send(name, data, message_id, time.time() + 60, chain=chain)
        limit = time.monotonic() + timeout_s
        while time.monotonic() < limit:
            rows = await self.rows("SELECT outcome, result FROM awaiting WHERE await_id = :it", it=message_id)
            if rows and rows[0][0] is not None:
                return orjson.loads(rows[0][1])
            await self.client.answered(message_id, 0.2)
        raise AssertionError(f"{name} did not answer {message_id}")

    async def rows(self, sql: str, **params: Any) -> list[tuple[Any, ...]]:
        from sqlalchemy import text

        return await self.store.read(
            lambda session: [tuple(row) for row in session.connection().execute(text(sql), params)]
        )

    async def until(self, sql: str, want: Callable[[list[tuple[Any, ...]]], bool], timeout_s: float = 20) -> Any:
        limit = time.monotonic() + timeout_s
        while time.monotonic() < limit:
            rows = await self.rows(sql)
            if want(rows):
                return rows
            await asyncio.sleep(0.02)
        raise AssertionError(f"{sql}: {rows}")


async def true(condition: Callable[[], Any], timeout_s: float = 20) -> None:
    """Wait until it is true."""
    limit = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < limit, "it did not come true"
        await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def running(url: str, hosts: int = 1, **bounds: Any) -> AsyncIterator[RunningGate]:
    gate = RunningGate(url)
    gate.start(**bounds)
    gate.client.connect()
    for _ in range(hosts):
        gate.host()
    try:
        async with asyncio.timeout(30):
            await gate.client.up()
        yield gate
    finally:
        await gate.client.close()
        await gate.store.close()
        await asyncio.to_thread(gate.end)
