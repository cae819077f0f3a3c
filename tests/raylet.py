"""One more node of an installation's Ray, on this machine: a raylet of its own, in a session of its own.

Made as Ray's `cluster_utils` makes one; `ray start --address` refuses a second node on a loopback address.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import orjson
import psutil

from controlplane.supervision.processes import Known, known
from ray_runtime.cluster import ENVIRONMENT, HANDED_DOWN, OBJECT_STORE_BYTES, session_of

ROOT = Path(__file__).resolve().parent.parent
ENDED_S_MAX = 20.0


class Raylet:
    """A node called `name`. `kill` ends all of it at once, as the loss of a machine does."""

    def __init__(self, data: Path, name: str, *, resources: dict[str, float], labels: dict[str, str]) -> None:
        head = orjson.loads((data / "ray.json").read_bytes())
        given = {"address": head["address"], "name": name, "resources": resources, "labels": labels}
        command = [sys.executable, "-m", "tests.raylet", orjson.dumps(given).decode()]
        inherited = {k: v for k, v in os.environ.items() if k in HANDED_DOWN or k.startswith("LC_")}
        own = {"RAY_AUTH_TOKEN_PATH": head["token_path"], "PYTHONHASHSEED": "0", "PYTHONPATH": str(ROOT)}
        with (data.parent / f"raylet-{name}.out").open("wb") as out:
            self._popen = subprocess.Popen(
                command, env=inherited | ENVIRONMENT | own, stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                start_new_session=True,
            )  # fmt: skip
        self._known: Known = known(name, self._popen.pid)

    def processes(self) -> list[psutil.Process]:
        """All that the node runs, with its workers."""
        return session_of(self._known)

    def kill(self) -> None:
        limit = time.monotonic() + ENDED_S_MAX
        while (left := self.processes()) and time.monotonic() < limit:
            for process in left:
                try:
                    process.kill()
                except psutil.NoSuchProcess:
                    continue
            psutil.wait_procs(left, timeout=1)
            self._popen.poll()
        assert not left, left


def main() -> None:
    from ray._private.node import Node
    from ray._private.parameter import RayParams

    given = orjson.loads(sys.argv[1])
    parameters = RayParams(
        gcs_address=given["address"], node_ip_address="127.0.0.1", node_name=given["name"], num_cpus=0, num_gpus=0,
        resources=given["resources"], labels=given["labels"], object_store_memory=OBJECT_STORE_BYTES,
        min_worker_port=0, max_worker_port=0, node_manager_port=0, include_log_monitor=False,
    )  # fmt: skip
    parameters.dashboard_agent_listen_port = None  # a free one
    Node(parameters, head=False, shutdown_at_exit=True, spawn_reaper=False)
    signal.pause()


if __name__ == "__main__":
    main()
