"""The plane's process: one port, one dispatcher, the reconcilers, and the end of it all in good order.

What `start.py` has begun goes on here: the composition, then serving. `/readyz` turns 200 when the gate
answers and the admin's token is there. The order of an end is the reverse. A killed plane leaves the
rest running, for the next one to adopt.
"""

import asyncio
import contextlib
import logging
import os
import signal
import socket
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from controlplane.api.app import create_app
from controlplane.api.guarding import Guard
from controlplane.api.serving import PlaneServer
from controlplane.feedback.doorbell import LocalDoorbell
from controlplane.settings import Settings
from controlplane.store.unit import Unit
from controlplane.supervision import folder
from controlplane.supervision.openfiles import connections_possible
from controlplane.wiring.beside import Beside
from controlplane.wiring.composition import Plane, compose
from controlplane.wiring.demo import Terminal
from schemas import faults
from schemas.problem import Refusal

log = logging.getLogger("steward.plane")
PAUSE_S = 1.0
SOONEST_S = 0.01
SWEEP_S = 60.0
CLOCK_S = 1.0


async def serve(settings: Settings, listening: socket.socket, children: Beside, *, demo: bool) -> None:
    """Serve on a listening socket until SIGTERM or Ctrl-C, and end everything in good order."""
    host, port = listening.getsockname()[:2]
    url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    plane = compose(settings, children)
    if faults.armed():
        log.warning("fault points are armed: this plane fails where a test wants it to")
    server = PlaneServer(
        create_app(plane.surfaces),
        stopping=plane.stopping,
        host=host,
        port=port,
        guard=Guard(
            connections_possible(settings.connections_max),
            settings.head_s_max,
            settings.answer_s_max,
            settings.unsent_bytes_max,
        ),
    )
    _on_signals(server)
    folder.write_json(settings.folder / "plane.json", {"url": url, "pid": os.getpid()})
    work = Work(plane, children)
    work.start()
    terminal = Terminal(settings, url, demo=demo)
    terminal.start()
    try:
        await server.serve(sockets=[listening])
    finally:
        terminal.stop()
        await work.stop()
        await plane.close()
        (settings.folder / "plane.json").unlink(missing_ok=True)


def _on_signals(server: PlaneServer) -> None:
    def stop() -> None:
        server.force_exit = server.should_exit
        server.should_exit = True

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop)


class Work:
    """What the plane does without being asked. A loop that breaks is logged whole, and started again."""

    def __init__(self, plane: Plane, children: Beside) -> None:
        self._tasks: set[asyncio.Task[None]] = set()
        self._loops: dict[str, Callable[[], Coroutine[Any, Any, None]]] = {
            "ready": plane.become_ready,
            "confinement": plane.look_at_confinement,
            "reconciler": lambda: _again(plane, plane.reconciler.tick, "reconciler", plane.work_bell),
            "verifier": lambda: _again(plane, plane.verifier.tick, "verifier", plane.work_bell),
            "sweep": lambda: _sweeping(plane),
            "clock": lambda: _watching_the_clock(plane),
            "children": lambda: _telling_of_children(plane, children),
        }

    def start(self) -> None:
        for name in self._loops:
            self._begin(name)

    def _begin(self, name: str) -> None:
        task = asyncio.get_running_loop().create_task(self._loops[name](), name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("%s broke, and is started again", task.get_name(), exc_info=error)
            asyncio.get_running_loop().call_later(PAUSE_S, self._begin, task.get_name())

    async def stop(self) -> None:
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _again(plane: Plane, look: Callable[[], Awaitable[float]], name: str, bell: LocalDoorbell) -> None:
    """Look, wait for the bell or as long as was said, look again. What breaks is logged, and looked at again."""
    await plane.ready.wait()
    while True:
        try:
            pause = await look()
        except Refusal as refusal:
            log.warning("%s: %s", name, refusal)
            pause = PAUSE_S
        try:
            await bell.wait(max(pause, SOONEST_S))
        except Refusal:  # the plane is stopping
            return


async def _sweeping(plane: Plane) -> None:
    """What time takes away, a bounded piece a minute."""
    await plane.ready.wait()
    while True:
        await asyncio.sleep(SWEEP_S)
        if not plane.jumps.settled():
            continue
        try:
            await plane.retention.sweep(time.time())
        except Refusal as refusal:
            log.warning("sweep: %s", refusal)


async def _watching_the_clock(plane: Plane) -> None:
    """A clock that somebody moved is told in the feedback log."""
    await plane.ready.wait()
    while True:
        await asyncio.sleep(CLOCK_S)
        if moved := plane.jumps.untold():
            log.warning("the machine's clock was moved by %+.1f s", moved)
            unit = Unit().event(
                "clock.moved", kind="Plane", namespace="", name="plane", now=time.time(), data={"by_s": moved}
            )
            with contextlib.suppress(Refusal):  # the log of the process has it
                await plane.store.write(unit)


async def _telling_of_children(plane: Plane, children: Beside) -> None:
    """That Ray or its placer was started is in the feedback log; the gate tells of itself."""
    await plane.ready.wait()
    while True:
        await asyncio.sleep(CLOCK_S)
        while children.started:
            name, pid = children.started[0]
            unit = Unit().event(
                f"{name}.started", kind="Plane", namespace="", name="plane", now=time.time(), data={"pid": pid}
            )
            try:
                await plane.store.write(unit)
            except Refusal:  # the gate is away: later, then
                break
            children.started.popleft()
