"""`steward up` and `steward down`: the one place of the CLI that knows the plane's own code.

`up` runs the plane in this process until Ctrl-C or SIGTERM. `down` asks the holder of the data
folder's lock to end, and then, holding that lock itself, ends what a killed plane left behind: only
processes that this installation recorded, and only while their start time is still the recorded one.
"""

import shutil
from pathlib import Path
from typing import Annotated, Any

import psutil
import typer

from controlplane.cli.connection import folder
from controlplane.cli.session import Session, command
from controlplane.resources.problems import refuse
from schemas.problem import Refusal

STOP_S_MAX = 60.0
CHILD_S_MAX = 15.0
app = typer.Typer()


@command(app, "up")
def up(
    session: Session,
    host: Annotated[str | None, typer.Option(help="Address to listen on. (default: 127.0.0.1)")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on; 0 takes a free one. (default: 7700)")] = None,
    database_url: Annotated[
        str | None, typer.Option(metavar="URL", help="PostgreSQL; SQLite in the data folder when absent.")
    ] = None,
    ray_address: Annotated[
        str | None, typer.Option(metavar="ADDR", help="An existing Ray cluster; a local one when absent.")
    ] = None,
    demo: Annotated[bool, typer.Option("--demo", help="Apply the example fleet, and show it live.")] = False,
) -> None:
    """Run the plane in the foreground until Ctrl-C or SIGTERM. State is kept."""
    from controlplane import wiring

    given = {
        "data": session.wanted.data,
        "host": host,
        "port": port,
        "database_url": database_url,
        "ray_address": ray_address,
    }
    settings = _settings({key: value for key, value in given.items() if value is not None})
    raise typer.Exit(wiring.up(settings, demo=demo))


@command(app, "down")
def down(session: Session) -> None:
    """Stop the plane of a data folder, and whatever a killed one left running. State is kept."""
    data = folder(session.wanted.data).resolve()
    ended = _end_all(data) if (data / "plane.lock").exists() else []
    for line in ended:
        print(line)
    if not ended:
        print(f"nothing runs on {data}")


def _settings(given: dict[str, Any]) -> Any:
    """The settings of flags, environment and steward.toml; a bad one is a Problem that names it."""
    from pydantic import ValidationError

    from controlplane.settings import Settings

    try:
        return Settings(**given)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        name = ".".join(str(part) for part in first["loc"])
        raise refuse(
            "INVALID_VALUE", f"the setting {name}: {first['msg']}", field=f"/{name}", setting=name, error=first["msg"]
        ) from None


def _end_all(data: Path) -> list[str]:
    """The plane, then under its lock whatever is left; what was ended, a line each."""
    from controlplane.supervision.folder import Lock

    lock = Lock(data)
    ended: list[str] = []
    try:
        lock.acquire()
    except Refusal as refusal:
        ended.append(_end_holder(str(refusal.problem.metadata["pid"])))
        lock.acquire()
    try:
        return [*ended, *_end_left(data)]
    finally:
        lock.release()


def _end_holder(pid: str) -> str:
    try:
        plane = psutil.Process(int(pid))
        plane.terminate()
        plane.wait(STOP_S_MAX)
    except psutil.NoSuchProcess:
        return f"the plane (pid {pid}) was just ending"
    except psutil.TimeoutExpired:
        plane.kill()
        plane.wait(STOP_S_MAX)
        return f"killed the plane (pid {pid}), which did not end within {STOP_S_MAX:g} s"
    return f"ended the plane (pid {pid})"


def _end_left(data: Path) -> list[str]:
    """What a killed plane left: placer and gate in their own good order, then Ray's head with all of its session."""
    from controlplane.settings import Settings
    from controlplane.supervision.processes import Record, end
    from ray_runtime.cluster import RayHead

    runtime = Settings(data=data).runtime_folder
    record = Record(data)
    ended = end([it for it in record.read() if it.name != "ray"], CHILD_S_MAX)
    head = RayHead(folder=data, runtime=runtime).stop()
    ended += end(record.read(), CHILD_S_MAX)
    record.clear()
    (data / "plane.json").unlink(missing_ok=True)
    shutil.rmtree(runtime, ignore_errors=True)
    lines = [f"ended {it.name} (pid {it.pid})" for it in ended]
    return [*lines, f"ended Ray ({len(head)} processes)"] if head else lines
