"""The composition root: the only file that knows everybody. One function per process.

`up` is the plane (and the supervisor of the others), `gate` the gate, `placer` the driver of Ray.
Run as `python -m controlplane.wiring gate|placer`, with settings from the environment that the
plane hands down.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from controlplane.settings import Settings
from controlplane.supervision import folder
from controlplane.supervision.logs import log_to

if TYPE_CHECKING:
    from schemas.protocols import Performer

CHILD_SETTINGS = "STEWARD_CHILD_SETTINGS"
IMPORTED = {  # what a spare has imported before it begins
    "gate": (
        "uvloop",
        "controlplane.economy.rating",
        "controlplane.effects.gate",
        "controlplane.guard.vault",
        "controlplane.mesh.dataschema",
        "controlplane.mesh.finding_effect",
        "controlplane.protocols.compute",
        "controlplane.protocols.http_protocol",
        "controlplane.protocols.installed",
        "controlplane.protocols.llm",
        "controlplane.protocols.machine",
        "controlplane.protocols.mcp",
        "controlplane.store.on_postgresql",
        "controlplane.store.on_sqlite",
        "controlplane.store.store",
    ),
}


def child_env(settings: Settings) -> Mapping[str, str]:
    """The environment of a child: ours, less what slows Python, plus all settings as one value."""
    env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    absolute = settings.model_copy(update={"data": settings.folder})
    return env | {CHILD_SETTINGS: absolute.model_dump_json(), "STEWARD_DATA": str(settings.folder)}


def handed_down() -> Settings:
    """The settings that the plane handed down."""
    return Settings.model_validate_json(os.environ[CHILD_SETTINGS])


def database_url(settings: Settings) -> str:
    from controlplane.store.store import open_url

    return open_url(settings.database_url, settings.sqlite_path)


def up(settings: Settings, *, demo: bool = False) -> int:
    """Run the plane in the foreground until SIGTERM or Ctrl-C. Answers the exit code; raises Refusal."""
    from controlplane.wiring.start import run

    return run(settings, demo=demo)


def gate(settings: Settings) -> None:
    """Run the gate until SIGTERM."""
    import uvloop

    from controlplane.economy.rating import RateCard
    from controlplane.effects.gate import Gate
    from controlplane.effects.node import Bounds
    from controlplane.guard.vault import Vault
    from controlplane.protocols.installed import PROTOCOLS

    log_to(settings.folder / "logs" / "gate.log", settings.log_bytes_max)
    serving = Gate(
        url=database_url(settings),
        socket=settings.gate_socket,
        key=folder.gate_key(settings.folder),
        effectors=_effectors(settings),
        listeners=PROTOCOLS.listeners,
        open_secret=Vault.at(settings.folder / "secret.key").open,
        installation=folder.installation(settings.folder),
        card=RateCard(settings.currency, settings.rates),
        bounds=Bounds(
            hosts_warm=settings.hosts_warm,
            hosts_max=settings.hosts_max,
            host_idle_s=settings.host_idle_s,
            host_appear_s=settings.host_appear_s,
            host_window=settings.host_window,
            lease_s=settings.lease_s,
            loop_held_s_max=settings.loop_held_s_max,
            state_bytes_max=settings.state_bytes_max,
            inbox_messages_max=settings.inbox_messages_max,
            agents_max=settings.agents_max,
            turn_attempts_max=settings.turn_attempts_max,
            replay_one_in=settings.replay_one_in,
            send_within_s=settings.effect_send_within_s,
            hold_s=settings.effect_hold_s,
            confined_uid_first=settings.confined_uid_first,
            confined_uids=settings.confined_uids if os.geteuid() == 0 else 0,
            compute_fit_s=settings.compute_fit_s,
            mcp_commands=tuple(map(tuple, settings.mcp_commands)),
            mcp_variables=tuple(settings.mcp_variables),
            node=os.uname().nodename,
            relay_host=settings.relay_host,
            relay_port=settings.relay_port,
        ),
    )
    uvloop.run(serving.serve())


def _effectors(settings: Settings) -> "Mapping[str, Performer]":
    """What a gate can do for agents: of every protocol, and what reads records of ours."""
    from controlplane.knowledge.embedding import Embedder
    from controlplane.mesh.dataschema import data_fault
    from controlplane.mesh.finding import reading_finder
    from controlplane.mesh.finding_effect import FindEffector
    from controlplane.protocols.installed import PROTOCOLS

    finding = FindEffector(reading_finder(database_url(settings), Embedder()))
    return PROTOCOLS.performers(data_fault, {finding.name: finding}, settings.connection_folders)


def placer(settings: Settings) -> None:
    """Run the placer until SIGTERM."""
    from ray_runtime.placement import run_placer

    log_to(settings.folder / "logs" / "placer.log", settings.log_bytes_max)
    cluster = folder.read_json(settings.folder / "ray.json") or {}
    run_placer(
        gate_socket=settings.gate_socket,
        ray_address=cluster["address"],
        ray_namespace=f"steward-{folder.installation(settings.folder)}",
        token_path=Path(cluster["token_path"]) if cluster.get("token_path") else None,
        node=os.uname().nodename,
        hidden=[settings.folder],
    )
