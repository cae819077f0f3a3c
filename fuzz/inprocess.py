"""A whole plane as one ASGI app: the real composition and its loops, a real gate process, plain hosts.

Whoever serves the app starts the plane by its lifespan, in the loop that will serve it. What is left
out of a real installation is Ray and the socket; a run against `steward up` has both.
"""

import asyncio
import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send

from controlplane.api.app import create_app
from controlplane.settings import Settings
from controlplane.supervision import folder
from controlplane.wiring import child_env
from controlplane.wiring.composition import compose
from controlplane.wiring.plane import Work
from schemas.records import ProcessView

URL = "http://127.0.0.1"
READY_S_MAX = 60
HOSTS = 2


class Children:
    """The gate and the hosts, as a composition sees the processes beside it."""

    ray_state = "away"
    dashboard: str | None = None

    def __init__(self, settings: Settings) -> None:
        env = dict(child_env(settings))
        host = [sys.executable, "-m", "ray_runtime.host", "--socket", str(settings.gate_socket), "--host-id"]
        commands = [[sys.executable, "-m", "controlplane.wiring", "gate"]]
        commands += [[*host, f"h{number}-{os.getpid()}"] for number in range(HOSTS)]
        self._out = (settings.folder / "logs" / "children.out").open("ab")
        self.started: deque[tuple[str, int]] = deque()  # none of them is started again
        self._running = [subprocess.Popen(it, env=env, stdout=self._out, stderr=self._out) for it in commands]

    def troubles(self) -> list[str]:
        return []

    def views(self) -> list[ProcessView]:
        return [ProcessView(name=f"child-{it.pid}", pid=it.pid, alive=it.poll() is None) for it in self._running]

    def end(self) -> None:
        for process in reversed(self._running):
            process.terminate()
        for process in reversed(self._running):
            try:
                process.wait(timeout=15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(timeout=10)
        self._out.close()


class PlaneApp:
    """The app of one plane; ready once its lifespan has started."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._app: ASGIApp | None = None

    @property
    def token(self) -> str:
        return (self.settings.folder / "admin.token").read_text().strip()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        else:
            assert self._app is not None
            await self._app(scope, receive, send)

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        children = await asyncio.to_thread(Children, self.settings)
        try:
            plane = compose(self.settings, children)
            app = create_app(plane.surfaces)
            work = Work(plane, children)
            async with app.router.lifespan_context(app):
                work.start()
                async with asyncio.timeout(READY_S_MAX):
                    await plane.ready.wait()
                self._app = app
                await send({"type": "lifespan.startup.complete"})
                await receive()
                plane.stopping()
                await work.stop()
            await plane.close()
        finally:
            await asyncio.to_thread(children.end)
        await send({"type": "lifespan.shutdown.complete"})


@contextlib.contextmanager
def plane_app(database_url: str | None, **settings: Any) -> Iterator[PlaneApp]:
    """A plane on a folder of its own; its lifespan is ended here, if nobody has."""
    from schemathesis.python.asgi import shutdown_lifespans

    path = Path(tempfile.mkdtemp(prefix="stfz-"))
    given = Settings(data=path, database_url=database_url, **settings)
    folder.prepare(given.folder, given.runtime_folder)
    try:
        yield PlaneApp(given)
    finally:
        shutdown_lifespans()
        shutil.rmtree(given.runtime_folder, ignore_errors=True)
        shutil.rmtree(path, ignore_errors=True)
