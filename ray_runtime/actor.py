"""The host as a Ray actor, named `host/<id>`, detached, taking no CPU of Ray's.

Ray places, supervises and shows it; messages never travel through Ray. The host runs in a thread of
its own from the first moment, and the actor's creation ends when the host was given its namespace and
its code: Ray reads the `repr` of an actor once, at the end of its creation, so that is the moment at
which it can say them. A warm host is therefore shown as pending creation, and as alive once it has
something to do. When the host ends, so does its process.
"""

import os
import threading
from pathlib import Path

from ray_runtime.host import HostCore, run_host


class Host:
    """One host process. Its only call lasts as long as it lives, so that its end is noticed."""

    def __init__(self, socket: str, host_id: str, node: str) -> None:
        self._host_id = host_id
        self._core = HostCore(Path(socket), host_id, node=node)
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
