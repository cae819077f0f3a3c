"""Ray's head: a supervised process of its own, in a session of its own, never a driver's child.

It listens on the loopback only, on ports that were free, asks for a token, and keeps its files under
a short path. Everything it starts stays in its session, so the session names all of it, even when
the head itself is dead: that is what `stop` ends, by pid and start time. Ray holds nothing that we
need; a lost head costs a new one. `ray.json` in the data folder says where it is.
"""

import contextlib
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil

from controlplane.supervision.folder import keep, read_json, write_json
from controlplane.supervision.processes import Known, known, place
from schemas.processes import is_it

OBJECT_STORE_BYTES = 78_643_200  # the least that Ray takes; we put nothing into it
START_S_MAX = 90.0
POLL_S = 0.05
DEAD_S_MAX = 5.0
RECORD = "ray.json"
HANDED_DOWN = frozenset(
    {
        "PATH",
        "HOME",
        "LANG",
        "LANGUAGE",
        "TMPDIR",
        "TZ",
        "USER",
        "LOGNAME",
        "VIRTUAL_ENV",
        "LD_LIBRARY_PATH",
        "PYTHONPATH",
    }
)  # all that hosts get of our environment: who holds a credential there would hand it to agents' code
ENVIRONMENT = {
    "RAY_AUTH_MODE": "token",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # Ray's own switch for: the node's address is the loopback
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_enable_worker_prestart": "0",
    "RAY_prestart_worker_first_driver": "0",
    "RAY_health_check_period_ms": "300",
    "RAY_health_check_timeout_ms": "1000",
    "RAY_health_check_failure_threshold": "2",
    "RAY_health_check_initial_delay_ms": "0",
    "RAY_worker_niceness": "0",  # hosts are on the hot path; Ray would have them yield to everybody
    "RAY_LOGGING_ROTATE_BYTES": "10000000",
    "RAY_LOGGING_ROTATE_BACKUP_COUNT": "2",
}


