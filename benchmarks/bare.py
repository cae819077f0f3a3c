"""The yardsticks of the surfaces: a bare FastAPI route, and a bare low-level MCP server with a no-op tool.

Run as `python -m benchmarks.bare PORT`: one uvicorn process with both, nothing of ours inside.
"""

import contextlib
import sys
from collections.abc import AsyncIterator

import mcp_types as types
import uvicorn
from fastapi import FastAPI
from mcp.server import Server
from pydantic import BaseModel


class Answer(BaseModel):
    ok: bool


async def _list(_ctx: object, _params: object) -> types.ListToolsResult:
    return types.ListToolsResult(tools=[types.Tool(name="noop", input_schema={"type": "object"})])


async def _call(_ctx: object, _params: object) -> types.CallToolResult:
    return types.CallToolResult(content=[types.TextContent(text='{"ok":true}')], structured_content={"ok": True})


def app() -> FastAPI:
    server = Server("bare", version="1", on_list_tools=_list, on_call_tool=_call)
    mounted = server.streamable_http_app(streamable_http_path="/mcp", json_response=True)

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with server.session_manager.run():
            yield

    made = FastAPI(lifespan=lifespan)

    @made.get("/noop")
    async def noop() -> Answer:
        return Answer(ok=True)

    made.mount("/", mounted)
    return made


if __name__ == "__main__":
    uvicorn.run(app(), host="127.0.0.1", port=int(sys.argv[1]), log_level="warning", access_log=False)
