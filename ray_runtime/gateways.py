"""The relays of other nodes as Ray actors, `gate/<node>`: one where Ray has a node, as long as it has it.

The placer keeps them. An actor that has ended is made again; one of an earlier placer is found by its name,
and told where the gate is now.
"""

import asyncio
import contextlib
import logging
import os
import threading
import time
from pathlib import Path
from typing import Any

from ray_runtime.node_folder import folder_of
from ray_runtime.relay import Relay
from schemas.frames import Home

log = logging.getLogger("steward.placer")
NAME_PREFIX = "gate/"
END_S_MAX = 5.0


class Gateway:
    """A relay in a process of its own, on its node. `watch` lasts as long as it lives."""

    def __init__(self, socket: str, node: str, home: Home) -> None:
        import ray

        self._node = node
        node_id = ray.get_runtime_context().get_node_id()
        self._relay = Relay(folder_of(Path(socket), node_id), node_id, home)
        self._loop = asyncio.new_event_loop()
        self._ended = threading.Event()
        threading.Thread(target=self._serve, name=f"relay-{node}", daemon=True).start()

    def __repr__(self) -> str:
        return f"{NAME_PREFIX}{self._node}"

    def moved(self, home: Home) -> None:
        """The gate is elsewhere now."""
        self._loop.call_soon_threadsafe(self._relay.moved, home)

    def end(self) -> None:
        """End in good order; answers when its folder is gone."""
        with contextlib.suppress(RuntimeError):  # it has ended by itself
            self._loop.call_soon_threadsafe(self._relay.end)
        self._ended.wait(END_S_MAX)

    def watch(self) -> None:
        """Answers when the relay has ended."""
        self._ended.wait()

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._relay.serve())
        finally:
            self._ended.set()
            time.sleep(END_S_MAX)  # the placer ends this process, unless Ray has given up the node
            os._exit(0)


class Gateways:
    """The actors of the relays, kept by the placer."""

    def __init__(self, ray: Any, socket: Path) -> None:
        self._ray = ray
        self._socket = socket
        self._actors: dict[str, Any] = {}  # by Ray's id of the node
        self._watches: dict[str, asyncio.Task[None]] = {}
        self._home: Home | None = None
        self._class = ray.remote(
            lifetime="detached", num_cpus=0, max_restarts=0, max_task_retries=0, max_concurrency=4
        )(Gateway)

    def find(self, names: list[str]) -> None:
        """Those that an earlier placer made; their names end with Ray's id of the node."""
        for name in names:
            if name.startswith(NAME_PREFIX):
                with contextlib.suppress(ValueError):  # it died meanwhile
                    self._watch(name.rpartition("@")[2], self._ray.get_actor(name))

    def home(self, home: Home) -> None:
        """Where the gate is."""
        self._home = home
        for actor in self._actors.values():
            actor.moved.remote(home)

    def seen(self, nodes: list[dict[str, Any]]) -> None:
        """Make what is missing; what was on a node that is gone has gone with it."""
        for it in nodes:
            if it["alive"] and not it["here"] and self._home is not None and it["ray_node_id"] not in self._actors:
                self._create(it["ray_node_id"], it["node"], self._home)

    async def end(self) -> None:
        """End them all, in good order as far as they answer."""
        watches = list(self._watches.values())
        for actor in self._actors.values():
            actor.end.remote()
        if watches:
            await asyncio.wait(watches, timeout=END_S_MAX)
        for actor in list(self._actors.values()):
            self._kill(actor)

    def _create(self, node_id: str, node: str, home: Home) -> None:
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        there = NodeAffinitySchedulingStrategy(node_id=node_id, soft=False)
        made = self._class.options(name=f"{NAME_PREFIX}{node}@{node_id}", scheduling_strategy=there)
        log.info("node %s gets a relay", node)
        self._watch(node_id, made.remote(str(self._socket), node, home))

    def _watch(self, node_id: str, actor: Any) -> None:
        self._actors[node_id] = actor
        self._watches[node_id] = asyncio.create_task(self._until_gone(node_id, actor, actor.watch.remote()))

    async def _until_gone(self, node_id: str, actor: Any, watched: Any) -> None:
        with contextlib.suppress(self._ray.exceptions.RayError):
            await watched
        self._kill(actor)  # a relay that has ended leaves its process to us
        self._actors.pop(node_id, None)
        self._watches.pop(node_id, None)
        log.info("the relay of node %s is gone", node_id)

    def _kill(self, actor: Any) -> None:
        with contextlib.suppress(ValueError, self._ray.exceptions.RayError):
            self._ray.kill(actor, no_restart=True)
