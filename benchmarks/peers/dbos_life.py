"""`python -m benchmarks.peers.dbos_life FOLDER wake|turns SECONDS SAMPLES DATABASE_URL`: durable life in DBOS, as JSON.

Runs in the peers' own environment; whoever starts it removes the folder. A turn is a workflow, an external effect
a step, and a wake is from starting a workflow, its row included, to its first line; the state is its argument,
which is the nearest like.
"""

import asyncio
import json
import os
import sys
import time
from importlib.metadata import version
from pathlib import Path

from dbos import DBOS, SetWorkflowID

from benchmarks.timing import EFFECTS, IN_FLIGHT, STATES, append, rate, samples

LARGE_BYTES, LARGE_SAMPLES = 1_000_000, 10


@DBOS.step()
async def effect(text: str) -> str:
    append(Path(sys.argv[1]) / "notes", text)
    return text


@DBOS.workflow()
async def turn(effects: int) -> int:
    for n in range(effects):
        await effect(f"x{n}")
    return effects


@DBOS.workflow()
async def clock(state: str) -> float:
    return time.time()


async def run(effects: int) -> None:
    assert await turn(effects) == effects


async def wake(count: int) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    for name, size in STATES.items():
        state, found[name] = "x" * size, []
        for n in range(count if size < LARGE_BYTES else min(count, LARGE_SAMPLES)):
            begun = time.time()
            with SetWorkflowID(f"{name}-{n}"):
                handle = await DBOS.start_workflow_async(clock, state)
            found[name].append(await handle.get_result(polling_interval_sec=0.01) - begun)
    return found


async def turns(seconds: float, count: int) -> dict[str, object]:
    return {
        "serial": {n: await samples(lambda n=n: run(n), count) for n in EFFECTS},
        "rate": {n: await rate(lambda _, n=n: run(n), IN_FLIGHT, seconds) for n in EFFECTS},
    }


async def main() -> None:
    what, seconds, count, url = sys.argv[2], float(sys.argv[3]), int(sys.argv[4]), sys.argv[5]
    os.environ.setdefault("DBOS__APPVERSION", "bench")
    DBOS(config={"name": "bench", "system_database_url": url, "log_level": "ERROR"})
    DBOS.launch()
    try:
        found = {"wake": await wake(count)} if what == "wake" else await turns(seconds, count)
        print(json.dumps({"version": f"DBOS {version('dbos')}", **found}), flush=True)
    finally:
        DBOS.destroy()


if __name__ == "__main__":
    asyncio.run(main())
    os._exit(0)  # its pool of threads would be waited for
