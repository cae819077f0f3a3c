"""`python -m benchmarks.peers.restate_life FOLDER wake|turns SECONDS SAMPLES SERVER`: durable life in Restate, as JSON.

Runs in the peers' own environment; whoever starts it removes the folder, and ends its processes, which
are of one group. An agent is a virtual object, an external effect a `ctx.run`, and a wake is
from the call at the ingress, which it makes durable first, to the first line of the handler.
"""

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import httpx
import hypercorn.asyncio
import hypercorn.config
import restate

from benchmarks.peers.ports import free_port
from benchmarks.timing import EFFECTS, IN_FLIGHT, STATES, append, rate, samples

LARGE_BYTES, LARGE_SAMPLES = 1_000_000, 10
LIFE = restate.VirtualObject("Life")


@LIFE.handler()
async def turn(ctx: restate.ObjectContext, effects: int) -> int:
    seen = await ctx.get("seen", type_hint=int) or 0
    for n in range(effects):
        await ctx.run_typed(f"effect {n}", _effect)
    ctx.set("seen", seen + 1)
    return effects


@LIFE.handler()
async def fill(ctx: restate.ObjectContext, size: int) -> None:
    ctx.set("state", "x" * size)


@LIFE.handler()
async def clock(ctx: restate.ObjectContext) -> float:
    return time.time()


def _effect() -> str:
    append(folder() / "notes", "x")
    return "x"


def folder() -> Path:
    return Path(sys.argv[1])


def version(command: str) -> str:
    """Of the server, not of the SDK."""
    said = subprocess.run([command, "--version"], capture_output=True, text=True, timeout=30, check=True)
    return said.stdout.split()[-1]


@contextlib.contextmanager
def server(command: str, ports: dict[str, int]) -> Iterator[None]:
    env = os.environ | {
        "RESTATE_BASE_DIR": str(folder() / "data"),
        "RESTATE_BIND_ADDRESS": f"127.0.0.1:{ports['node']}",
        "RESTATE_ADVERTISED_ADDRESS": f"http://127.0.0.1:{ports['node']}",
        "RESTATE_INGRESS__BIND_ADDRESS": f"127.0.0.1:{ports['ingress']}",
        "RESTATE_ADMIN__BIND_ADDRESS": f"127.0.0.1:{ports['admin']}",
        "RESTATE_NODE_NAME": "bench",
        "RESTATE_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "1",
    }
    with (folder() / "server.log").open("wb") as log:
        process = subprocess.Popen([command], env=env, stdout=log, stderr=log, cwd=folder())
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(timeout=10)


@contextlib.asynccontextmanager
async def endpoint(port: int) -> AsyncIterator[None]:
    config = hypercorn.config.Config()
    config.bind, config.loglevel = [f"127.0.0.1:{port}"], "ERROR"
    over = asyncio.Event()
    serving = asyncio.create_task(
        hypercorn.asyncio.serve(restate.app([LIFE]), config, shutdown_trigger=over.wait)  # type: ignore[arg-type]
    )
    try:
        yield
    finally:
        over.set()
        await asyncio.wait([serving], timeout=5)


async def registered(client: httpx.AsyncClient, ports: dict[str, int]) -> None:
    limit = time.monotonic() + 40
    while True:
        with contextlib.suppress(httpx.HTTPError):
            body = {"uri": f"http://127.0.0.1:{ports['life']}"}
            answer = await client.post(f"http://127.0.0.1:{ports['admin']}/deployments", json=body)
            if answer.is_success:
                return
        if time.monotonic() > limit:
            raise TimeoutError((folder() / "server.log").read_text()[-1000:])
        await asyncio.sleep(0.2)


Call = Callable[..., Awaitable[object]]


def caller(client: httpx.AsyncClient, ingress: str) -> Call:
    async def call(key: str, handler: str, argument: object = None) -> object:
        given = {} if argument is None else {"json": argument}
        answer = await client.post(f"{ingress}/Life/{key}/{handler}", **given)  # type: ignore[arg-type]
        answer.raise_for_status()
        return answer.json() if answer.content else None

    return call


async def wake(call: Call, count: int) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    for number, (name, size) in enumerate(STATES.items()):
        await call(f"s{number}", "fill", size)
        found[name] = []
        for _ in range(count if size < LARGE_BYTES else min(count, LARGE_SAMPLES)):
            begun = time.time()
            found[name].append(float(str(await call(f"s{number}", "clock"))) - begun)
    return found


async def turns(call: Call, seconds: float, count: int) -> dict[str, object]:
    return {
        "serial": {n: await samples(lambda n=n: call("one", "turn", n), count) for n in EFFECTS},
        "rate": {n: await rate(lambda at, n=n: call(f"a{at}", "turn", n), IN_FLIGHT, seconds) for n in EFFECTS},
    }


async def main() -> None:
    what, seconds, count, command = sys.argv[2], float(sys.argv[3]), int(sys.argv[4]), sys.argv[5]
    ports = {it: free_port() for it in ("node", "ingress", "admin", "life")}
    limits = httpx.Limits(max_connections=IN_FLIGHT)
    with server(command, ports):
        async with endpoint(ports["life"]), httpx.AsyncClient(timeout=60, limits=limits) as client:
            await registered(client, ports)
            call = caller(client, f"http://127.0.0.1:{ports['ingress']}")
            found = {"wake": await wake(call, count)} if what == "wake" else await turns(call, seconds, count)
            print(json.dumps({"version": f"Restate {version(command)}", **found}), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
