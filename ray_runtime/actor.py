"""The host as a Ray actor, named `host/<id>`, detached, taking no CPU of Ray's.

Ray places, supervises and shows it; messages never travel through Ray. The host runs in a thread of
its own from the first moment, and the actor's creation ends when the host was given its namespace and
its code: Ray reads the `repr` of an actor once, at the end of its creation, so that is the moment at
which it can say them. A warm host is therefore shown as pending creation, and as alive once it has
something to do. When the host ends, so does its process. A confined host is a process of its own, which its
actor supervises.
"""

import json
import os
import sys
import threading
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from ray_runtime.confinement.host import plan_of
from ray_runtime.confinement.start import start
from ray_runtime.host import HostCore, run_host
from ray_runtime.node_folder import folder_of, private

OUTPUT_BYTES = 65_536


class Host:
    """One host process. Its only call lasts as long as it lives, so that its end is noticed."""

    def __init__(self, socket: str, host_id: str, node: str, reserved: str = "", home: str = "") -> None:
        self._host_id = host_id
        self._core = HostCore(_socket_here(Path(socket), home), host_id, node=node, reserved=reserved)
        threading.Thread(target=self._serve, name=f"host-{host_id}", daemon=True).start()
        self._core.specialised.wait()

    def __repr__(self) -> str:
        return f"host/{self._host_id} {self._core.namespace} {self._core.digest}"

    def watch(self) -> None:
        """Never answers: the caller learns of the host's end by the call's failure."""
        threading.Event().wait()

    def _serve(self) -> None:
        try:
            run_host(self._core)
        finally:
            os._exit(0)


class ConfinedHost:
    """Supervises the confined process that is the host of one agent, and ends with it; it runs no agent's code.

    Its creation fails where the process can not be confined, with what stands in the way.
    """

    def __init__(self, socket: str, host_id: str, node: str, reserved: str, uid: int, hidden: list[str]) -> None:
        self._name = f"host/{host_id} {json.loads(reserved)['address']} confined"
        self._about: dict[str, Any] = {
            "socket": Path(socket), "host_id": host_id, "node": node, "reserved": reserved, "uid": uid,
            "hidden": [Path(it) for it in hidden],
        }  # fmt: skip
        started: Future[None] = Future()
        threading.Thread(target=self._supervise, args=(started,), name=f"host-{host_id}", daemon=True).start()
        started.result()

    def __repr__(self) -> str:
        return self._name

    def watch(self) -> None:
        """Never answers, as that of a host."""
        threading.Event().wait()

    def _supervise(self, started: "Future[None]") -> None:
        """In one thread from start to end: the process ends with the thread that started it."""
        try:
            child = start(plan_of(**self._about))
        except Exception as error:  # noqa: BLE001 - whatever it is, the creation fails of it
            started.set_exception(error)
            return
        started.set_result(None)
        try:
            assert child.stdout is not None
            while said := os.read(child.stdout.fileno(), OUTPUT_BYTES):
                sys.stdout.buffer.write(said)
                sys.stdout.buffer.flush()
            child.wait()
        finally:
            os._exit(0)


def _socket_here(socket: Path, home: str) -> Path:
    """The gate's own on the gate's node, by Ray's id; the relay's on another, whose folder may be still to come."""
    import ray

    here = ray.get_runtime_context().get_node_id()
    if here == home:
        return socket
    return private(folder_of(socket, here)) / "gate.sock"
