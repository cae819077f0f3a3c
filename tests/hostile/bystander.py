"""Somebody who minds their own business: reads, asks an agent and calls a tool, all the while.

Nobody else's doings may bring them an error, or keep them waiting out of proportion. What they wait
is compared with what they waited when nobody else was there.
"""

import statistics
import threading
import time
from typing import Any

import httpx

MCP = {"MCP-Protocol-Version": "2026-07-28", "Mcp-Method": "tools/call", "Accept": "application/json"}
META = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientInfo": {"name": "bystander", "version": "1"},
    "io.modelcontextprotocol/clientCapabilities": {},
}
WAIT_S_MAX = 30.0  # of one call, whatever goes on
RATIO_MAX = 10.0  # of the median, to that of the quiet run
RARELY_MAX = 30.0  # of what nineteen of twenty stay below: of few calls that is the longest, behind one that is parsed
NOISE_S = 0.1  # below which a quiet run tells of the machine only


def tool_call(name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    params = {"name": name, "arguments": arguments, "_meta": META}
    return {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}


class Bystander:
    """Calls in a thread of its own, until it is left."""

    def __init__(self, url: str, token: str, quiet: "Bystander | None" = None) -> None:
        self._client = httpx.Client(
            base_url=url, headers={"Authorization": f"Bearer {token}"}, timeout=httpx.Timeout(WAIT_S_MAX)
        )
        self._quiet = quiet
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.errors: list[str] = []
        self.seconds: list[float] = []

    def __enter__(self) -> "Bystander":
        self._thread.start()
        return self

    def __exit__(self, *failed: object) -> None:
        self._over.set()
        self._thread.join()
        self._client.close()
        if failed[0] is None:
            self.require_unharmed()

    def _run(self) -> None:
        while not self._over.is_set():
            for act in (self._read, self._ask, self._tool):
                began = time.monotonic()
                try:
                    act()
                except (httpx.HTTPError, AssertionError, KeyError) as error:
                    self.errors.append(f"{act.__name__}: {error!r}")
                self.seconds.append(time.monotonic() - began)
            self._over.wait(0.05)

    def _read(self) -> None:
        answer = self._client.get("/v1/agents", params={"namespace": "default"})
        assert answer.status_code == 200, answer.text
        assert answer.json()["items"]

    def _ask(self) -> None:
        answer = self._client.post("/v1/agents/default/echo/ask", json={"data": {"n": 1}, "timeout_s": 25})
        assert answer.status_code == 200, answer.text
        assert answer.json()["reply"] == {"n": 1}, answer.text

    def _tool(self) -> None:
        answer = self._client.post("/mcp", json=tool_call("look", {}), headers=MCP | {"Mcp-Name": "look"})
        assert answer.status_code == 200, answer.text
        assert answer.json()["result"]["structuredContent"]["ok"], answer.text

    def require_unharmed(self) -> None:
        """No error, and no wait out of proportion."""
        assert self.errors == []
        assert self.seconds
        assert max(self.seconds) < WAIT_S_MAX
        if self._quiet is not None:
            limits = (RATIO_MAX, RARELY_MAX)
            for ratio, quiet, now in zip(limits, self._quiet.waits(), self.waits(), strict=True):
                assert now < ratio * max(NOISE_S, quiet), (self._quiet.waits(), self.waits())

    def waits(self) -> tuple[float, float]:
        """The median, and what nineteen of twenty stay below."""
        return statistics.median(self.seconds), statistics.quantiles(self.seconds, n=20, method="inclusive")[-1]
