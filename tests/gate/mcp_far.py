"""An MCP server whose tools a test changes as it runs: over HTTP in this process, or over stdio as a program."""

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import mcp_types as types
import uvicorn
from mcp import MCPError
from mcp.server import Server
from mcp.server.stdio import stdio_server
from mcp.server.subscriptions import InMemorySubscriptionBus, ListenHandler, ToolsListChanged
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

ORDER: dict[str, Any] = {
    "type": "object",
    "properties": {
        "customer_id": {"type": "string"},
        "amount": {"type": "number"},
        "express": {"type": "boolean"},
        "note": {"type": "string"},
    },
    "required": ["customer_id"],
    "additionalProperties": False,
}
DONE: dict[str, Any] = {"type": "object", "properties": {"orders": {"type": "integer"}}, "required": ["orders"]}


def tool(name: str = "order", description: str = "Places an order", schema: Any = ORDER, **more: Any) -> types.Tool:
    hints = types.ToolAnnotations(read_only_hint=True, idempotent_hint=True)  # promised, and not to be believed
    return types.Tool(name=name, description=description, input_schema=schema, annotations=hints, **more)


@dataclass
class Far:
    """What the server offers, what it was called with, and how it behaves."""

    tools: dict[str, types.Tool] = field(default_factory=lambda: {"order": tool(output_schema=DONE)})
    calls: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    metas: list[dict[str, Any]] = field(default_factory=list)
    behaviour: str = "fine"
    asked: list[bytes] = field(default_factory=list)  # calls of tools, as they were posted, where it breaks
    answer: Any = None
    url: str = ""
    lists: int = 0
    bus: InMemorySubscriptionBus = field(default_factory=InMemorySubscriptionBus)
    let_go: asyncio.Event = field(default_factory=asyncio.Event)

    async def list_tools(self, _: Any, __: Any) -> types.ListToolsResult:
        self.lists += 1
        return types.ListToolsResult(tools=list(self.tools.values()))

    async def call_tool(self, context: Any, params: types.CallToolRequestParams) -> types.CallToolResult:
        if params.name not in self.tools:
            raise MCPError(types.INVALID_PARAMS, f"unknown tool {params.name}")
        self.calls.append((params.name, params.arguments or {}))
        self.metas.append(dict(context.meta or {}))
        if isinstance(context.request, Request):
            self.headers.append(dict(context.request.headers))
        if self.behaviour == "fails":
            told = [types.TextContent(text="there is no such customer")]
            return types.CallToolResult(content=told, structured_content={"code": 7}, is_error=True)
        if self.behaviour == "hangs":
            await self.let_go.wait()
        if self.behaviour == "dies":
            os._exit(3)
        if self.answer is not None:
            return types.CallToolResult(content=[types.TextContent(text="odd")], structured_content=self.answer)
        structured = {"orders": len(self.calls)}
        return types.CallToolResult(content=[types.TextContent(text="placed")], structured_content=structured)

    async def changed(self) -> None:
        """Say that the tools have changed, in the newer of both eras."""
        await self.bus.publish(ToolsListChanged())

    def server(self) -> Server[Any]:
        return Server(
            "far",
            version="1",
            on_list_tools=self.list_tools,
            on_call_tool=self.call_tool,
            on_subscriptions_listen=ListenHandler(self.bus),
            get_tool_input_schema=lambda _: None,
        )


class OlderEra:
    """What a server does that knows nothing of the newer era: whatever it is asked in that, it does not know."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        version = dict(scope.get("headers", ())).get(b"mcp-protocol-version", b"")
        if scope["type"] == "http" and version >= b"2026":
            await send({"type": "http.response.start", "status": 400, "headers": []})
            await send({"type": "http.response.body", "body": b""})
            return
        await self._app(scope, receive, send)


class Breaks:
    """A server that goes while a tool works, and comes back without its sessions: `breaks`, or `odd`, which is asked
    and answers what is no answer."""

    def __init__(self, app: ASGIApp, far: Far) -> None:
        self._app = app
        self._far = far

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or self._far.behaviour not in ("breaks", "odd"):
            await self._app(scope, receive, send)
            return
        if scope["method"] == "GET":
            await _answer(send, 404, "text/plain", b"")
            return
        request = Request(scope, receive)
        body = await request.body()
        if b'"tools/call"' in body:
            self._far.asked.append(body)
            kind = "text/event-stream" if self._far.behaviour == "breaks" else "text/html"
            await _answer(send, 200, kind, b"id: 1\nretry: 10\ndata:\n\n")
            return
        told = [_whole(body)]

        async def again() -> Message:
            return told.pop() if told else await receive()

        await self._app(scope, again, send)


def _whole(body: bytes) -> Message:
    return {"type": "http.request", "body": body, "more_body": False}


async def _answer(send: Send, status: int, kind: str, body: bytes) -> None:
    await send({"type": "http.response.start", "status": status, "headers": [(b"content-type", kind.encode())]})
    await send({"type": "http.response.body", "body": body})


@contextlib.asynccontextmanager
async def serving(far: Far, *, older: bool = False, port: int = 0) -> AsyncIterator[Far]:
    """The server on the loopback; it is ended with whatever it still does."""
    server = far.server()
    app: ASGIApp = server.streamable_http_app(streamable_http_path="/mcp", json_response=True)
    assert isinstance(app, Starlette)
    broken = Breaks(app, far)
    config = uvicorn.Config(
        OlderEra(broken) if older else broken, port=port, log_level="error", lifespan="on", timeout_graceful_shutdown=1
    )
    running = uvicorn.Server(config)
    running.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
    task = asyncio.ensure_future(running.serve())
    while not running.started:
        assert not task.done(), task.exception()
        await asyncio.sleep(0.01)
    port = running.servers[0].sockets[0].getsockname()[1]
    far.url = f"http://127.0.0.1:{port}/mcp"
    try:
        yield far
    finally:
        far.let_go.set()
        running.should_exit = True
        running.force_exit = True
        await asyncio.gather(task, return_exceptions=True)


PROGRAM = [sys.executable, str(Path(__file__).resolve())]


async def program() -> None:
    """Over stdio: as what its variables say, after it has left its pid and its environment in a file."""
    if (trace := os.environ.get("TRACE")) is not None:
        line = f"{os.getpid()} {' '.join(sorted(os.environ))} secret={os.environ.get('KEY', '')}\n"
        before = Path(trace).read_text() if Path(trace).exists() else ""  # noqa: ASYNC240 - before it serves anybody
        Path(trace).write_text(before + line)  # noqa: ASYNC240
    behaviour = os.environ.get("BEHAVIOUR", "fine")
    far = Far(behaviour=behaviour)
    server = far.server()
    async with stdio_server() as (read, write):
        await server.run(read, write, server.create_initialization_options())


if __name__ == "__main__":
    asyncio.run(program())
