"""The yardstick of request and reply: one Ray actor calls another on the same cluster, and waits for its answer.

Run as `python -m benchmarks.ray_calls ADDRESS TOKEN_PATH SAMPLES`: prints the seconds of each call as JSON, by how
many calls there are at once.
"""

import json
import os
import subprocess
import sys

import orjson

from benchmarks.timing import AT_ONCE, Latency, quantiles
from ray_runtime.cluster import ENVIRONMENT
from tests.stack import Stack


def calls_of(stack: Stack, samples: int) -> dict[int, Latency]:
    """The latency of a call between two actors, by how many there are at once."""
    ray = orjson.loads((stack.data / "ray.json").read_bytes())
    command = [sys.executable, "-m", "benchmarks.ray_calls", ray["address"], ray["token_path"], str(samples)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180, check=True)
    found = json.loads(done.stdout.strip().splitlines()[-1])
    return {n: quantiles(found[str(n)]) for n in AT_ONCE}


def main() -> None:
    address, token_path, samples = sys.argv[1:]
    os.environ.update({**ENVIRONMENT, "RAY_AUTH_TOKEN_PATH": token_path})
    import ray

    ray.init(address=address, namespace="bench", log_to_driver=False, logging_level="ERROR")

    @ray.remote(num_cpus=0, max_restarts=0)
    class Says:
        async def call(self) -> None:
            return None

    @ray.remote(num_cpus=0, max_restarts=0)
    class Asks:
        async def run(self, other: "ray.actor.ActorHandle", at_once: int, times: int) -> list[float]:
            import asyncio
            import time

            found = []

            async def place() -> None:
                for _ in range(times):
                    began = time.perf_counter()
                    await other.call.remote()
                    found.append(time.perf_counter() - began)

            await asyncio.gather(*(place() for _ in range(at_once)))
            return found

    asks, says = Asks.remote(), Says.remote()
    ray.get(asks.run.remote(says, 1, 20))
    took = {n: ray.get(asks.run.remote(says, n, max(10, int(samples) // n))) for n in AT_ONCE}
    print(json.dumps(took))


if __name__ == "__main__":
    main()
