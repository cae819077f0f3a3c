"""A placer peer in memory: it takes tasks as Ray's does, and a test says what comes of them."""

import asyncio
import contextlib
import os
import time
from pathlib import Path
from typing import Any

from ray_runtime.connection import Connection
from schemas.base import canonical
from schemas.frames import HostsWanted, NodesSeen, PlacerHello, TaskBegin, TaskEnded, TaskStarted, TasksWanted
from schemas.wire import ToPlacer

NODE = {"node": "local", "ray_node_id": "1", "here": True, "alive": True, "resources": {"CPU": 4.0}, "labels": {}}


class Computer:
    """Connected whenever the gate is there; `answers` what each task comes to at once, if it is given."""

    def __init__(
        self, socket: Path, runner: str = "r1", answers: Any = None, gpus: float = 0.0, beside: Any = ()
    ) -> None:
        self.begun: dict[str, TaskBegin] = {}
        self.wanted: list[str] = []
        self.reserved: dict[str, str] = {}  # hosts that are wanted for one agent each
        self._socket, self._runner, self._answers = socket, runner, answers
        own = NODE | {"resources": {"CPU": 4.0, "GPU": gpus}} if gpus else NODE
        self._nodes = [own, *(NODE | {"here": False} | it for it in beside)]
        self._ended: dict[str, TaskEnded] = {}
        self._connection: Connection[ToPlacer] | None = None
        self._keeping = asyncio.create_task(self._keep())

    async def _keep(self) -> None:
        while True:
            with contextlib.suppress(OSError):
                _, connection = await asyncio.get_running_loop().create_unix_connection(
                    lambda: Connection[ToPlacer](ToPlacer, self._received), str(self._socket)
                )
                self._connection = connection
                connection.send(PlacerHello(os.getpid(), "local", "", self._runner))
                connection.send(NodesSeen(canonical(self._nodes)))
                for frame in self._ended.values():
                    connection.send(frame)
                await connection.lost
            await asyncio.sleep(0.02)

    def _received(self, frame: Any) -> None:
        if isinstance(frame, TaskBegin) and frame.key not in self.begun:
            self.begun[frame.key] = frame
            if self._answers is not None:
                self.end(frame.key, "succeeded", self._answers)
        elif isinstance(frame, HostsWanted):
            self.reserved = frame.reserved
        elif isinstance(frame, TasksWanted):
            self.wanted = frame.keys
            self._ended = {key: it for key, it in self._ended.items() if key in frame.keys}

    def started(self, key: str, active_s: float = 0.0) -> None:
        """A task has what it needs, since so long."""
        assert self._connection is not None
        self._connection.send(TaskStarted(key, active_s))

    def end(self, key: str, outcome: str, value: Any, cpu_s: float = 0.0) -> None:
        """What came of a task."""
        self._ended[key] = TaskEnded(key, outcome, canonical(value), cpu_s, cpu_s)
        if self._connection is not None:
            self._connection.send(self._ended[key])

    async def task(self, attempt: int = 1, beside: int = 0) -> str:
        """The key of a task that was begun the so-manieth time, beside others before it."""
        limit = time.monotonic() + 20
        while len(found := sorted(it for it in self.begun if it.endswith(f":{attempt}"))) <= beside:
            assert time.monotonic() < limit, f"no attempt {attempt} was begun: {list(self.begun)}"
            await asyncio.sleep(0.01)
        return found[beside]

    async def close(self) -> None:
        self._keeping.cancel()
        if self._connection is not None:
            self._connection.close()
        await asyncio.gather(self._keeping, return_exceptions=True)
