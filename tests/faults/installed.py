"""The traffic and the faults of a schedule on a whole installation: what its plane, its gate and Ray run, on two nodes.

Messages go by the plane's REST surface, all else by the gate, as another plane would speak to it.
"""

import asyncio
import contextlib
import os
import random
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpx
import orjson
import psutil

from controlplane.effects.client import GateClient
from controlplane.settings import Settings
from controlplane.store.store import Store
from controlplane.store.unit import Unit
from controlplane.supervision.folder import gate_key
from controlplane.supervision.processes import Known, Record
from ray_runtime.cluster import session_of
from schemas.faults import Fault
from tests.faults.acting import Acting
from tests.faults.points import fault
from tests.faults.test_crash_random import OF_GATE
from tests.faults.timetable import Act
from tests.faults.traffic import Traffic, heard
from tests.gate.far import put
from tests.gate.running import RunningGate
from tests.raylet import Raylet
from tests.stack import Stack

HUNG_S = 3.0  # beside a node's word that Ray waits for some two seconds
CALL_S_MAX = 5.0
SAID_S_MAX = 180.0
COME_S_MAX = 90.0
HOST = "ray::Host"


class Reached(RunningGate):
    """The gate of an installation; its processes are not ours."""

    def __init__(self, stack: Stack) -> None:
        settings = Settings(data=stack.data)
        self.url = stack.database_url or f"sqlite:///{settings.sqlite_path}"
        self.gate, self.hosts, self.bounds = None, [], {}
        self.client = GateClient(settings.gate_socket, gate_key(stack.data), lambda: None)
        self.store = Store(self.url, self.client)

    async def channel(self, name: str, *members: str) -> str:
        """Declared, too: what nobody has declared the plane takes away."""
        await put(self, Unit(), "Channel", name, {})
        return await super().channel(name, *members)

    @contextlib.asynccontextmanager
    async def connected(self) -> AsyncIterator[None]:
        self.client.connect()
        try:
            await self.client.up()
            yield
        finally:
            await self.client.close()
            await self.store.close()


