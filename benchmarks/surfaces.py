"""How long a read takes over MCP and REST, beside a bare server's no-op on the same machine in the same run.

The read is `plans.get`: a token check, one indexed read, and the validation of input.
Rounds alternate between the two, so that noise from elsewhere falls on both.
"""

import contextlib
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import httpx2
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from benchmarks.targets import at_most
from benchmarks.timing import Latency, serial, table
from controlplane.guard import tokens
from controlplane.operations.proposing import read_plan
from controlplane.operations.validation import validate
from controlplane.resources.catalogue import OPERATIONS
from controlplane.settings import Settings
from controlplane.store.store import Store, open_url
from tests.stack import Stack

ROUNDS, CALLS = 5, 150
WHY = (
    "token check and read are the lesser part of what it takes more (first table); the rest is the boundary around the"
    " handler, the dispatcher, and a model of the answer, of which the bare route has nothing"
)


class NoWriter:
    """Nothing is written here."""

    async def write(self, statements: list[Any]) -> bool:
        raise RuntimeError("this store is only read")


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@contextlib.contextmanager
def bare() -> Iterator[str]:
    """A bare server in a process of its own."""
    port = free_port()
    process = subprocess.Popen([sys.executable, "-m", "benchmarks.bare", str(port)])
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(200):
            with contextlib.suppress(httpx.HTTPError):
                httpx.get(url + "/noop")
                break
            time.sleep(0.05)
        yield url
    finally:
        process.terminate()
        process.wait(timeout=10)


@contextlib.asynccontextmanager
async def mcp_client(url: str, token: str) -> AsyncIterator[Client]:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    async with httpx2.AsyncClient(headers=headers) as http, Client(streamable_http_client(url, http_client=http)) as it:
        yield it


def _median(rounds: list[Latency]) -> Latency:
    return Latency(
        statistics.median(it.p50_ms for it in rounds),
        statistics.median(it.p99_ms for it in rounds),
        sum(it.n for it in rounds),
    )


def _row(name: str, ours: list[Latency], theirs: list[Latency], target: float) -> list[object]:
    mine, other = _median(ours), _median(theirs)
    ratio = at_most(f"{name}: ratio at p50", mine.p50_ms / other.p50_ms, target, WHY)
    return [name, mine, other, f"{ratio.figure:.2f}", ratio.cell]


async def _shares(stack: Stack, plan_id: str) -> str:
    """What the store and the validation take of it, in this process, on the same database."""
    settings = Settings(data=stack.data)
    store = Store(open_url(None, settings.sqlite_path), NoWriter())
    operation = OPERATIONS["plans.get"]

    async def check() -> None:
        await tokens.authenticate(store, stack.token, time.time())

    async def read() -> None:
        await store.read(lambda session: read_plan(session, plan_id))

    async def judge() -> None:
        validate(operation, {"plan_id": plan_id})

    parts = {"token check": check, "indexed read": read, "validation of the input": judge}
    rows = [[name, await serial(part, 500)] for name, part in parts.items()]
    await store.close()
    return table(["share of a read", "p50 / p99 ms"], rows) + "\n"


async def measure(stack: Stack, bare_url: str) -> str:
    """The table of MCP and REST."""
    manifest = {"kind": "Channel", "metadata": {"name": "bench"}, "spec": {}}
    plan_id = stack.call("resources.propose", manifests=[manifest])["plan_id"]
    named = {"plan_id": plan_id}
    rest_ours: list[Latency] = []
    rest_bare: list[Latency] = []
    mcp_ours: list[Latency] = []
    mcp_bare: list[Latency] = []
    headers = {"Authorization": f"Bearer {stack.token}"}
    async with (
        httpx.AsyncClient(base_url=stack.url, headers=headers) as ours,
        httpx.AsyncClient(base_url=bare_url) as plain,
        mcp_client(stack.url + "/mcp/full", stack.token) as tools,
        mcp_client(bare_url + "/mcp", "") as noop,
    ):
        first = await tools.call_tool("plans_get", named)
        assert not first.is_error, first
        for _ in range(ROUNDS):
            rest_bare.append(await serial(lambda: plain.get("/noop"), CALLS))
            rest_ours.append(await serial(lambda: ours.get(f"/v1/plans/{plan_id}"), CALLS))
            mcp_bare.append(await serial(lambda: noop.call_tool("noop", {}), CALLS))
            mcp_ours.append(await serial(lambda: tools.call_tool("plans_get", named), CALLS))
    shares = await _shares(stack, plan_id)
    return shares + table(
        ["read of one plan", "Steward p50 / p99 ms", "bare p50 / p99 ms", "ratio at p50", "target"],
        [
            _row("MCP `tools/call` (2026-07-28)", mcp_ours, mcp_bare, 2),
            _row("REST GET", rest_ours, rest_bare, 2),
        ],
    )
