"""The start of a plane, lightest things first.

Folders and lock, then the port, so that a second `up` or a taken port is refused at once; then the
children, so that the gate and Ray start while this process is still importing its surfaces.
"""

import signal
import socket
import sys
from typing import TYPE_CHECKING

import uvloop

from controlplane.resources.problems import refuse
from controlplane.settings import Settings
from controlplane.supervision import folder
from controlplane.supervision.logs import log_to
from controlplane.supervision.memory import give_freed_memory_back
from controlplane.supervision.openfiles import allow_open_files
from controlplane.wiring.children import Children

if TYPE_CHECKING:
    from controlplane.store.claims import PlaneClaim


def run(settings: Settings, *, demo: bool) -> int:
    """Run until SIGTERM or Ctrl-C.

    Raises Refusal when folder or database are another's, can not be written, or the port is taken.
    """
    give_freed_memory_back()
    allow_open_files()
    lock = folder.Lock(settings.folder)
    with folder.needed(settings.folder):
        folder.prepare(settings.folder, settings.runtime_folder)
        lock.acquire()
    try:
        listening = bind(settings.host, settings.port)
        with folder.needed(settings.folder):
            log_to(settings.folder / "logs" / "plane.log", settings.log_bytes_max)
            folder.installation(settings.folder)
        claim = claimed(settings)
        sys.stdout.write(f"steward is starting, with its data in {settings.folder}\n")
        sys.stdout.flush()
        children = Children(settings)
        signal.signal(signal.SIGTERM, _asked_to_end)
        try:
            children.start()
            from controlplane.wiring.plane import serve  # a second of imports, while the gate starts

            uvloop.run(serve(settings, listening, children, demo=demo))
        finally:
            children.stop()
            if claim is not None:
                claim.release()
            sys.stdout.write("stopped; state is kept\n")
        return 0
    finally:
        lock.release()


def claimed(settings: Settings) -> "PlaneClaim | None":
    """The right to a database that other folders may name too; one in the data folder is locked with it."""
    if settings.database_url is None:
        return None
    from controlplane.store.claims import PlaneClaim
    from controlplane.wiring import database_url

    return PlaneClaim(database_url(settings), folder.installation(settings.folder))


def _asked_to_end(_number: int, _frame: object) -> None:
    """SIGTERM before the loop listens for it."""
    raise SystemExit(0)


def bind(host: str, port: int) -> socket.socket:
    """The listening socket; raises PORT_TAKEN."""
    found = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        found.bind((host, port))
        found.listen(1024)
    except OSError as error:
        found.close()
        raise refuse(
            "PORT_TAKEN",
            f"can not listen on {host}:{port} ({error.strerror}); choose another with --port",
            host=host,
            port=port,
            error=error.strerror,
        ) from error
    found.setblocking(False)  # noqa: FBT003 - the signature of the standard library
    return found