class Other:
    """The other node: there whenever Ray is, until `end`."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._head = ""
        self._raylet: Raylet | None = None

    async def keep(self) -> None:
        while True:
            await asyncio.to_thread(self.come)
            await asyncio.sleep(0.2)

    def come(self) -> None:
        """Begin anew where it has died, or its head has."""
        with contextlib.suppress(FileNotFoundError, orjson.JSONDecodeError):
            address = orjson.loads((self._stack.data / "ray.json").read_bytes())["address"]
            if self._raylet is not None and address == self._head and self._whole():
                return
            self.kill()
            self._head, self._raylet = address, Raylet(self._stack.data, "other", resources={}, labels={})

    def _whole(self) -> bool:
        """Whether its raylet runs; what Ray has given up ends by itself."""
        return any(it.name() in ("raylet", "python", "python3.11") for it in self.processes())

    def processes(self) -> list[psutil.Process]:
        return self._raylet.processes() if self._raylet is not None else []

    def kill(self) -> None:
        if self._raylet is not None:
            self._raylet.kill()


class StackTraffic(Traffic):
    """Who sends speaks to the plane; whose answer is waited for, and who publishes, to the gate."""

    def __init__(self, stack: Stack, other: Other, **given: Any) -> None:
        super().__init__(**given)
        self.rest_s = 120.0
        self.stack = stack
        self.other = other
        self._http = httpx.AsyncClient(timeout=CALL_S_MAX)

    async def _send(self, name: str, data: Any, message_id: str, ask_until: float = 0.0) -> None:
        if ask_until:
            await super()._send(name, data, message_id, ask_until)
            return
        body = {"name": name, "data": data, "request_id": message_id}
        limit = time.monotonic() + SAID_S_MAX
        while (told := await self._called("agents.send", body)) is None:
            assert time.monotonic() < limit, f"{message_id} was not heard"
            await asyncio.sleep(0.1)
        self._said.append((name, data, told["message_id"], 0.0))

    async def _called(self, operation: str, body: dict[str, Any]) -> dict[str, Any] | None:
        headers = {"Authorization": f"Bearer {self.stack.token}"}
        with contextlib.suppress(httpx.HTTPError):
            answer = await self._http.post(
                f"{self.stack.url}/v1/operations/{operation}/call", json=body, headers=headers
            )
            if answer.status_code == 200:
                found: dict[str, Any] = answer.json()
                return found
        return None

    async def _orphans(self) -> list[str]:
        """Owned by nobody who lives, and hosts that nobody knows of."""
        owned = (
            "SELECT a.name, a.owner FROM agent a LEFT JOIN host h ON h.host_id = a.owner"
            " WHERE a.owner IS NOT NULL AND (h.host_id IS NULL OR h.ended_at IS NOT NULL)"
        )
        limit = time.monotonic() + 40
        while True:
            found = [f"{name} is owned by {owner}, who has ended" for name, owner in await self._rows(owned)]
            known = {row[0] for row in await self._rows("SELECT pid FROM host WHERE ended_at IS NULL")}
            found += [f"process {pid} is no host any more" for pid in self.hosts() if pid not in known]
            if not found or time.monotonic() > limit:
                return found
            await asyncio.sleep(0.2)

    def hosts(self) -> list[int]:
        """The processes of hosts, on both nodes."""
        head = Record(self.stack.data).find("ray")
        there = [*(session_of(head) if head is not None else []), *self.other.processes()]
        found = []
        for process in there:
            with contextlib.suppress(psutil.Error):
                if process.name().startswith(HOST):
                    found.append(process.pid)
        return found


class StackActing(Acting):
    """A timetable carried out on an installation."""

    _traffic: StackTraffic

    def hands(self) -> dict[str, Callable[[Act], Awaitable[None]]]:
        kept = {name: it for name, it in super().hands().items() if name not in ("cut plane",)}
        parts = {f"kill {it}": self._kill_part for it in ("gate", "placer", "gcs_server", "raylet", "head")}
        return kept | parts | {
            "kill plane": self._kill_plane, "stop plane": self._stop_plane,
            "stop gate": self._stop_part, "stop gcs_server": self._stop_part, "end gate": self._end_gate,
            "kill node": self._kill_node, "hang node": self._hang_node,
        }  # fmt: skip

    @property
    def _stack(self) -> Stack:
        return self._traffic.stack

    def _part(self, name: str) -> int | None:
        """The process of a name; None when it is away just now."""
        if name in ("gate", "placer"):
            found = Record(self._stack.data).find(name)
            return None if found is None else found.pid
        head: Known | None = Record(self._stack.data).find("ray")
        if head is None or name == "head":
            return head and head.pid
        with contextlib.suppress(psutil.Error, StopIteration):
            return next(it.pid for it in psutil.Process(head.pid).children(recursive=True) if it.name() == name)
        return None

    async def _kill_part(self, act: Act) -> None:
        _signal(self._part(act.what.removeprefix("kill ")), signal.SIGKILL)

    async def _end_gate(self, act: Act) -> None:
        _signal(self._part("gate"), signal.SIGTERM)

    async def _stop_part(self, act: Act) -> None:
        self._meanwhile(_stopped(self._part(act.what.removeprefix("stop ")), act.seconds))

    async def _kill_host(self, act: Act) -> None:
        _signal(await self._host_at(act), signal.SIGKILL)

    async def _stop_host(self, act: Act) -> None:
        self._meanwhile(_stopped(await self._host_at(act), act.seconds))

    async def _host_at(self, act: Act) -> int | None:
        """One of those that serve, rather than a warm one."""
        sql = "SELECT pid FROM host WHERE ended_at IS NULL AND digest IS NOT NULL ORDER BY created_at"
        rows = await heard(lambda: self._gate.rows(sql))
        return int(rows[act.whom % len(rows)][0]) if rows else None

    async def _kill_plane(self, act: Act) -> None:
        await asyncio.gather(*self._lasting)  # whoever speaks to it meanwhile
        await asyncio.to_thread(self._stack.kill)
        await asyncio.to_thread(self._stack.up)

    async def _stop_plane(self, act: Act) -> None:
        self._meanwhile(_stopped(self._stack.pid, act.seconds))

    async def _kill_node(self, act: Act) -> None:
        await asyncio.to_thread(self._traffic.other.kill)

    async def _hang_node(self, act: Act) -> None:
        async def hang() -> None:
            processes = self._traffic.other.processes()
            for number, wait_s in ((signal.SIGSTOP, HUNG_S), (signal.SIGCONT, 0.0)):
                for process in processes:
                    _signal(process.pid, number)
                await asyncio.sleep(wait_s)

        self._meanwhile(hang())

    async def _points(self, act: Act) -> None:
        self._arming.put(*_of_the_gate(self._chance))


def _of_the_gate(chance: random.Random) -> list[Fault]:
    """Deaths and delays of the gate, at named points; hosts that Ray starts have none."""
    acts = [chance.choice(("kill", "delay")) for _ in range(chance.randint(1, 3))]
    return [fault(chance.choice(OF_GATE), it, chance.randint(1, 4), round(chance.uniform(0.01, 0.3), 3)) for it in acts]


def _signal(pid: int | None, number: int) -> None:
    if pid is not None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


async def _stopped(pid: int | None, seconds: float) -> None:
    _signal(pid, signal.SIGSTOP)
    await asyncio.sleep(seconds)
    _signal(pid, signal.SIGCONT)
