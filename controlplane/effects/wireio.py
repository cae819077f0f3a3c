"""Frames over a unix socket: a u32 length and msgpack, decoded by type, written once a tick.

No stream and no task per frame: bytes arrive, frames are handed to `received` in order. What is
garbled or too long ends that connection, and nothing else. Writes of one tick go out as one.
"""

import asyncio
import contextlib
import logging
import os
import socket
import struct
from collections.abc import Callable
from typing import Any, cast

import msgspec

from schemas.frames import FRAME_BYTES_MAX, Frame
from schemas.processes import started

log = logging.getLogger("steward.gate")
HEAD = struct.Struct("<I")
_CREDENTIALS = struct.Struct("3i")
_encode = msgspec.msgpack.Encoder().encode


class Wire(asyncio.Protocol):
    """One connection. `received(wire, frame)` and `lost(wire)` are called on the loop; `made(wire)` before both."""

    def __init__(
        self,
        frames: Any,
        received: Callable[["Wire", Any], None],
        lost: Callable[["Wire"], None],
        made: Callable[["Wire"], None] | None = None,
    ) -> None:
        self._decode = msgspec.msgpack.Decoder(frames).decode
        self._received = received
        self._lost = lost
        self._made = made
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._in = bytearray()
        self._out: list[bytes] = []
        self.peer: Any = None
        self.pid = 0
        self.node = ""  # Ray's id of the node that the peer is on, where that is another one
        self.frame_bytes_max = FRAME_BYTES_MAX
        self.uid = -1
        self.stalled = False
        self._deaf = False
        self.on_resume: Callable[[], None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass
        peer = transport.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        self.pid, self.uid, _ = _CREDENTIALS.unpack(peer)
        if self._made is not None:
            self._made(self)

    @property
    def foreign(self) -> bool:
        """Whether the peer is somebody else than this process and root: a confined host, or nobody we know."""
        return self.uid not in (0, os.geteuid())

    @property
    def ours(self) -> bool:
        """Whether the peer is on this machine, and this process's user or root."""
        return not self.node and not self.foreign

    @property
    def began(self) -> float | None:
        """When the peer's process began; None when it is no more."""
        with contextlib.suppress(ProcessLookupError):
            return started(self.pid)
        return None

    def pause_writing(self) -> None:
        """The peer does not keep up: it gets nothing new until it does."""
        self.stalled = True

    def resume_writing(self) -> None:
        self.stalled = False
        if self.on_resume is not None:
            self.on_resume()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport, self._deaf = None, True
        self._lost(self)

    def hear(self, frames: Any, received: Callable[["Wire", Any], None]) -> None:
        """From the next frame on it says these, to somebody else."""
        self._decode = msgspec.msgpack.Decoder(frames).decode
        self._received = received

    def mute(self) -> None:
        """Hear nothing more; what is sent still goes out."""
        self._deaf = True

    def data_received(self, data: bytes) -> None:
        if self._deaf:
            return
        held = self._in
        held += data
        at = 0
        while len(held) - at >= HEAD.size:
            (length,) = HEAD.unpack_from(held, at)
            if length > self.frame_bytes_max:
                self._refuse(f"a frame of {length} bytes")
                return
            end = at + HEAD.size + length
            if len(held) < end:
                break
            try:
                frame = self._decode(held[at + HEAD.size : end])
            except msgspec.MsgspecError as error:
                self._refuse(f"no frame: {error}")
                return
            at = end
            self._received(self, frame)
            if self._deaf:
                return
        if at:
            del held[:at]

    def send(self, frame: Frame) -> None:
        """Send with all else of this tick; nothing happens when the connection is gone."""
        if self._transport is not None:
            self._put(_encode(frame))

    def offer(self, frame: Frame) -> int:
        """The same, unless a peer does not take so much: then nothing goes out. How many bytes that are, or 0."""
        if self._transport is None:
            return 0
        payload = _encode(frame)
        if len(payload) > FRAME_BYTES_MAX:
            return len(payload)
        self._put(payload)
        return 0

    def _put(self, payload: bytes) -> None:
        if not self._out:
            self._loop.call_soon(self.flush)
        self._out.append(HEAD.pack(len(payload)))
        self._out.append(payload)

    def close(self) -> None:
        """Send what waits, then end the connection."""
        self._deaf = True
        self.flush()
        if self._transport is not None:
            self._transport.close()

    @property
    def open(self) -> bool:
        return self._transport is not None

    def flush(self) -> None:
        """Write what waits."""
        out, self._out = self._out, []
        if self._transport is not None and out:
            self._transport.write(b"".join(out))

    def _refuse(self, why: str) -> None:
        self._deaf = True
        log.warning("a peer sent %s; its connection is closed", why)
        if self._transport is not None:
            self._transport.abort()
