"""MCP by hand: one POST for one message, in each version of the protocol, with arguments as text."""

import base64
import json
import re
from dataclasses import dataclass
from typing import Any

import httpx

MODERN = "2026-07-28"
HANDSHAKE = ("2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25")
VERSIONS = (*HANDSHAKE, MODERN)
ENDPOINTS = ("/mcp", "/mcp/full")  # whose tools are the same for everybody
AGENTS = "/mcp/agents/default"  # and what agents offer
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
    streamed: bool = False

    @property
    def json(self) -> Any:
        """The one message that answers; None if it is none, or in a stream not the last one."""
        try:
            return json.loads(self.text) if not self.streamed else self._last()
        except ValueError:
            return None

    def _last(self) -> Any:
        lines = [
            line.removeprefix("data:").strip()
            for line in re.split(r"\r\n|\n|\r", self.text)
            if line.startswith("data:")
        ]
        messages = [json.loads(line) for line in lines if line]
        told = all(it.get("method") == "notifications/progress" and "id" not in it for it in messages[:-1])
        return messages[-1] if messages and told else None


class Wire:
    """One connection of one principal."""

    def __init__(self, url: str, token: str) -> None:
        self._http = httpx.Client(base_url=url, headers={"Authorization": f"Bearer {token}"}, timeout=60)

    def close(self) -> None:
        self._http.close()

    def call(self, endpoint: str, version: str, tool: str, arguments: str, *, told: bool = False) -> Answer:
        """Call a tool with arguments as they stand; whoever wants to be told how it goes is answered by a stream."""
        params = f'"name": {json.dumps(tool)}, "arguments": {arguments}'
        return self.send(endpoint, version, "tools/call", params, tool, {"progressToken": "told"} if told else {})

    def tools(self, endpoint: str, version: str) -> dict[str, Any]:
        """The tools that are listed, by name."""
        answer = self.send(endpoint, version, "tools/list", "").json
        return {tool["name"]: tool for tool in answer["result"]["tools"]}

    def send(
        self,
        endpoint: str,
        version: str,
        method: str,
        params: str,
        name: str | None = None,
        meta: dict[str, Any] | None = None,
    ) -> Answer:
        headers = {"Accept": "application/json, text/event-stream", "MCP-Protocol-Version": version}
        if version == MODERN:
            headers["Mcp-Method"] = method
        if said := (META if version == MODERN else {}) | (meta or {}):
            params = f'{params}{"," if params else ""} "_meta": {json.dumps(said)}'
        if version == MODERN and name is not None:
            headers["Mcp-Name"] = _in_header(name)
        body = f'{{"jsonrpc": "2.0", "id": {ID}, "method": "{method}", "params": {{{params}}}}}'
        headers["Content-Type"] = "application/json"
        answer = self._http.post(endpoint, content=body.encode(), headers=headers)
        streamed = answer.headers.get("content-type", "").startswith("text/event-stream")
        return Answer(answer.status_code, answer.text, streamed)


def _in_header(name: str) -> str:
    """A name as a header holds it: as it is, or wrapped where a header could not hold it."""
    if name.isascii() and name.isprintable() and name == name.strip():
        return name
    return f"=?base64?{base64.b64encode(name.encode()).decode()}?="
