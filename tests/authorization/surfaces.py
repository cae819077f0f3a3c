"""The ways to call an operation over HTTP, and what each of them answers, in one form."""

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import httpx
import orjson

from controlplane.resources.operation import Operation
from mcp_server.hints import to_intent

MODERN = "2026-07-28"
META = {
    "io.modelcontextprotocol/protocolVersion": MODERN,
    "io.modelcontextprotocol/clientInfo": {"name": "tests", "version": "1"},
    "io.modelcontextprotocol/clientCapabilities": {},
}


@dataclass(frozen=True)
class Answer:
    """`outcome` is `ok`, or the reason of the Problem; `body` is all that came."""

    status: int
    outcome: str
    body: Any
    challenge: str = ""


Way = Callable[[httpx.AsyncClient, dict[str, str], Operation, dict[str, Any]], Awaitable[Answer]]


async def by_route(
    client: httpx.AsyncClient, headers: dict[str, str], operation: Operation, given: dict[str, Any]
) -> Answer:
    """REST, by the operation's own route."""
    path, rest = operation.path, dict(given)
    for name in re.findall(r"{(\w+)}", path):
        path = path.replace("{" + name + "}", str(rest.pop(name, "x")))
    if operation.method == "POST":
        return _rest(await client.post(path, json=rest, headers=headers))
    query = {name: orjson.dumps(it).decode() if isinstance(it, dict) else it for name, it in rest.items()}
    return _rest(await client.request(operation.method, path, params=query, headers=headers))


async def by_call(
    client: httpx.AsyncClient, headers: dict[str, str], operation: Operation, given: dict[str, Any]
) -> Answer:
    """REST, by the general route."""
    return _rest(await client.post(f"/v1/operations/{operation.name}/call", json=given, headers=headers))


async def by_operation(
    client: httpx.AsyncClient, headers: dict[str, str], operation: Operation, given: dict[str, Any]
) -> Answer:
    """`operations.call`, which itself is an operation."""
    if operation.name == "operations.call":
        return await by_call(client, headers, operation, given)
    asked = {"name": operation.name, "arguments": given}
    return _rest(await client.post("/v1/operations/call", json=asked, headers=headers))


async def by_tool(
    client: httpx.AsyncClient, headers: dict[str, str], operation: Operation, given: dict[str, Any]
) -> Answer:
    """The operation's tool of `/mcp/full`."""
    return await tool(client, headers, "/mcp/full", operation.tool, given)


async def by_intent(
    client: httpx.AsyncClient, headers: dict[str, str], operation: Operation, given: dict[str, Any]
) -> Answer:
    """The tool of `/mcp` that does it."""
    return await tool(client, headers, "/mcp", *to_intent(operation, given))


WAYS: dict[str, Way] = {
    "route": by_route,
    "call": by_call,
    "operations.call": by_operation,
    "tool": by_tool,
    "intent": by_intent,
}


async def tool(
    client: httpx.AsyncClient, headers: dict[str, str], path: str, name: str, arguments: dict[str, Any]
) -> Answer:
    return mcp_answer(await rpc(client, headers, path, "tools/call", name, name=name, arguments=arguments))


async def rpc(
    client: httpx.AsyncClient, headers: dict[str, str], path: str, method: str, about: str | None = None, **given: Any
) -> httpx.Response:
    """One JSON-RPC request, as a client of the newest era sends it."""
    message = {"jsonrpc": "2.0", "id": 1, "method": method, "params": {**given, "_meta": META}}
    sent = {"Accept": "application/json, text/event-stream", "MCP-Protocol-Version": MODERN, "Mcp-Method": method}
    if about is not None:
        sent["Mcp-Name"] = about
    return await client.post(path, json=message, headers=headers | sent)


def _rest(answer: httpx.Response) -> Answer:
    body = orjson.loads(answer.content)
    outcome = "ok" if answer.status_code == 200 else body["reason"]
    return Answer(answer.status_code, outcome, body, answer.headers.get("www-authenticate", ""))


def mcp_answer(answer: httpx.Response) -> Answer:
    if answer.status_code != 200:
        return _rest(answer)
    body = orjson.loads(answer.content)
    if "error" in body:
        return Answer(200, body["error"].get("data", {}).get("reason", str(body["error"]["code"])), body)
    found = body["result"].get("structuredContent", {"ok": True})
    return Answer(200, "ok" if found["ok"] else found["problem"]["reason"], body)
