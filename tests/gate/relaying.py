"""Other nodes for a gate without Ray: a stand-in for the placer says that they are there, and runs their relays.

The relays are the real ones, as processes; that there is a second machine is only said.
"""

import asyncio
import contextlib
import os
import signal
import sys
from pathlib import Path
from typing import Any

import msgspec

from ray_runtime.connection import Connection
from ray_runtime.node_folder import folder_of
from ray_runtime.relay import Relay
from schemas.base import canonical
from schemas.frames import Home, HostsWanted, NodesSeen, PlacerHello
from schemas.wire import ToPlacer
from tests import zygote
from tests.gate.running import RunningGate, true

OWN = "0" * 56


def main() -> None:
    """`relay FOLDER NODE_ID HOME`: HOME is a file, which is read again at SIGHUP."""
    folder, node_id, home = sys.argv[1:]

    def read() -> Home:
        return msgspec.json.decode(Path(home).read_bytes(), type=Home)

    async def serve() -> None:
        relay = Relay(Path(folder), node_id, read())
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, lambda: relay.moved(read()))
        await relay.serve()

    asyncio.run(serve())


class Cluster:
    """What the gate is told of nodes, and what it tells a placer."""

    def __init__(self, gate: RunningGate) -> None:
        self.gate = gate
        self.home: Home | None = None
        self.wanted = HostsWanted([])
        self.nodes: dict[str, bool] = {}
        self.called: dict[str, str] = {}  # how a node calls itself, where that is otherwise than here
        self.relays: dict[str, zygote.Forked] = {}
        self._connection: Connection[ToPlacer] | None = None

    async def connect(self) -> None:
        """As the placer of this gate; once more after it has started again."""
        loop = asyncio.get_running_loop()
        self.home, self._connection = None, None
        while self._connection is None:
            with contextlib.suppress(OSError):
                _, self._connection = await loop.create_unix_connection(
                    lambda: Connection[ToPlacer](ToPlacer, self._told), str(self.gate.socket)
                )
            await asyncio.sleep(0.02)
        self._connection.send(PlacerHello(os.getpid(), "local", ""))
        self.see()

    def _told(self, frame: ToPlacer) -> None:
        if isinstance(frame, Home):
            self.home = frame
        elif isinstance(frame, HostsWanted):
            self.wanted = frame

    def see(self) -> None:
        """Say what nodes there are, and which of them are alive."""
        rows: list[dict[str, Any]] = [{"node": "local", "ray_node_id": OWN, "here": True, "alive": True}]
        rows += [
            {"node": self.called.get(it, it), "ray_node_id": id_of(it), "here": False, "alive": on}
            for it, on in self.nodes.items()
        ]
        assert self._connection is not None
        self._connection.send(NodesSeen(canonical([it | {"resources": {}, "labels": {}} for it in rows])))

    async def node(self, name: str) -> zygote.Forked:
        """There is another node, and its relay."""
        self.nodes[name] = True
        self.see()
        await true(lambda: self.home is not None)
        self.relays[name] = relay = zygote.start("relay", str(self.folder(name)), id_of(name), str(self.told(name)))
        await true(lambda: (self.folder(name) / "gate.sock").exists())
        return relay

    def told(self, name: str) -> Path:
        """A file that says where the gate is."""
        assert self.home is not None
        path = self.gate.folder / f"home-{name}.json"
        path.touch(mode=0o600)
        path.write_bytes(msgspec.json.encode(self.home))
        return path

    async def move(self, name: str) -> None:
        """The relay is told where the gate is now."""
        await true(lambda: self.home is not None)
        self.told(name)
        self.relays[name].send_signal(signal.SIGHUP)

    def folder(self, name: str) -> Path:
        return folder_of(self.gate.socket, id_of(name))

    def host(self, name: str) -> zygote.Forked:
        """A host on another node."""
        host_id = f"h-{name}-{len(self.gate.hosts)}"
        process = zygote.start("host", "--socket", str(self.folder(name) / "gate.sock"), "--host-id", host_id)
        self.gate.hosts.append(process)
        return process

    def end(self) -> None:
        for relay in self.relays.values():
            relay.kill()
            relay.wait(10)
        if self._connection is not None:
            self._connection.close()


def id_of(name: str) -> str:
    """What Ray would call a node."""
    return name.encode().hex().ljust(56, "0")
