"""The confined host: what to start for an agent, and as whom."""

import sys
from pathlib import Path
from typing import Any

import msgspec

from ray_runtime.confinement import view
from ray_runtime.host import RESERVED
from schemas.frames import Apart
from schemas.processes import door_of


def plan_of(
    *, socket: Path, host_id: str, node: str, reserved: str, uid: int, hidden: list[Path] | None = None
) -> dict[str, Any]:
    """The plan by which `start` starts the host of one agent, next to the gate of `socket`.

    The agent's variables are the confined process's alone: nothing that runs as root sees them.
    """
    apart = msgspec.json.decode(reserved, type=Apart)
    root = socket.parent / "root"
    root.mkdir(mode=0o700, exist_ok=True)
    door = door_of(socket)
    command = [sys.executable, "-m", "ray_runtime.host", "--socket", f"{view.DOOR}/{door.name}"]
    return view.plan(
        uid=uid,
        root=root,
        argv=[*command, "--host-id", host_id, "--node", node, "--folder", view.HOME],
        env={RESERVED: reserved, **apart.environment},
        door=door.parent,
        hidden=[socket.parent, *(hidden or [])],
        accelerators=bool(apart.resources.get("num_gpus")),
    )
