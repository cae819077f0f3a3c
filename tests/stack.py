"""A whole installation for tests: `steward up` on a folder of its own, as a user would start it."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import orjson
import psutil

START_S_MAX = 120
STEWARD = Path(sys.executable).with_name("steward")


class Stack:
    """A running plane with its gate and Ray, no spare; Ray's dashboard, six processes more, only where it is looked at.

    Everything it started is gone after `close`. Its tables are there before it, unless it is to make them (`empty`).
    """

    def __init__(
        self, database_url: str | None = None, *, demo: bool = False, empty: bool = False, **settings: Any
    ) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="stw-"))
        self.data = self.folder / "data"
        self.database_url = database_url
        self._demo = demo
        self._empty = empty or database_url is not None
        self._settings = {"ray_dashboard": False, "gate_spare": False} | settings
        self._process: subprocess.Popen[bytes] | None = None
        self.url = ""
        self.token = ""

    def env(self) -> dict[str, str]:
        env = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE" and not k.startswith("STEWARD_")}
        return env | {f"STEWARD_{k.upper()}": str(v) for k, v in self._settings.items()}

    def up(self) -> "Stack":
        """Start, and wait until messages are durably accepted."""
        command = [str(STEWARD), "up", "--data", str(self.data), "--port", "0"]
        if self.database_url:
            command += ["--database-url", self.database_url]
        if self._demo:
            command += ["--demo"]
        if not self._empty and not self.data.exists():
            self.data.mkdir(mode=0o700)
            (self.data / "steward.db").write_bytes(_tables())
        out = (self.folder / "up.out").open("ab")
        self._process = subprocess.Popen(
            command, env=self.env(), stdin=subprocess.DEVNULL, stdout=out, stderr=out, cwd=self.folder
        )
        self._wait_ready()
        return self

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def _wait_ready(self) -> None:
        limit = time.monotonic() + START_S_MAX
        while time.monotonic() < limit:
            assert self._process is not None
            assert self._process.poll() is None, f"`up` ended:\n{self.output()}"
            with contextlib.suppress(OSError, httpx.HTTPError, KeyError, ValueError):
                plane = orjson.loads((self.data / "plane.json").read_bytes())
                if plane["pid"] == self._process.pid and httpx.get(plane["url"] + "/readyz").status_code == 200:
                    self.url = plane["url"]
                    self.token = (self.data / "admin.token").read_text().strip()
                    return
            time.sleep(0.05)
        raise AssertionError(f"not ready after {START_S_MAX} s:\n{self.output()}")

    def output(self) -> str:
        """What `up` printed, and the ends of the logs."""
        text = (self.folder / "up.out").read_text(errors="replace")
        for path in sorted((self.data / "logs").glob("*")) if (self.data / "logs").exists() else []:
            text += f"\n--- {path.name}\n" + path.read_text(errors="replace")[-3000:]
        return text

    def rest(self, token: str | None = None) -> httpx.Client:
        """A client with the admin's token, or another."""
        return httpx.Client(
            base_url=self.url, headers={"Authorization": f"Bearer {token or self.token}"}, timeout=httpx.Timeout(70)
        )

    def call(self, operation: str, **arguments: Any) -> Any:
        """Call an operation as admin; a Problem fails the test."""
        with self.rest() as client:
            answer = client.post(f"/v1/operations/{operation}/call", json=arguments)
        assert answer.status_code == 200, f"{operation}: {answer.text}"
        return answer.json()

    def apply(self, *manifests: dict[str, Any], timeout_s: float = 60) -> dict[str, Any]:
        """Propose, commit, and wait until the change is done."""
        plan = self.call("resources.propose", manifests=list(manifests))
        committed = self.call("plans.commit", plan_id=plan["plan_id"])
        limit = time.monotonic() + timeout_s
        while time.monotonic() < limit:
            change: dict[str, Any] = self.call("changes.wait", change_id=committed["change_id"], timeout_s=10)
            if change["done"]:
                return change
        raise AssertionError(f"not done: {change}\n{self.output()}")

    def kill(self) -> None:
        """kill -9 of the plane."""
        assert self._process is not None
        self._process.kill()
        self._process.wait(timeout=10)

    def stop(self) -> None:
        """SIGTERM, as Ctrl-C or a service manager would; state is kept."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(timeout=40)

    def leftovers(self) -> list[str]:
        """Processes that still speak of this installation."""
        marks = (str(self.data), runtime_folder(self.data))
        found = []
        for process in psutil.process_iter(["pid", "cmdline", "environ"]):
            line = " ".join(process.info["cmdline"] or [])
            environ = process.info["environ"] or {}
            if any(mark in line for mark in marks) or environ.get("STEWARD_DATA") == str(self.data):
                found.append(f"{process.pid} {line[:200]}")
        return found

    def close(self) -> None:
        if self._process is not None and self._process.poll() is None:
            try:
                self.stop()
            except subprocess.TimeoutExpired:
                self.kill()
        if self.leftovers():
            subprocess.run([str(STEWARD), "down", "--data", str(self.data)], env=self.env(), timeout=60, check=False)
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> "Stack":
        try:
            return self.up()
        except BaseException:
            self.close()
            raise

    def __exit__(self, *_: object) -> None:
        self.close()


@cache
def _tables() -> bytes:
    """A database with no row, made once: to make its tables takes a gate as long as all else at its start."""
    from controlplane.store import migrate

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "steward.db"
        migrate.upgrade(f"sqlite:///{path}")
        return path.read_bytes()


def runtime_folder(data: Path) -> str:
    from controlplane.settings import Settings

    return str(Settings(data=data).runtime_folder)
