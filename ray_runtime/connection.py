"""A connection to the gate: length, msgpack, frame; one write per turn of the loop.

Frames are handled where they arrive, synchronously and in order. Writes are gathered until the loop
comes round, or until a few are waiting, so that a burst of turns does not hold back its first one.
"""

import asyncio
import struct
from collections.abc import Callable
from typing import Any, Generic, TypeVar, cast

import msgspec

from schemas import faults
from schemas.frames import FRAME_BYTES_MAX, Frame

T = TypeVar("T")
_LENGTH = struct.Struct("<I")
_GATHERED_MAX = 16
_encode = msgspec.msgpack.Encoder().encode


class TooLargeError(Exception):
    """A frame that nobody takes; nothing of it was sent."""

    def __init__(self, size: int) -> None:
        super().__init__(f"a frame of {size} bytes")
        self.bytes = size


def packed(frame: Frame) -> bytes:
    """A frame as it travels."""
    body = _encode(frame)
    if len(body) > FRAME_BYTES_MAX:
        raise TooLargeError(len(body))
    return _LENGTH.pack(len(body)) + body


class Connection(asyncio.Protocol, Generic[T]):
    """Frames in, by a callback; frames out, gathered."""

    def __init__(self, frames: Any, received: Callable[[T], None]) -> None:
        self.lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._loop = asyncio.get_running_loop()
        self._decode = msgspec.msgpack.Decoder(frames).decode
        self._received = received
        self._transport: asyncio.WriteTransport | None = None
        self._in = bytearray()
        self._out: list[bytes] = []
        self._scheduled = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.WriteTransport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if not self.lost.done():
            self.lost.set_result(None)

    def data_received(self, data: bytes) -> None:
        """Take frames off the stream; a frame that is none of ours ends the connection."""
        self._in += data
        start, end = 0, len(self._in)
        while end - start >= 4:
            (length,) = _LENGTH.unpack_from(self._in, start)
            if length > FRAME_BYTES_MAX:
                self.close()
                return
            if end - start - 4 < length:
                break
            body = bytes(self._in[start + 4 : start + 4 + length])
            start += 4 + length
            self._received(self._decode(body))
        del self._in[:start]

    def send(self, frame: Frame) -> None:
        """Send a frame soon; without a connection it is dropped, as its receiver is gone."""
        self._out.append(packed(frame))
        if len(self._out) >= _GATHERED_MAX:
            self._flush()
        elif not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._flush)

    def close(self) -> None:
        """End the connection, after what is waiting."""
        self._flush()
        if self._transport is not None:
            self._transport.close()

    def _flush(self) -> None:
        self._scheduled = False
        if self._out and self._transport is not None:
            faults.at("host.frames.sending")
            self._transport.write(b"".join(self._out))
            faults.at("host.frames.sent")
        self._out.clear()
