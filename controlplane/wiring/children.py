"""The processes beside the plane: the gate at once, Ray's head and its placer in their own time.

Two threads, so that a slow start of Ray never delays the restart of a gate. The placer follows the
head: a new head has a new address, and so gets a new placer.
"""

import logging
import os
import shutil
import sys
import threading
from collections import deque
from collections.abc import Callable

import psutil

from controlplane.settings import Settings
from controlplane.supervision import folder
from controlplane.supervision.children import Child
from controlplane.supervision.processes import Record, end
from controlplane.wiring import child_env
from ray_runtime.cluster import RayHead
from schemas.base import digest
from schemas.records import ProcessView

log = logging.getLogger("steward.supervision")
LOOK_S = 0.2
TROUBLE_S = 2.0
GRACE_S = 8.0


class Children:
    """Keeps gate, Ray and placer running until `stop`."""

    def __init__(self, settings: Settings) -> None:
        self.record = Record(settings.folder)
        self.ray_state = "starting"
        self.started: deque[tuple[str, int]] = deque(maxlen=100)  # names and pids of which nobody was told yet
        self._settings = settings
        self._stopping = threading.Event()
        settled = settings.model_copy(update={"data": settings.folder})
        self._mark = digest(settled.model_dump(mode="json", exclude={"host", "port"}))
        self._gate = self._child("gate", spare=settings.gate_spare)
        self._placer = self._child("placer")
        self._head: RayHead | None = None
        if settings.ray_address is None:
            self._head = RayHead(
                folder=settings.folder,
                runtime=settings.runtime_folder,
                num_cpus=settings.ray_num_cpus,
                dashboard=settings.ray_dashboard,
            )
        self._placed_at = ""
        self._threads = [
            threading.Thread(target=self._keep, args=(self._keep_gate,), name="keep-gate", daemon=True),
            threading.Thread(target=self._keep, args=(self._keep_ray,), name="keep-ray", daemon=True),
        ]

    def _child(self, name: str, *, spare: bool = False) -> Child:
        command, logs = [sys.executable, "-m", "controlplane.wiring", name], self._settings.folder / "logs"
        return Child(name, command, child_env(self._settings), self.record, logs, self._mark, spare=spare)

    def start(self) -> None:
        """Start or adopt; the gate before this answers."""
        self._gate.ensure()
        for thread in self._threads:
            thread.start()

    def _keep(self, work: Callable[[], object]) -> None:
        while not self._stopping.is_set():
            try:
                work()
            except (OSError, RuntimeError, psutil.Error) as error:
                log.error("keeping children: %s", error)
                self.ray_state = (
                    f"down: {str(error).splitlines()[0][:200]}" if work == self._keep_ray else self.ray_state
                )
                self._stopping.wait(TROUBLE_S)

    def _keep_gate(self) -> None:
        """Everybody waits for it: its end is heard of at once."""
        self._gate.ensure()
        self._gate.watch(LOOK_S)

    def _keep_ray(self) -> None:
        self._look_after_ray()
        self._stopping.wait(LOOK_S)

    def _look_after_ray(self) -> None:
        head = self._head
        if head is None:
            address = self._settings.ray_address
            token = os.environ.get("RAY_AUTH_TOKEN_PATH")
            folder.write_json(self._settings.folder / "ray.json", {"address": address, "token_path": token})
        elif not head.alive() and not head.adopt():
            self.ray_state = "starting" if head.process is None else "starting again, since its head has died"
            head.start()
            if head.process is not None:
                self.record.put(head.process)
                self.started.append(("ray", head.process.pid))
        if head is not None and self._placed_at not in ("", head.address):
            self._placer.end(grace_s=0.0)  # what it would end politely went with the head
        if self._placer.ensure() and self._placer.process is not None:
            self.started.append(("placer", self._placer.process.pid))
        self._placed_at = head.address if head is not None else self._settings.ray_address or ""
        self.ray_state = "up"

    def stop(self) -> None:
        """End all of it: placer (which ends its hosts), gate, Ray."""
        self._stopping.set()
        for thread in self._threads:
            thread.join(timeout=60)
        self._placer.stop(GRACE_S)
        self._gate.stop(GRACE_S)
        if self._head is not None:
            self._head.stop()
        end(self.record.read(), grace_s=2)
        self.record.clear()
        shutil.rmtree(self._settings.runtime_folder, ignore_errors=True)

    def troubles(self) -> list[str]:
        """Why gate or placer do not stay, where they end again and again."""
        return [it.trouble for it in (self._gate, self._placer) if it.trouble]

    @property
    def dashboard(self) -> str | None:
        return self._head.dashboard or None if self._head is not None else None

    def views(self) -> list[ProcessView]:
        """The processes, as `system.status` shows them."""
        found = [self._gate.process, self._placer.process, self._head.process if self._head is not None else None]
        views = [_view("plane", os.getpid(), alive=True)]
        views += [_view(it.name, it.pid, alive=it.alive()) for it in found if it is not None]
        return views


def _view(name: str, pid: int, *, alive: bool) -> ProcessView:
    try:
        rss = psutil.Process(pid).memory_info().rss if alive else None
    except psutil.Error:
        rss = None
    return ProcessView(name=name, pid=pid, alive=alive, rss_bytes=rss)
