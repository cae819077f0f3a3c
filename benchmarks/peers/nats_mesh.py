"""`python -m benchmarks.peers.nats_mesh FOLDER mesh SECONDS SAMPLES SERVER`: messages over NATS, as JSON.

Runs in the peers' own environment; whoever starts it removes the folder, and ends its processes, which are of one
group. Publishing is to a JetStream stream on disk, acknowledged, and read by a push consumer that acknowledges each;
its files are synced as the server does by default, every two minutes. Request and reply are NATS's own, which keep
nothing.
"""

import asyncio
import json
import subprocess
import sys
import time
from pathlib import Path

import nats
from nats.aio.msg import Msg

from benchmarks.peers.ports import free_port
from benchmarks.timing import AT_ONCE, IN_FLIGHT, rate, samples


class Heard:
    """Messages that a consumer was given, by their number."""

    def __init__(self) -> None:
        self._waiting: dict[str, asyncio.Future[float]] = {}
        self._count = 0

    async def on(self, message: Msg) -> None:
        at = time.time()
        self._waiting.pop(message.data.decode()).set_result(at)
        await message.ack()

    async def heard(self, stream: "nats.js.JetStreamContext", subject: str) -> float:
        """Seconds from publishing to the first line of the handler."""
        self._count += 1
        number = str(self._count)
        self._waiting[number] = waiting = asyncio.get_running_loop().create_future()
        begun = time.time()
        await stream.publish(subject, number.encode())
        return await waiting - begun


async def published(client: "nats.NATS", seconds: float, count: int) -> tuple[list[float], float]:
    stream, heard = client.jetstream(), Heard()
    await stream.add_stream(name="bench", subjects=["bench.*"], storage="file")
    await stream.subscribe("bench.*", durable="ear", cb=heard.on, manual_ack=True)
    for _ in range(20):
        await heard.heard(stream, "bench.0")
    found = [await heard.heard(stream, "bench.0") for _ in range(count)]
    return found, await rate(lambda at: heard.heard(stream, f"bench.{at}"), IN_FLIGHT, seconds)


async def replies(client: "nats.NATS", other: "nats.NATS", count: int) -> dict[int, list[float]]:
    async def say(message: Msg) -> None:
        await message.respond(b"")

    await other.subscribe("asked", cb=say)
    await other.flush()  # the server knows of it: a request that came before would have nobody to answer it
    found: dict[int, list[float]] = {}
    for n in AT_ONCE:
        parts = await asyncio.gather(
            *(samples(lambda: client.request("asked", b"", timeout=10), max(10, count // n)) for _ in range(n))
        )
        found[n] = [took for part in parts for took in part]
    return found


async def measured(port: int, seconds: float, count: int) -> dict[str, object]:
    address = f"nats://127.0.0.1:{port}"
    client = await nats.connect(address, max_reconnect_attempts=50, reconnect_time_wait=0.1)
    other = await nats.connect(address)
    took, a_second = await published(client, seconds, count)
    found = {"publish": {1: took}, "rate": {"publish": a_second}, "replies": await replies(client, other, count)}
    await client.close()
    await other.close()
    return found


def main() -> None:
    folder, seconds, count, command = Path(sys.argv[1]), float(sys.argv[3]), int(sys.argv[4]), sys.argv[5]
    port = free_port()
    given = ["-a", "127.0.0.1", "-p", str(port), "-js", "-sd", str(folder / "data")]
    said = subprocess.run([command, "--version"], capture_output=True, text=True, timeout=30, check=True)
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen([command, *given], stdout=log, stderr=log, cwd=folder)
    try:
        found = asyncio.run(measured(port, seconds, count))
        print(json.dumps({"version": f"NATS {said.stdout.split()[-1]}", **found}), flush=True)
    finally:
        process.terminate()
        process.wait(timeout=10)


if __name__ == "__main__":
    main()
