"""The peers as `make peers` fetches them, each run in its own environment, in a folder that goes with it."""

import contextlib
import json
import os
import signal
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
PYTHON = HERE / ".venv" / "bin" / "python"
PEER_S_MAX = 240
ABSENT = "peer absent: make peers"
_LIFE = {"mesh": "mesh"}  # what has a file of its own


class AbsentError(Exception):
    """The peer has not been fetched."""

    def __str__(self) -> str:
        return ABSENT


def absent() -> bool:
    """Whether DBOS was never fetched."""
    return not PYTHON.exists()


def dbos(url: Callable[[Path], str]) -> Callable[[str, float, int], dict[str, Any]]:
    """DBOS on a database, of which the url is made for its folder."""
    return lambda what, seconds, samples: _run(f"dbos_{_LIFE.get(what, 'life')}", what, seconds, samples, url)


def dbos_on_sqlite() -> Callable[[str, float, int], dict[str, Any]]:
    return dbos(lambda folder: f"sqlite:///{folder}/dbos.sqlite")


def restate(what: str, seconds: float, samples: int) -> dict[str, Any]:
    """Restate with a server of its own."""
    return _run("restate_life", what, seconds, samples, lambda _: str(_restate_server()))


def nats(what: str, seconds: float, samples: int) -> dict[str, Any]:
    """NATS with a server of its own."""
    return _run(f"nats_{what}", what, seconds, samples, lambda _: str(_nats_server()))


def _nats_server() -> Path:
    found = HERE / "nats" / "usr" / "sbin" / "nats-server"
    if not found.exists():
        raise AbsentError
    return found


def _restate_server() -> Path:
    for found in (HERE / "node_modules" / "@restatedev").glob("restate-server-*/bin/restate-server"):
        return found
    raise AbsentError


def _run(module: str, what: str, seconds: float, samples: int, last: Callable[[Path], str]) -> dict[str, Any]:
    """What it measured. Raises AbsentError, or RuntimeError with the end of what it said."""
    if absent():
        raise AbsentError
    with tempfile.TemporaryDirectory(prefix="peer-", ignore_cleanup_errors=True) as name:
        folder = Path(name).resolve()
        given = [str(folder), what, str(seconds), str(samples), last(folder)]
        log = folder / "peer.log"
        with log.open("wb") as errors:
            process = subprocess.Popen(
                [str(PYTHON), "-m", f"benchmarks.peers.{module}", *given],
                cwd=HERE.parent.parent,
                env={**os.environ, "TMPDIR": str(folder), "DO_NOT_TRACK": "1"},
                stdout=subprocess.PIPE,
                stderr=errors,
                start_new_session=True,
            )
        try:
            out, _ = process.communicate(timeout=PEER_S_MAX)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(timeout=10)
        if process.returncode or not out.strip():
            raise RuntimeError(f"{module} ended with {process.returncode}: {log.read_text(errors='replace')[-300:]}")
        found: dict[str, Any] = json.loads(out.decode().strip().splitlines()[-1])
        return found
