"""MCP by hand: one POST for one message, in each version of the protocol, with arguments as text."""

import base64
import json
from dataclasses import dataclass
from typing import Any

import httpx

MODERN = "2026-07-28"
HANDSHAKE = ("2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25")
VERSIONS = (*HANDSHAKE, MODERN)
ENDPOINTS = ("/mcp", "/mcp/full")
ID = 7
META = {
    "io.modelcontextprotocol/protocolVersion": MODERN,
    "io.modelcontextprotocol/clientInfo": {"name": "fuzz", "version": "1"},
    "io.modelcontextprotocol/clientCapabilities": {},
}


@dataclass(frozen=True)
class Answer:
    status: int
    text: str

    @property
    def json(self) -> Any:
        try:
            return json.loads(self.text)
        except ValueError:
            return None


class Wire:
    """One connection of one principal."""

    def __init__(self, url: str, token: str) -> None:
        self._http = httpx.Client(base_url=url, headers={"Authorization": f"Bearer {token}"}, timeout=60)

    def close(self) -> None:
        self._http.close()

    def call(self, endpoint: str, version: str, tool: str, arguments: str) -> Answer:
        """Call a tool with arguments as they stand."""
        params = f'"name": {json.dumps(tool)}, "arguments": {arguments}'
        return self.send(endpoint, version, "tools/call", params, tool)

    def tools(self, endpoint: str, version: str) -> dict[str, Any]:
        """The tools that are listed, by name."""
        answer = self.send(endpoint, version, "tools/list", "").json
        return {tool["name"]: tool for tool in answer["result"]["tools"]}

    def send(self, endpoint: str, version: str, method: str, params: str, name: str | None = None) -> Answer:
        headers = {"Accept": "application/json, text/event-stream", "MCP-Protocol-Version": version}
        if version == MODERN:
            headers["Mcp-Method"] = method
            params = f'{params}{"," if params else ""} "_meta": {json.dumps(META)}'
        if version == MODERN and name is not None:
            headers["Mcp-Name"] = _in_header(name)
        body = f'{{"jsonrpc": "2.0", "id": {ID}, "method": "{method}", "params": {{{params}}}}}'
        headers["Content-Type"] = "application/json"
        answer = self._http.post(endpoint, content=body.encode(), headers=headers)
        return Answer(answer.status_code, answer.text)


def _in_header(name: str) -> str:
    """A name as a header holds it: as it is, or wrapped where a header could not hold it."""
    if name.isascii() and name.isprintable() and name == name.strip():
        return name
    return f"=?base64?{base64.b64encode(name.encode()).decode()}?="
