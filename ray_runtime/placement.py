"""The placer: the only driver of Ray. It makes the hosts that the gate wants, and ends the others.

It decides nothing: `HostsWanted` names every host there shall be. What is missing is created, what
is not wanted is killed, what Ray says has died is reported, once. Ids are never used twice. It holds
nothing that a new placer could not find out: hosts are detached, and are found again by their names.
A loss of Ray ends this process and nobody else; whoever supervises it starts it again.
"""

import asyncio
import contextlib
import logging
import os
import shutil
import signal
from pathlib import Path
from typing import Any

from ray_runtime.cluster import ENVIRONMENT
from ray_runtime.connection import Connection
from schemas import faults
from schemas.wire import Bye, HostGone, HostsWanted, PlacerHello, ToPlacer

log = logging.getLogger("steward.placer")
NAME_PREFIX = "host/"
RETRY_S = 0.1
DEAD_S_MAX = 5.0
LOST_S = 10  # so long without Ray's control store, Ray ends its driver: the next placer finds the next head


class Placer:
    """Follows the gate's wishes, on one node."""

    def __init__(self, ray: Any, *, gate_socket: Path, node: str, dashboard: str) -> None:
        self._ray = ray
        self._socket = gate_socket
        self._node = node
        self._dashboard = dashboard
        self._actors: dict[str, Any] = {}
        self._watches: dict[str, asyncio.Task[None]] = {}
        self._gone: dict[str, str] = {}
        self._connection: Connection[ToPlacer] | None = None
        self._ended = asyncio.Event()
        self._host_class = _host_class(ray)

    async def serve(self) -> None:
        """Serve until SIGTERM or the gate's Bye; then end every host."""
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, self._ended.set)
        asyncio.get_running_loop().add_signal_handler(signal.SIGINT, self._ended.set)
        self._find()
        keeping = asyncio.create_task(self._keep_connected())
        await self._ended.wait()
        keeping.cancel()
        if self._connection is not None:
            self._connection.close()
        await self._end_all()

    def _find(self) -> None:
        """Hosts that an earlier placer made."""
        for name in self._ray.util.list_named_actors():
            if name.startswith(NAME_PREFIX):
                with contextlib.suppress(ValueError):  # it died meanwhile
                    self._watch(name.removeprefix(NAME_PREFIX), self._ray.get_actor(name))

    async def _keep_connected(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                _, connection = await loop.create_unix_connection(
                    lambda: Connection[ToPlacer](ToPlacer, self._received), str(self._socket)
                )
            except OSError:
                await asyncio.sleep(RETRY_S)
                continue
            self._connection = connection
            connection.send(PlacerHello(os.getpid(), self._node, self._dashboard))
            for host_id, reason in self._gone.items():
                connection.send(HostGone(host_id, reason))
            await connection.lost
            self._connection = None

    def _received(self, frame: ToPlacer) -> None:
        match frame:
            case HostsWanted():
                self._follow(set(frame.host_ids))
            case Bye():
                self._ended.set()

    def _follow(self, wanted: set[str]) -> None:
        """Make what is missing, end what is not wanted."""
        for host_id in sorted(wanted - self._actors.keys() - self._gone.keys()):
            self._create(host_id)
        for host_id in sorted(self._actors.keys() - wanted):
            self._kill(host_id)
        for host_id in self._gone.keys() - wanted:
            del self._gone[host_id]  # the gate knows, and an id comes once

    def _create(self, host_id: str) -> None:
        faults.at("placer.creating")
        actor = self._host_class.options(name=NAME_PREFIX + host_id).remote(str(self._socket), host_id, self._node)
        faults.at("placer.created")
        log.info("host %s is wanted", host_id)
        self._watch(host_id, actor)

    def _watch(self, host_id: str, actor: Any) -> None:
        self._actors[host_id] = actor
        self._watches[host_id] = asyncio.create_task(self._until_gone(host_id, actor.watch.remote()))

    async def _until_gone(self, host_id: str, watched: Any) -> None:
        """Wait for the end of a host, and tell the gate."""
        try:
            await watched
            reason = "the host ended"
        except self._ray.exceptions.RayError as error:
            reason = _reason(error)
        self._actors.pop(host_id, None)
        self._watches.pop(host_id, None)
        self._gone[host_id] = reason
        shutil.rmtree(self._socket.parent / "code" / host_id, ignore_errors=True)
        log.info("host %s is gone: %s", host_id, reason)
        faults.at("placer.gone")
        if self._connection is not None:
            self._connection.send(HostGone(host_id, reason))

    def _kill(self, host_id: str) -> None:
        with contextlib.suppress(ValueError, self._ray.exceptions.RayError):
            self._ray.kill(self._actors[host_id], no_restart=True)

    async def _end_all(self) -> None:
        """End every host, and wait until Ray says that they are gone."""
        watches = list(self._watches.values())
        for host_id in list(self._actors):
            self._kill(host_id)
        if watches:
            await asyncio.wait(watches, timeout=DEAD_S_MAX)


def _reason(error: Exception) -> str:
    """The sentence in which Ray says why the actor is dead."""
    lines = str(error).strip().splitlines()
    told = next((line for line in lines if line.startswith("The actor is dead")), lines[-1])
    return told.split(" Some common causes")[0][:500]


def _host_class(ray: Any) -> Any:
    """The actor class, on this node: a host and its gate share a socket."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    from ray_runtime.actor import Host

    here = NodeAffinitySchedulingStrategy(node_id=ray.get_runtime_context().get_node_id(), soft=False)
    remote = ray.remote(lifetime="detached", num_cpus=0, max_restarts=0, max_task_retries=0, scheduling_strategy=here)
    return remote(Host)


def run_placer(*, gate_socket: Path, ray_address: str, ray_namespace: str, token_path: Path | None, node: str) -> None:
    """Connect to Ray, then follow the gate until SIGTERM. Ends with an exception when Ray is not there."""
    os.environ.update({"RAY_gcs_rpc_server_reconnect_timeout_s": str(LOST_S)})
    if token_path is not None:
        os.environ.update({**ENVIRONMENT, "RAY_AUTH_TOKEN_PATH": str(token_path)})
    import ray  # after its environment is set: it is read at import

    context = ray.init(
        address=ray_address,
        namespace=ray_namespace,
        log_to_driver=False,
        logging_level="ERROR",
        configure_logging=False,
    )
    dashboard = context.dashboard_url
    try:
        asyncio.run(_serve(ray, gate_socket, node, f"http://{dashboard}" if dashboard else ""))
    finally:
        ray.shutdown()


async def _serve(ray: Any, gate_socket: Path, node: str, dashboard: str) -> None:
    await Placer(ray, gate_socket=gate_socket, node=node, dashboard=dashboard).serve()
