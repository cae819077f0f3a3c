"""`python -m benchmarks.peers.dbos_mesh FOLDER mesh SECONDS SAMPLES DATABASE_URL`: messages in DBOS, as JSON.

Runs in the peers' own environment; whoever starts it removes the folder. A handler is a workflow that receives again
and again; a message is sent from outside of workflows, its row included.
"""

import asyncio
import contextlib
import json
import os
import sys
import time
import traceback
from importlib.metadata import version

from dbos import DBOS, SetWorkflowID

from benchmarks.timing import IN_FLIGHT, rate

WAIT_S = 60
HEARD: dict[str, "asyncio.Future[float]"] = {}


@DBOS.workflow()
async def ear(name: str) -> None:
    while True:
        number = await DBOS.recv_async("to", timeout_seconds=WAIT_S)
        if number is None or number == "end":
            return
        HEARD.pop(number).set_result(time.time())


async def heard(name: str, number: str) -> float:
    """Seconds from sending to the line after the receipt."""
    HEARD[number] = waiting = asyncio.get_running_loop().create_future()
    begun = time.time()
    await DBOS.send_async(name, number, "to")
    return await asyncio.wait_for(waiting, WAIT_S) - begun


async def main() -> None:
    seconds, count, url = float(sys.argv[3]), int(sys.argv[4]), sys.argv[5]
    os.environ.setdefault("DBOS__APPVERSION", "bench")
    DBOS(config={"name": "bench", "system_database_url": url, "log_level": "ERROR"})
    DBOS.launch()
    try:
        for n in range(IN_FLIGHT):
            with SetWorkflowID(f"ear-{n}"):
                await DBOS.start_workflow_async(ear, f"ear-{n}")
        took = [await heard("ear-0", f"one-{n}") for n in range(min(count, 100))]
        numbers = iter(range(10**9))
        rates = {}
        with contextlib.suppress(TimeoutError):  # with so many at once, SQLite let some of them wait for a minute
            call = lambda at: heard(f"ear-{at}", f"many-{next(numbers)}")  # noqa: E731
            rates["publish"] = await rate(call, IN_FLIGHT, seconds)
        found = {"version": f"DBOS {version('dbos')}", "publish": {1: took}, "rate": rates}
        print(json.dumps(found), flush=True)
    except BaseException:  # noqa: BLE001 - whatever it is, it is told
        traceback.print_exc()
        os._exit(1)
    os._exit(0)  # the ears would be waited for


if __name__ == "__main__":
    asyncio.run(main())
