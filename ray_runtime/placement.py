"""The placer: the only driver of Ray. It makes the hosts and tasks that the gate wants, and ends the others.

It decides nothing: `HostsWanted` names every host there shall be. What is missing is created, what
is not wanted is killed, what Ray says has died is reported, once. Ids are never used twice. It holds
nothing that a new placer could not find out: hosts are detached, and are found again by their names.
A loss of Ray ends this process and nobody else; whoever supervises it starts it again.
"""

import asyncio
import contextlib
import logging
import os
import secrets
import shutil
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from ray_runtime.cluster import ENVIRONMENT
from ray_runtime.connection import Connection
from ray_runtime.gateways import Gateways
from ray_runtime.selecting import NODE_ID_LABEL, selector
from ray_runtime.tasks import Tasks, in_words, require_taken
from schemas import faults
from schemas.base import canonical
from schemas.frames import Apart, Frame, Home, HostGone, HostsWanted, NodesSeen, PlacerHello, TaskBegin, TasksWanted
from schemas.isolation import Resources
from schemas.wire import Bye, ToPlacer

log = logging.getLogger("steward.placer")
NAME_PREFIX, OWN_PREFIX = "host/", "agent/"
RETRY_S, RETRY_S_MAX = 0.1, 5.0
AT_ONCE_S = 1.0  # a connection that ended so soon is not made anew at once
DEAD_S_MAX = 5.0
NODES_S = 2.0
LOST_S = 10  # so long without Ray's control store, Ray ends its driver: the next placer finds the next head


