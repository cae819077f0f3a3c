"""An LLM's endpoint for tests, on a loopback socket: it speaks OpenAI's chat completions, and answers from a script.

It is no model. It counts what it is asked, and what comes of each request is what the test put down for it.
"""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import orjson

from tests.gate.counting import Asked, read


@dataclass
class Reply:
    """What one request is answered with; `text` and `calls` make a completion, `body` stands for the whole."""

    text: str | None = None
    calls: list[tuple[str, Any]] = field(default_factory=list)
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | None = None
    cut: bool = False  # break off in the middle
    hang: bool = False  # never answer
    until: asyncio.Event | None = None  # answer when it is set
    tokens: tuple[int, int] = (10, 5)
    parts: list[str] = field(default_factory=list)  # of an answer that is asked for as a stream
    ends: bool = True  # whether the stream says that it is over
    after_first: asyncio.Event | None = None  # say no more of them until it is set
    finish: str = ""  # why it ends, where that is not the usual reason
    refusal: str | None = None  # in place of the text


@dataclass
class Endpoint:
    """Answers requests from `script`, in order, and then with `otherwise`."""

    script: list[Reply] = field(default_factory=list)
    otherwise: Reply = field(default_factory=lambda: Reply("fine"))
    asked: list[Asked] = field(default_factory=list)
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def bodies(self) -> list[dict[str, Any]]:
        return [orjson.loads(it.body) for it in self.asked]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            asked = await read(reader)
            self.asked.append(asked)
            reply = self.script.pop(0) if self.script else self.otherwise
            if reply.hang:
                await asyncio.sleep(3600)
            if reply.until is not None:
                await reply.until.wait()
            if reply.parts and orjson.loads(asked.body).get("stream"):
                await self._stream(reply, writer)
                return
            body = completion(reply, len(self.asked)) if reply.body is None else reply.body
            more = "".join(f"{name}: {value}\r\n" for name, value in reply.headers.items())
            more += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
            writer.write(
                f"HTTP/1.1 {reply.status} X\r\n{more}\r\n".encode() + (body[: len(body) // 2] if reply.cut else body)
            )
            await writer.drain()
        writer.close()

    async def _stream(self, reply: Reply, writer: asyncio.StreamWriter) -> None:
        """The parts as server-sent events, chunked; `cut` breaks off after the first."""
        head = "HTTP/1.1 200 X\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
        writer.write(head.encode())
        for n, event in enumerate([*streamed(reply), *([b"[DONE]"] if reply.ends else [])]):
            text = b"data: " + event + b"\n\n"
            writer.write(f"{len(text):x}\r\n".encode() + text + b"\r\n")
            await writer.drain()
            if n == 0 and reply.after_first is not None:
                await reply.after_first.wait()
            if reply.cut:
                break
        else:
            writer.write(b"0\r\n\r\n")
            await writer.drain()
        writer.close()


def streamed(reply: Reply) -> list[bytes]:
    """The events of a completion that comes in parts, as OpenAI's API has it."""
    about = {"id": "chatcmpl-s", "object": "chat.completion.chunk", "created": int(time.time()), "model": "scripted"}
    choices = [{"index": 0, "delta": {"content": it}, "finish_reason": None} for it in reply.parts]
    if reply.refusal is not None:
        choices.append({"index": 0, "delta": {"refusal": reply.refusal}, "finish_reason": None})
    if reply.ends:
        choices.append({"index": 0, "delta": {}, "finish_reason": reply.finish or "stop"})
    tokens_in, tokens_out = reply.tokens
    usage = {"prompt_tokens": tokens_in, "completion_tokens": tokens_out, "total_tokens": sum(reply.tokens)}
    events: list[dict[str, Any]] = [{**about, "choices": [it]} for it in choices]
    return [json.dumps(it).encode() for it in [*events, {**about, "choices": [], "usage": usage}]]


def completion(reply: Reply, n: int) -> bytes:
    """A chat completion, as OpenAI's API has it."""
    calls = [
        {
            "id": f"call_{n}_{i}",
            "type": "function",
            "function": {"name": tool, "arguments": given if isinstance(given, str) else json.dumps(given)},
        }
        for i, (tool, given) in enumerate(reply.calls)
    ]
    message: dict[str, Any] = {"role": "assistant", "content": reply.text, "refusal": reply.refusal}
    if calls:
        message["tool_calls"] = calls
    tokens_in, tokens_out = reply.tokens
    finish = reply.finish or ("tool_calls" if calls else "stop")
    return json.dumps(  # which knows halves of characters, and numbers of any size
        {
            "id": f"chatcmpl-{n}",
            "object": "chat.completion",
            "created": int(time.time()),
            "model": "scripted",
            "choices": [{"index": 0, "finish_reason": finish, "message": message}],
            "usage": {"prompt_tokens": tokens_in, "completion_tokens": tokens_out, "total_tokens": sum(reply.tokens)},
        }
    ).encode()


@contextlib.asynccontextmanager
async def endpoint(*script: Reply) -> AsyncIterator[Endpoint]:
    far = Endpoint(list(script))
    tasks: set[asyncio.Task[None]] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(far.serve(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    far.port = server.sockets[0].getsockname()[1]
    try:
        yield far
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
