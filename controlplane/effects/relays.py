"""Relays: hosts of other nodes speak through them, and are hosts like any other.

Where Ray has another node, the gate listens on one more socket: TLS, by a certificate and a key of this
run, which its relays are told through the placer. Whoever connects there proves the key with its first
frame, which is small and soon, or is cut off; after it a connection is one process's, as the relay of its
node says, and may say what a host says and nothing else. On one node nothing listens.
"""

import asyncio
import hmac
import logging
import os
import secrets
from collections.abc import Callable
from typing import Any, cast

from controlplane.effects.node import Node
from controlplane.effects.wireio import Wire
from schemas import wire as hosting
from schemas.frames import FRAME_BYTES_MAX, EndProcess, Home, RelayHello, Through

log = logging.getLogger("steward.gate")
FIRST_BYTES_MAX = 1024
FIRST_S_MAX = 5.0
STRANGERS_MAX = 256

Received = Callable[[Wire, Any], None]
Lost = Callable[[Wire], None]


class FarWire(Wire):
    """A connection from another node: nobody's until its first frame says whose, with the key."""

    def __init__(self, made: Lost, first: Received, lost: Lost) -> None:
        super().__init__(hosting.FromRelay, first, lost, made)
        self.frame_bytes_max = FIRST_BYTES_MAX
        self.doubted = False
        self._began: float | None = None
        self._late: asyncio.TimerHandle | None = None

    @property
    def began(self) -> float | None:
        return self._began

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._late = self._loop.call_later(FIRST_S_MAX, self.abort)
        if self._made is not None:
            self._made(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self.in_time()
        super().connection_lost(exc)

    def in_time(self) -> None:
        """It is not cut off any more."""
        if self._late is not None:
            self._late.cancel()

    def abort(self) -> None:
        """Cut it off; nothing that waits is sent."""
        self.mute()
        if self._transport is not None:
            self._transport.abort()

    def is_of(self, frame: Through, received: Received) -> None:
        """From now on it is a host's."""
        self.pid, self._began, self.node = frame.pid, frame.pid_started, frame.node_id
        self.uid = os.geteuid()  # nobody is confined there
        self.frame_bytes_max = FRAME_BYTES_MAX
        self.hear(hosting.FromHost, received)

    def is_relay(self, frame: RelayHello) -> None:
        """From now on it is a relay's own, which says nothing more."""
        self.pid, self.node = frame.pid, frame.node_id


class Relays:
    """The listener for other nodes, and the relays that are here."""

    def __init__(self, node: Node, received: Received, lost: Lost) -> None:
        self._node = node
        self._received = received
        self._lost = lost
        self._key = secrets.token_hex(32)
        self._strangers: dict[FarWire, None] = {}  # in the order of coming
        self.wires: set[FarWire] = set()
        self._here: dict[str, FarWire] = {}  # by the node
        self._server: asyncio.Server | None = None
        self._opening: asyncio.Task[None] | None = None
        self.home: Home | None = None

    def listen(self) -> None:
        """There is another node: be reachable for its relay, and have the placer tell it where."""
        if self._opening is None:
            self._opening = asyncio.get_running_loop().create_task(self._listen())

    async def _listen(self) -> None:
        from controlplane.guard.certificates import listener  # X.509 is loaded where there is another node

        bounds = self._node.bounds
        context, certificate = await asyncio.to_thread(listener)
        try:
            self._server = await asyncio.get_running_loop().create_server(
                lambda: FarWire(self._made, self._first, self._gone),
                bounds.relay_host,
                bounds.relay_port,
                ssl=context,
                ssl_handshake_timeout=FIRST_S_MAX,
                backlog=128,
            )
        except OSError as error:
            log.error("relays of other nodes can not be listened for: %s", error)
            self._opening = None  # the next look at the nodes tries again
            return
        host, port = self._server.sockets[0].getsockname()[:2]
        self.home = Home(bounds.relay_host or host, port, self._key, certificate)
        log.info("listening for relays of other nodes on %s port %d", host, port)
        self._node.hosts.placers_told()

    def end(self) -> None:
        """No new connections, and none that stand."""
        if self._server is not None:
            self._server.close()
        for wire in [*self.wires, *self._strangers]:
            wire.close()

    def nodes(self) -> list[str]:
        """Ray's ids of the nodes whose relay is here, and not in doubt."""
        return sorted(it for it, relay in self._here.items() if not relay.doubted)

    def doubt(self, node_id: str) -> None:
        """A host of the node is silent, or Ray says that it is lost: nobody goes there until its relay comes again.

        A relay that lives does so at once; the connection of one that does not would stand for ever.
        """
        relay = self._here.get(node_id)
        if relay is not None and not relay.doubted:
            relay.doubted = True
            asyncio.get_running_loop().call_soon(relay.close)  # after what it is still told

    def kill(self, node_id: str, pid: int, pid_started: float) -> None:
        """End a process of another node, where its relay is here; Ray is told all the same."""
        if (relay := self._here.get(node_id)) is not None:
            relay.send(EndProcess(pid, pid_started))

    def _made(self, wire: Wire) -> None:
        while len(self._strangers) >= STRANGERS_MAX:  # the oldest makes room
            oldest = next(iter(self._strangers))
            del self._strangers[oldest]
            oldest.abort()
        self._strangers[cast(FarWire, wire)] = None

    def _first(self, wire: Wire, frame: RelayHello | Through) -> None:
        far = cast(FarWire, wire)
        known = far in self._strangers
        if not known or not hmac.compare_digest(frame.key.encode(), self._key.encode()):
            log.warning("a peer of another node came without the key; its connection is closed")
            far.abort()
            return
        del self._strangers[far]
        far.in_time()
        if self._node.nodes.is_lost(frame.node_id):  # it hung, and Ray has given it up
            if isinstance(frame, RelayHello):
                far.send(EndProcess(frame.pid, 0.0))
            far.close()
            return
        self.wires.add(far)
        if isinstance(frame, Through):
            far.is_of(frame, self._received)
            return
        far.is_relay(frame)
        before, self._here[frame.node_id] = self._here.get(frame.node_id), far
        if before is not None:
            before.close()
        log.info("the relay of node %s is here, pid %d", frame.node_id, frame.pid)
        self._node.hosts.ensure()

    def _gone(self, wire: Wire) -> None:
        far = cast(FarWire, wire)
        self._strangers.pop(far, None)
        self.wires.discard(far)
        if self._here.get(far.node) is far:
            del self._here[far.node]
            log.warning("the relay of node %s is gone", far.node)
        self._lost(far)
