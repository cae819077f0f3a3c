"""One more node of an installation's Ray, on this machine: a raylet of its own, in a session of its own.

Made as Ray's `cluster_utils` makes one; `ray start --address` refuses a second node on a loopback address.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import orjson
import psutil

from controlplane.supervision.processes import Known, known
from ray_runtime.cluster import ENVIRONMENT, HANDED_DOWN, OBJECT_STORE_BYTES, session_of

ROOT = Path(__file__).resolve().parent.parent
ENDED_S_MAX = 20.0


class Raylet:
    """A node called `name`. `kill` ends all of it at once, as the loss of a machine does.

    Its GPUs, each with a CPU, are Ray's to count: no hardware is asked for.
    """

    def __init__(
        self, data: Path, name: str, *, resources: dict[str, float], labels: dict[str, str], gpus: int = 0
    ) -> None:
        head = orjson.loads((data / "ray.json").read_bytes())
        given = {"address": head["address"], "name": name, "resources": resources, "labels": labels, "gpus": gpus}
        command = [sys.executable, "-m", "tests.raylet", orjson.dumps(given).decode()]
        inherited = {k: v for k, v in os.environ.items() if k in HANDED_DOWN or k.startswith("LC_")}
        own = {"RAY_AUTH_TOKEN_PATH": head["token_path"], "PYTHONHASHSEED": "0", "PYTHONPATH": str(ROOT)}
        with (data.parent / f"raylet-{name}.out").open("wb") as out:
            self._popen = subprocess.Popen(
                command, env=inherited | ENVIRONMENT | own, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                stderr=out, start_new_session=True,
            )  # fmt: skip
        self._known: Known = known(name, self._popen.pid)

    def processes(self) -> list[psutil.Process]:
        """All that the node runs, with its workers."""
        return session_of(self._known)

    def free(self) -> dict[str, float]:
        """What Ray would still give away of the node's resources; what is all taken is not there."""
        assert self._popen.stdin is not None
        assert self._popen.stdout is not None
        self._popen.stdin.write(b"\n")
        self._popen.stdin.flush()
        said: dict[str, float] = orjson.loads(self._popen.stdout.readline())
        return said

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
        for pipe in (self._popen.stdin, self._popen.stdout):
            assert pipe is not None
            pipe.close()


def main() -> None:
    from ray._private.node import Node
    from ray._private.parameter import RayParams

    given = orjson.loads(sys.argv[1])
    parameters = RayParams(
        gcs_address=given["address"], node_ip_address="127.0.0.1", node_name=given["name"], num_cpus=given["gpus"],
        num_gpus=given["gpus"],
        resources=given["resources"], labels=given["labels"], object_store_memory=OBJECT_STORE_BYTES,
        min_worker_port=0, max_worker_port=0, node_manager_port=0, include_log_monitor=False,
    )  # fmt: skip
    parameters.dashboard_agent_listen_port = None  # a free one
    node = Node(parameters, head=False, shutdown_at_exit=True, spawn_reaper=False)
    _answer(given["address"], node.node_id)
    signal.pause()


def _answer(address: str, node_id: str) -> None:
    """To each line that is asked: what is free on the node, by Ray's control store."""
    from ray._private.state import GlobalState
    from ray._raylet import GcsClientOptions

    state: Any = GlobalState()
    state._initialize_global_state(
        GcsClientOptions.create(address, None, allow_cluster_id_nil=True, fetch_cluster_id_if_nil=False)
    )
    for _ in sys.stdin:
        print(orjson.dumps(state.available_resources_per_node()[node_id]).decode(), flush=True)


if __name__ == "__main__":
    main()
