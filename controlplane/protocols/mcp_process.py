"""An MCP server as a process of the gate's: newline-delimited JSON-RPC over its stdin and stdout.

A transport for the client of `mcp`. A line has a bound, so that no server can fill the gate's memory; of what the
server says on stderr the end is kept, to be shown when it breaks. The process leads a session of its own, gets a few
variables of the environment and no other, and ends with its connection: its stdin is closed, then its whole group
is ended. Where the gate itself is killed, the kernel ends the process.
"""

import asyncio
import contextlib
import ctypes
import os
import signal
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import anyio
import mcp_types as types
from mcp.shared.message import SessionMessage

INHERITED = ("PATH", "HOME", "USER", "LOGNAME", "LANG", "LC_ALL", "TZ", "TMPDIR")
ENDS_WITHIN_S = 2.0  # after its stdin was closed, and again after it was asked to
DRAINED_WITHIN_S = 0.2
SAID_CHARS_MAX = 2_000
SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)


class Said:
    """The end of what a server said on stderr, and whether it has gone."""

    def __init__(self) -> None:
        self.text = ""
        self.gone = asyncio.Event()

    def more(self, chunk: bytes) -> None:
        self.text = (self.text + chunk.decode(errors="replace"))[-SAID_CHARS_MAX:]


@asynccontextmanager
async def process(
    command: Sequence[str], variables: Mapping[str, str], line_bytes_max: int, said: Said
) -> AsyncIterator[tuple[Any, Any]]:
    """Start the server and connect to it; raises OSError when it can not be started."""
    env = {name: os.environ[name] for name in INHERITED if name in os.environ} | dict(variables)
    running = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=env,
        cwd="/",
        limit=line_bytes_max,
        start_new_session=True,
        preexec_fn=_end_with_parent,
    )
    arriving, read = anyio.create_memory_object_stream[SessionMessage | Exception](0)
    write, leaving = anyio.create_memory_object_stream[SessionMessage](0)
    tasks: list[asyncio.Future[None]] = [
        asyncio.ensure_future(_read(running, arriving, said)),
        asyncio.ensure_future(_write(running, leaving, arriving)),
        asyncio.ensure_future(_listen(running, said)),
    ]
    try:
        yield read, write
    finally:
        await asyncio.shield(asyncio.ensure_future(_end(running, tasks)))
        for stream in (read, write, arriving, leaving):
            await stream.aclose()


def _end_with_parent() -> None:
    _libc.prctl(SET_PDEATHSIG, ctypes.c_ulong(signal.SIGKILL), 0, 0, 0)


async def _read(running: asyncio.subprocess.Process, arriving: Any, said: Said) -> None:
    """Each line to the session. One that is no message is told; one that is too long is the end of the server."""
    assert running.stdout is not None
    try:
        async with arriving:
            while line := await running.stdout.readline():  # raises ValueError beyond its limit
                if line.strip():
                    await arriving.send(_message(line))
    except ValueError:
        said.more(b"\na line of it was longer than response_bytes_max")
        _signal(running.pid, signal.SIGKILL)
    except (anyio.ClosedResourceError, anyio.BrokenResourceError, OSError) as error:
        said.more(f"\n{type(error).__name__}".encode())
    finally:
        said.gone.set()


def _message(line: bytes) -> SessionMessage | Exception:
    try:
        return SessionMessage(types.jsonrpc_message_adapter.validate_json(line, by_name=False))
    except ValueError as error:
        return ValueError(f"what came is no message: {type(error).__name__}")


async def _write(running: asyncio.subprocess.Process, leaving: Any, arriving: Any) -> None:
    assert running.stdin is not None
    try:
        async with leaving:
            async for said in leaving:
                text = said.message.model_dump_json(by_alias=True, exclude_unset=True)
                running.stdin.write(text.encode() + b"\n")
                await running.stdin.drain()
    except (OSError, anyio.ClosedResourceError, anyio.BrokenResourceError):
        await arriving.aclose()  # the session hears that nobody is there


async def _listen(running: asyncio.subprocess.Process, said: Said) -> None:
    assert running.stderr is not None
    while chunk := await running.stderr.read(4096):
        said.more(chunk)


async def _end(running: asyncio.subprocess.Process, tasks: "list[asyncio.Future[None]]") -> None:
    """Close its stdin, and end its group if that does not end it."""
    assert running.stdin is not None
    with contextlib.suppress(OSError):
        running.stdin.close()
    for number in (signal.SIGTERM, signal.SIGKILL):
        if await _ended(running):
            break
        _signal(running.pid, number)
    await _ended(running)
    _signal(running.pid, signal.SIGKILL)  # whoever of its group is left
    await asyncio.wait(tasks, timeout=DRAINED_WITHIN_S)  # what it said at last
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def _ended(running: asyncio.subprocess.Process) -> bool:
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(running.wait(), ENDS_WITHIN_S)
    return running.returncode is not None


def _signal(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)
