"""The yardstick of a wake: creating a Ray actor and calling it once, on the same cluster.

Run as `python -m benchmarks.ray_actor ADDRESS TOKEN_PATH`: prints the seconds of each creation as JSON.
"""

import json
import os
import sys
import time

from ray_runtime.cluster import ENVIRONMENT

CREATIONS = 6

if __name__ == "__main__":
    address, token_path = sys.argv[1:]
    os.environ.update({**ENVIRONMENT, "RAY_AUTH_TOKEN_PATH": token_path})
    import ray

    ray.init(address=address, namespace="bench", log_to_driver=False, logging_level="ERROR")

    @ray.remote(num_cpus=0, max_restarts=0)
    class Nothing:
        def call(self) -> None:
            return None

    seconds = []
    for _ in range(CREATIONS):
        start = time.perf_counter()
        actor = Nothing.remote()
        ray.get(actor.call.remote())
        seconds.append(time.perf_counter() - start)
        ray.kill(actor)
        time.sleep(0.5)
    print(json.dumps(seconds))