class RayHead:
    """Ray on this machine, for one installation."""

    def __init__(self, *, folder: Path, runtime: Path, num_cpus: int = 0, dashboard: bool = True) -> None:
        self._folder = folder
        self._temp = runtime / "ray"
        self._num_cpus = num_cpus
        self._dashboard = dashboard
        self._head: Known | None = None
        self._popen: subprocess.Popen[bytes] | None = None
        self.address = ""
        self.dashboard = ""

    @property
    def token_path(self) -> Path:
        """Where Ray's token lies, 0600."""
        return self._folder / "ray.token"

    @property
    def process(self) -> Known | None:
        """The head's own process."""
        return self._head

    def adopt(self) -> bool:
        """Take over a head that an earlier plane left, if it is alive and as wanted."""
        found = self._found()
        if found is None or found["settings"] != self._settings():
            return False
        head = Known(**found["head"])
        if not head.alive():
            return False
        self._head, self.address, self.dashboard = head, found["address"], found["dashboard"]
        return True

    def start(self) -> None:
        """Start a head and wait until it takes actors. Raises RuntimeError when it does not."""
        self.stop()
        gcs, board, client = _free_ports(3)
        command = self._command(gcs, board, client)
        keep(self.token_path, lambda: secrets.token_hex(32))
        out = self._folder / "logs" / "ray.out"
        out.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with out.open("wb") as file:
            self._popen = subprocess.Popen(
                command, env=self._environment(), stdin=subprocess.DEVNULL, stdout=file, stderr=file,
                start_new_session=True, cwd=self._folder,
            )  # fmt: skip
        self._head = known("ray", self._popen.pid)
        self.address = f"127.0.0.1:{gcs}"
        self.dashboard = f"http://127.0.0.1:{board}" if self._dashboard else ""
        self._write()
        self._wait_started(out)

    def alive(self) -> bool:
        """Whether the head runs. Ray's own watch ends it when one of its parts dies."""
        if self._popen is not None and self._popen.poll() is not None:
            return False
        return self._head is not None and self._head.alive()

    def stop(self) -> list[int]:
        """End the head and all of its session, at once, and remove its files. Answers the pids ended.

        Asked politely, Ray takes half a minute to put away what nobody needs any more.
        """
        head = self._head or self._recorded()
        ended = _end_session(head) if head is not None else []
        if self._popen is not None:
            self._popen.wait(timeout=DEAD_S_MAX)
        self._head = self._popen = None
        (self._folder / RECORD).unlink(missing_ok=True)
        shutil.rmtree(self._temp, ignore_errors=True)
        return ended

    def _recorded(self) -> Known | None:
        found = self._found()
        return Known(**found["head"]) if found is not None else None

    def _found(self) -> dict[str, Any] | None:
        """The record of a head that this very folder's planes started; a copy of the folder has none."""
        found: dict[str, Any] | None = read_json(self._folder / RECORD)
        return found if found and found.get("of") == place(self._folder) else None

    def _settings(self) -> dict[str, Any]:
        return {"num_cpus": self._num_cpus, "dashboard": self._dashboard, "temp": str(self._temp)}

    def _write(self) -> None:
        assert self._head is not None
        record = {
            "address": self.address,
            "dashboard": self.dashboard,
            "token_path": str(self.token_path),
            "head": {"name": "ray", "pid": self._head.pid, "started": self._head.started},
            "settings": self._settings(),
            "of": place(self._folder),
        }
        write_json(self._folder / RECORD, record)

    def _command(self, gcs: int, board: int, client: int) -> list[str]:
        return [
            sys.executable, str(Path(sys.executable).with_name("ray")), "start", "--head", "--block",
            "--node-ip-address", "127.0.0.1", "--port", str(gcs), "--ray-client-server-port", str(client),
            "--min-worker-port", "0", "--max-worker-port", "0", "--dashboard-agent-listen-port", "0",
            "--include-dashboard", str(self._dashboard).lower(), "--dashboard-host", "127.0.0.1",
            "--dashboard-port", str(board), "--include-log-monitor", "false", "--no-monitor", "--disable-usage-stats",
            "--temp-dir", str(self._temp), "--object-store-memory", str(OBJECT_STORE_BYTES),
            "--num-cpus", str(self._num_cpus), "--log-color", "false",
        ]  # fmt: skip

    def _environment(self) -> dict[str, str]:
        inherited = {k: v for k, v in os.environ.items() if k in HANDED_DOWN or k.startswith("LC_")}
        root = str(Path(__file__).resolve().parent.parent)
        path = os.pathsep.join(p for p in (root, inherited.get("PYTHONPATH", "")) if p)
        own = {"RAY_AUTH_TOKEN_PATH": str(self.token_path), "PYTHONHASHSEED": "0", "PYTHONPATH": path}
        return inherited | ENVIRONMENT | own

    def _wait_started(self, out: Path) -> None:
        deadline = time.monotonic() + START_S_MAX
        marker = self._temp / "ray_current_cluster"  # written when everything runs
        while time.monotonic() < deadline:
            if not self.alive():
                break
            if marker.exists() and marker.read_text().strip() == self.address:
                return
            time.sleep(POLL_S)
        tail = out.read_text(errors="replace")[-2000:]
        self.stop()
        raise RuntimeError(f"Ray's head did not start: {tail}")


def _free_ports(count: int) -> list[int]:
    """Ports that nobody listens on, all different."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def session_of(head: Known) -> list[psutil.Process]:
    """Every living process of the head's session. The kernel keeps a session's id while it has members."""
    if psutil.pid_exists(head.pid) and not _is(head):
        return []  # the pid is another's now, so the session was empty
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(ProcessLookupError, psutil.Error):
            if os.getsid(process.pid) == head.pid and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def _is(head: Known) -> bool:
    """Whether the pid is still the head's, a zombie counting as itself."""
    return is_it(head.pid, head.started)


def _end_session(head: Known) -> list[int]:
    """Kill until the session is empty: what was being started meanwhile is found the next time."""
    ended: set[int] = set()
    deadline = time.monotonic() + DEAD_S_MAX
    while (members := session_of(head)) and time.monotonic() < deadline:
        members.sort(key=lambda process: process.pid != head.pid)  # the head first: it starts no more
        for process in members:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
                ended.add(process.pid)
        psutil.wait_procs(members, timeout=0.5)
    return sorted(ended)
