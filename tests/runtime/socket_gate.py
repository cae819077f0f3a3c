"""A gate peer over a real unix socket: enough of the protocol to hold real hosts to it.

It speaks our own wire with our own framing. Frames that hosts send are kept in order; tests wait
for them with a deadline, and send frames back.
"""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from ray_runtime.connection import Connection
from schemas.base import canonical, digest
from schemas.frames import Frame, HostGone, PlacerHello
from schemas.wire import CodeFiles, CodeWanted, FromHost, Hello, Lease, Run, Welcome
from tests.runtime.scripted import STARTED_AT, envelope

F = TypeVar("F", bound=Frame)


class Peer(Connection[Any]):
    """One accepted connection."""

    def __init__(self, gate: "SocketGate") -> None:
        super().__init__(FromHost, lambda frame: gate.took(self, frame))


class SocketGate:
    """Listens, keeps what came, and answers Hello and CodeWanted as a gate does."""

    def __init__(self, path: Path, files: dict[str, str] | None = None, *, renew_s: float = 0.3) -> None:
        self.path = path
        self.files = files or {}
        self.digest = digest(self.files)
        self.renew_s = renew_s
        self.frames: list[tuple[Peer, Frame]] = []
        self._server: asyncio.AbstractServer | None = None
        self._peers: set[Peer] = set()

    async def start(self) -> None:
        """Listen at the path."""
        self.path.unlink(missing_ok=True)
        self._server = await asyncio.get_running_loop().create_unix_server(self._accept, str(self.path))

    async def stop(self) -> None:
        """Drop everybody, as a killed gate does."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for peer in self._peers:
            peer.close()
        self._peers.clear()
        await asyncio.sleep(0)

    def _accept(self) -> Peer:
        peer = Peer(self)
        self._peers.add(peer)
        return peer

    def took(self, peer: Peer, frame: Frame) -> None:
        """Keep a frame; answer those that every host needs answered."""
        if isinstance(frame, Hello):
            peer.send(Welcome(self.renew_s * 3, self.renew_s))
        elif isinstance(frame, CodeWanted):
            peer.send(CodeFiles(frame.digest, canonical(self.files) if frame.digest == self.digest else b""))
        self.frames.append((peer, frame))

    async def next(self, kind: type[F], *, timeout_s: float = 10, where: Callable[[F], bool] | None = None) -> F:
        """The next frame of this kind, which is taken away."""
        return (await self.next_from(kind, timeout_s=timeout_s, where=where))[1]

    async def next_from(
        self, kind: type[F], *, timeout_s: float = 10, where: Callable[[F], bool] | None = None
    ) -> tuple[Peer, F]:
        """The same, with the connection it came over."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            for index, (peer, frame) in enumerate(self.frames):
                if isinstance(frame, kind) and (where is None or where(frame)):
                    del self.frames[index]
                    return peer, frame
            await asyncio.sleep(0.002)
        seen = [type(frame).__name__ for _, frame in self.frames]
        raise AssertionError(f"no {kind.__name__} within {timeout_s} s; there were {seen}")

    def run_frame(self, data: Any = None, **rest: Any) -> Run:
        """A Run of `echo:Echo`, to be changed by keyword."""
        given: dict[str, Any] = {
            "agent": "uid_1", "namespace": "default", "name": "echo", "epoch": 1, "version": 0,
            "entrypoint": "echo:Echo", "config": b"{}", "state": b"", "turn_id": "turn_1", "trigger": "message",
            "message": envelope(data), "started_at": STARTED_AT, "journal": [], "effects_max": 100,
            "journal_bytes_max": 1_048_576, "turn_s_max": 60.0,
        }  # fmt: skip
        return Run(**{**given, **rest})


__all__ = ["HostGone", "Lease", "Peer", "PlacerHello", "SocketGate"]
