"""What `up` says at the terminal; and with `--demo`, the example fleet, applied like anybody would, and shown live.

A client of the plane over HTTP, in a thread beside it: it has no way in that others do not have.
"""

import sys
import threading
from pathlib import Path
from typing import Any

import httpx
import orjson

from controlplane.cli.live import run_live
from controlplane.cli.manifests import load
from controlplane.settings import Settings

EXAMPLE = Path(__file__).resolve().parent.parent.parent / "examples" / "machine_watch" / "manifests.yaml"
POLL_S = 0.05
APPLY_S_MAX = 30.0


class Terminal:
    """Says where the plane is once it is ready; shows the demo when wanted."""

    def __init__(self, settings: Settings, url: str, *, demo: bool) -> None:
        self._settings = settings
        self._url = url
        self._demo = demo
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="terminal", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """The end was asked for; it takes a moment."""
        self._stop.set()
        self._thread.join(timeout=5)

    def _run(self) -> None:
        token = self._ready()
        if token is None:
            return
        say(f"ready: REST and MCP at {self._url} and {self._url}/mcp")
        say(f"admin token in {self._settings.folder / 'admin.token'}; `steward mcp-config` connects an LLM")
        if not self._demo:
            return
        try:
            self._apply(token)
        except (httpx.HTTPError, KeyError, OSError, RuntimeError) as error:
            say(f"the example fleet was not applied: {error}")
        run_live(self._url, token, self._stop, data=self._settings.folder)

    def _ready(self) -> str | None:
        while not self._stop.wait(POLL_S):
            try:
                if httpx.get(self._url + "/readyz", timeout=2).status_code == 200:
                    return (self._settings.folder / "admin.token").read_text().strip()
            except (httpx.HTTPError, OSError):
                continue
        return None

    def _apply(self, token: str) -> None:
        """Propose and commit the example; what is there already stays as it is."""
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        with httpx.Client(base_url=self._url, headers=headers, timeout=APPLY_S_MAX) as client:
            plan = _answer(client.post("/v1/resources/propose", content=orjson.dumps({"manifests": load([EXAMPLE])})))
            if plan["steps"]:
                _answer(client.post(f"/v1/plans/{plan['plan_id']}/commit", content=b"{}"))
        say(f"the example fleet is committed: {len(plan['steps'])} steps, {len(plan['claims'])} claims")


def _answer(response: httpx.Response) -> dict[str, Any]:
    if response.status_code != 200:
        raise RuntimeError(response.text[:500])
    found: dict[str, Any] = response.json()
    return found


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