class Placer:
    """Follows the gate's wishes, on one node."""

    def __init__(self, ray: Any, *, gate_socket: Path, node: str, dashboard: str, hidden: list[str]) -> None:
        self._ray = ray
        self._socket = gate_socket
        self._node = node
        self._dashboard = dashboard
        self._hidden = hidden
        self._actors: dict[str, Any] = {}
        self._watches: dict[str, asyncio.Task[None]] = {}
        self._gone: dict[str, str] = {}
        self._connection: Connection[ToPlacer] | None = None
        self._ended = asyncio.Event()
        self._host_class, self._confined_class = _host_classes(ray)
        self._here = ray.get_runtime_context().get_node_id()
        self._gateways = Gateways(ray, gate_socket)
        self._look = asyncio.Event()
        self._runner = secrets.token_hex(8)
        self._tasks = Tasks(ray, gate_socket.parent / "tasks", self._send)

    async def serve(self) -> None:
        """Serve until SIGTERM or the gate's Bye; then end every host."""
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, self._ended.set)
        asyncio.get_running_loop().add_signal_handler(signal.SIGINT, self._ended.set)
        self._find()
        keeping = asyncio.create_task(self._keep_connected())
        looking = asyncio.create_task(self._look_at_nodes())
        await self._ended.wait()
        keeping.cancel()
        looking.cancel()
        if self._connection is not None:
            self._connection.close()
        await self._end_all()
        await self._gateways.end()

    def _find(self) -> None:
        """Hosts that an earlier placer made."""
        names = self._ray.util.list_named_actors()
        self._gateways.find(names)
        for name in names:
            if name.startswith((NAME_PREFIX, OWN_PREFIX)):
                with contextlib.suppress(ValueError):  # it died meanwhile
                    self._watch(name.rpartition("/")[2], self._ray.get_actor(name))

    async def _keep_connected(self) -> None:
        loop = asyncio.get_running_loop()
        pause_s = RETRY_S
        while True:
            try:
                _, connection = await loop.create_unix_connection(
                    lambda: Connection[ToPlacer](ToPlacer, self._received), str(self._socket)
                )
            except OSError:
                await asyncio.sleep(RETRY_S)
                continue
            self._connection = connection
            connection.send(PlacerHello(os.getpid(), self._node, self._dashboard, self._runner))
            for host_id, reason in self._gone.items():
                connection.send(HostGone(host_id, reason))
            self._look.set()
            self._tasks.again()
            began = loop.time()
            await connection.lost
            self._connection = None
            if loop.time() - began >= AT_ONCE_S:
                pause_s = RETRY_S
                continue
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, RETRY_S_MAX)

    async def _look_at_nodes(self) -> None:
        """Tell the gate what Ray says of its nodes, whenever that is new, to it or at all."""
        told: tuple[Any, bytes] | None = None
        while True:
            self._look.clear()
            nodes = told_of(await asyncio.to_thread(self._ray.nodes), self._here, self._node)
            self._gateways.seen(nodes)
            told_now = canonical(nodes)
            if self._connection is not None and told != (self._connection, told_now):
                told = self._connection, told_now
                self._connection.send(NodesSeen(told_now))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._look.wait(), NODES_S)

    def _received(self, frame: ToPlacer) -> None:
        match frame:
            case HostsWanted():
                self._follow(frame)
            case Home():
                self._gateways.home(frame)
                self._look.set()
            case TaskBegin():
                self._tasks.begin(frame)
            case TasksWanted():
                self._tasks.follow(frame)
            case Bye():
                self._ended.set()

    def _follow(self, frame: HostsWanted) -> None:
        """Make what is missing, end what is not wanted."""
        wanted = set(frame.host_ids)
        for host_id in sorted(wanted - self._actors.keys() - self._gone.keys()):
            self._create(host_id, frame)
        for host_id in sorted(self._actors.keys() - wanted):
            self._kill(host_id)
        for host_id in self._gone.keys() - wanted:
            del self._gone[host_id]  # the gate knows, and an id comes once

    def _create(self, host_id: str, frame: HostsWanted) -> None:
        """Make a host. What Ray does not take is told as the end of that one, and holds up no other."""
        faults.at("placer.creating")
        try:
            actor = self._made(host_id, frame)
            faults.at("placer.created")
            log.info("host %s is wanted", host_id)
            self._watch(host_id, actor)
        except Exception as error:  # noqa: BLE001 - the boundary to Ray, which raises what it likes
            self._over(host_id, f"it can not be made: {in_words(error)}")

    def _made(self, host_id: str, frame: HostsWanted) -> Any:
        reserved = frame.reserved.get(host_id, "")
        apart = msgspec.json.decode(reserved, type=Apart) if reserved else None
        about = str(self._socket), host_id, self._node, reserved
        if apart is None:
            where = {"name": NAME_PREFIX + host_id, "scheduling_strategy": self._on(frame.nodes.get(host_id))}
            return self._host_class.options(**where).remote(*about, self._here)
        require_taken(Resources.model_validate(apart.resources))
        if not apart.confined:
            return self._host_class.options(**_apart(host_id, apart, frame.avoid)).remote(*about, self._here)
        own = _apart(host_id, apart, [])  # with its labels, which an affinity to the node would pass over
        own["label_selector"] = own.get("label_selector", {}) | {NODE_ID_LABEL: self._here}
        # what the kernel says of it is said on the gate's node only
        return self._confined_class.options(**own).remote(*about, frame.uids.get(host_id, 0), self._hidden)

    def _on(self, node_id: str | None) -> Any:
        """A host that is shared is where the gate wants it."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        return NodeAffinitySchedulingStrategy(node_id=node_id or self._here, soft=False)

    def _watch(self, host_id: str, actor: Any) -> None:
        watched = actor.watch.remote()
        self._actors[host_id] = actor
        self._watches[host_id] = asyncio.create_task(self._until_gone(host_id, watched))

    async def _until_gone(self, host_id: str, watched: Any) -> None:
        """Wait for the end of a host, and tell the gate."""
        try:
            await watched
            reason = "the host ended"
        except self._ray.exceptions.RayError as error:
            reason = _reason(error)
        self._actors.pop(host_id, None)
        self._watches.pop(host_id, None)
        self._over(host_id, reason)

    def _over(self, host_id: str, reason: str) -> None:
        self._gone[host_id] = reason
        for folder in ("code", "work"):
            shutil.rmtree(self._socket.parent / folder / host_id, ignore_errors=True)
        log.info("host %s is gone: %s", host_id, reason)
        faults.at("placer.gone")
        self._send(HostGone(host_id, reason))
        self._look.set()  # its node may be gone, where no other shall be asked for

    def _send(self, frame: Frame) -> None:
        if self._connection is not None:
            self._connection.send(frame)

    def _kill(self, host_id: str) -> None:
        with contextlib.suppress(ValueError, self._ray.exceptions.RayError):
            self._ray.kill(self._actors[host_id], no_restart=True)

    async def _end_all(self) -> None:
        """End every host and task, and wait until Ray says that they are gone."""
        watches = [*self._watches.values(), *self._tasks.end()]
        for host_id in list(self._actors):
            self._kill(host_id)
        if watches:
            await asyncio.wait(watches, timeout=DEAD_S_MAX)


def _apart(host_id: str, apart: Apart, avoid: list[str]) -> dict[str, Any]:
    """Options of an actor that is one agent's own: its name says whose, and Ray keeps for it what it needs.

    Variables of a confined agent are not its supervisor's, which runs as root.
    """
    needs = dict(apart.resources)
    taken = {"num_cpus": needs.get("num_cpus", 0), "num_gpus": needs.get("num_gpus", 0)}
    if memory := needs.get("memory_bytes"):
        taken["memory"] = memory
    options = {"name": f"{OWN_PREFIX}{apart.address}/{host_id}", "resources": needs.get("custom") or {}, **taken}
    if apart.environment and not apart.confined:
        options["runtime_env"] = {"env_vars": apart.environment}
    where = selector(needs.get("labels") or {}, avoid)
    return options | ({"label_selector": where} if where else {})


def told_of(rows: list[dict[str, Any]], here: str, name: str) -> list[dict[str, Any]]:
    """Nodes as Ray's control store has them; addresses and internal marks are left out.

    Ours is called `name`, another as Ray was told to call it, else by its machine; that may be the same of several.
    """
    found = [
        {
            "node": name if it["NodeID"] == here else _called(it),
            "ray_node_id": it["NodeID"],
            "here": it["NodeID"] == here,
            "alive": it["Alive"],
            "resources": {kind: float(n) for kind, n in it["Resources"].items() if not kind.startswith("node:")},
            "labels": {key: str(value) for key, value in (it.get("Labels") or {}).items()},
        }
        for it in rows
    ]
    return sorted(found, key=lambda it: (it["node"], it["ray_node_id"]))


def _called(row: dict[str, Any]) -> str:
    given = row.get("NodeName") or ""
    return str(row["NodeManagerHostname"] if given in ("", row["NodeManagerAddress"]) else given)


def _reason(error: Exception) -> str:
    """The sentence in which Ray says why the actor is dead."""
    lines = str(error).strip().splitlines()
    told = next((line for line in lines if line.startswith("The actor is dead")), lines[-1])
    return told.split(" Some common causes")[0][:500]


def _host_classes(ray: Any) -> tuple[Any, Any]:
    """The actor classes; a host shares a socket with the gate, or with the relay of its node."""
    from ray_runtime.actor import ConfinedHost, Host

    remote = ray.remote(lifetime="detached", num_cpus=0, max_restarts=0, max_task_retries=0)
    return remote(Host), remote(ConfinedHost)


def run_placer(
    *,
    gate_socket: Path,
    ray_address: str,
    ray_namespace: str,
    token_path: Path | None,
    node: str,
    hidden: Sequence[Path] = (),
) -> None:
    """Connect to Ray, then follow the gate until SIGTERM. Ends with an exception when Ray is not there.

    `hidden` are folders that no confined process may see.
    """
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
        about = {
            "node": node,
            "dashboard": f"http://{dashboard}" if dashboard else "",
            "hidden": list(map(str, hidden)),
        }
        asyncio.run(_serve(ray, gate_socket, **about))
    finally:
        ray.shutdown()


async def _serve(ray: Any, gate_socket: Path, **about: Any) -> None:
    await Placer(ray, gate_socket=gate_socket, **about).serve()
