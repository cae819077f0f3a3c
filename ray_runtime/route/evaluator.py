"""A process of its own that judges and transforms for the workers of a host: what one message takes, it takes from
nobody else.

`python -m ray_runtime.route.evaluator`, with a stream socket as its standard input: questions come as a length of four
bytes and as many bytes of JSON, `{filter, transform, accept, data, envelope}`, and answers go back alike:
`[passed, made, unfit]`; before the first it says `READY`. Memory is bounded for the whole, CPU time for each question;
who goes beyond ends without an answer. It ends with whoever asks.
"""

import resource
import signal
import socket
import struct
from typing import Any

import orjson

from .expressions import EVALUATION_MS_MAX, Unfit, passes, transformed

MEMORY_BYTES_MAX = 1_073_741_824
CPU_S_MAX = EVALUATION_MS_MAX / 1000
LENGTH = struct.Struct("!I")
READY = b"."
NO_MEMORY = "it takes more memory than there is"


def answered(asked: dict[str, Any]) -> tuple[bool, Any, str]:
    """Whether it passes, what it becomes, and what is wrong with it."""
    try:
        if asked["accept"] is not None:
            return passes(asked["accept"], result=asked["data"]), None, ""
        if not passes(asked["filter"], data=asked["data"], envelope=asked["envelope"]):
            return False, None, ""
        return True, transformed(asked["transform"], asked["data"], asked["envelope"]), ""
    except Unfit as unfit:
        return False, None, str(unfit)
    except MemoryError:
        return False, None, NO_MEMORY
    except Exception as error:  # noqa: BLE001 - one message's matter, and others are asked for by the same process
        return False, None, f"it can not be judged: {type(error).__name__}"


def said(asked: dict[str, Any]) -> bytes:
    """The answer, as it goes back."""
    try:
        told = orjson.dumps(answered(asked))
        return LENGTH.pack(len(told)) + told
    except MemoryError:
        told = orjson.dumps((False, None, NO_MEMORY))
        return LENGTH.pack(len(told)) + told


def received(stream: socket.socket, many: int) -> bytes:
    """So many bytes; raises EOFError when the other side is gone."""
    found = bytearray()
    while len(found) < many:
        piece = stream.recv(min(many - len(found), 65_536))
        if not piece:
            raise EOFError
        found += piece
    return bytes(found)


def bound_cpu() -> None:
    """From here on so many seconds more, whoever lives to see it."""
    signal.setitimer(signal.ITIMER_PROF, CPU_S_MAX)


def main() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES_MAX, MEMORY_BYTES_MAX))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with socket.socket(fileno=0) as stream:
        stream.sendall(READY)
        while True:
            try:
                (length,) = LENGTH.unpack(received(stream, LENGTH.size))
                asked = orjson.loads(received(stream, length))
            except (EOFError, OSError):
                return
            bound_cpu()
            stream.sendall(said(asked))


if __name__ == "__main__":
    main()
