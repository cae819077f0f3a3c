"""Every setting, typed, in one place: by flag, then `STEWARD_*`, then `steward.toml`, then the default."""

import hashlib
import os
from decimal import Decimal
from pathlib import Path
from typing import Annotated

from pydantic import Field, StringConstraints, field_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from schemas.frames import FRAME_BYTES_MAX

RateKey = Annotated[str, StringConstraints(pattern=r"^([a-z0-9._*-]+(@[a-z0-9-]+)?:)?[a-z][a-z0-9_]{0,62}$")]
Rate = Annotated[Decimal, Field(ge=0, le=1_000_000, max_digits=24, decimal_places=12)]


class Settings(BaseSettings):
    """How this installation runs. Units stand last in the names."""

    model_config = SettingsConfigDict(env_prefix="STEWARD_", toml_file="steward.toml", extra="ignore", frozen=True)

    data: Path = Field(default=Path(".steward"), description="The data folder, locked while a plane runs on it.")
    host: str = Field(default="127.0.0.1", description="The address the plane listens on.")
    port: int = Field(default=7700, ge=0, le=65535, description="The port the plane listens on; 0 takes a free one.")
    database_url: str | None = Field(default=None, description="PostgreSQL; SQLite in the data folder when absent.")
    ray_address: str | None = Field(default=None, description="An existing Ray cluster; a local one when absent.")
    ray_num_cpus: int = Field(
        default_factory=lambda: os.cpu_count() or 1,
        ge=0,
        description="CPUs of the local Ray, for dedicated agents and `turn.compute`; shared hosts take none.",
    )
    ray_dashboard: bool = Field(default=True, description="Whether the local Ray serves its dashboard.")
    relay_host: str = Field(
        default="127.0.0.1",
        pattern=r"^\S{1,255}$",
        description="This machine's address for hosts on other nodes of Ray; nothing listens while there is one node.",
    )
    relay_port: int = Field(default=0, ge=0, le=65535, description="The port for it; 0 takes a free one.")
    gate_spare: bool = Field(
        default=True, description="Whether a second gate waits to take the place of one that dies; some 60 MB."
    )
    hosts_warm: int = Field(default=1, ge=0, le=64, description="Unspecialised hosts kept ahead of need, on each node.")
    hosts_max: int = Field(default=12, ge=1, le=1000, description="Hosts at most on a node.")
    host_idle_s: float = Field(default=60, gt=0, description="After this long without agents a host is let go.")
    host_appear_s: float = Field(
        default=60, ge=1, le=3600, description="A host that Ray has not started within this is asked for anew, later."
    )
    host_window: int = Field(default=64, ge=1, le=1024, description="Turns in flight on one host.")
    lease_s: float = Field(default=10, gt=0, description="How long a host's lease runs.")
    confined_uid_first: int = Field(
        default=2_000_000_000, ge=1000, le=4_000_000_000, description="The first of the uids that confined agents have."
    )
    confined_uids: int = Field(
        default=65_536, ge=1, le=1_000_000, description="How many of them; no user of the machine may have one."
    )
    loop_held_s_max: float = Field(
        default=5, ge=1, description="Held by one turn for longer, a host is left by all its other agents."
    )
    body_bytes_max: int = Field(default=4 * 1024 * 1024, ge=1024, description="The largest body a surface takes.")
    body_bytes_in_flight_max: int = Field(
        default=128 * 1024 * 1024, ge=1024, description="Bodies that are held at once, with what they unfold to."
    )
    calls_in_flight_max: int = Field(default=1024, ge=1, description="Calls that run or wait at once.")
    readers_max: int = Field(default=2560, ge=1, description="Open streams of feedback and MCP subscriptions.")
    connections_max: int = Field(default=4096, ge=1, description="Open connections to the plane.")
    head_s_max: float = Field(default=15, gt=0, description="Seconds in which a request's headers must be there.")
    body_s_max: float = Field(default=60, gt=0, description="Seconds in which a request's body must be there.")
    unsent_bytes_max: int = Field(
        default=256 * 1024 * 1024, ge=1024 * 1024, description="Answers that wait for their clients, all together."
    )
    answer_s_max: float = Field(default=30, gt=0, description="Seconds in which a client must take an answer.")
    state_bytes_max: int = Field(
        default=1024 * 1024, ge=1024, le=FRAME_BYTES_MAX, description="The largest state of an agent."
    )
    inbox_messages_max: int = Field(default=10_000, ge=1, description="Messages that wait in one inbox.")
    turn_attempts_max: int = Field(default=5, ge=1, description="Attempts before a message goes to the dead letters.")
    replay_one_in: int = Field(
        default=100,
        ge=0,
        description="One turn in so many is run again in the background, to find code that differs; 0: none.",
    )
    effect_send_within_s: float = Field(default=30, gt=0, description="An effect is sent within this, or not at all.")
    effect_hold_s: float = Field(default=86_400, gt=0, description="How long an effect in doubt waits for an operator.")
    mcp_commands: list[list[str]] = Field(
        default_factory=list,
        description="Beginnings of command lines that connections with endpoint `stdio:` may start, as JSON: "
        '[["npx", "-y", "@scope/server"]]. They run as the user of Steward; none by default.',
    )
    mcp_variables: list[str] = Field(
        default_factory=list,
        description="Variables that such connections may set for what they start (`env`, `env_from_secret`), as JSON: "
        '["TRACKER_TOKEN"]. Some, as PATH or NODE_OPTIONS, decide what is run; none by default.',
    )
    compute_fit_s: float = Field(
        default=30, ge=0, description="What no node of Ray can ever run is waited for this long, for a node that can."
    )
    connection_folders: list[Path] = Field(
        default_factory=list, description="Folders that connections may name files in, as of SQLite: absolute; none."
    )
    agents_max: int = Field(default=200_000, ge=1, description="Agents of one namespace.")
    plan_ttl_s: float = Field(default=86_400, gt=0, description="How long a plan can be committed.")
    turn_retention_s: float = Field(default=604_800, gt=0, description="How long turns and journals are kept.")
    archive_turns: bool = Field(default=False, description="Whether turns are written to DATA/archive before they go.")
    event_retention_s: float = Field(default=2_592_000, gt=0, description="How long feedback events are kept.")
    dead_letter_retention_s: float = Field(
        default=7_776_000, gt=0, description="How long dead letters are kept; that some went is an event."
    )
    usage_retention_s: float = Field(default=34_560_000, gt=0, description="How long sums of usage are kept.")
    currency: str = Field(default="EUR", pattern=r"^[A-Z]{3}$", description="What the rates are in (ISO 4217).")
    rates: dict[RateKey, Rate] = Field(
        default_factory=dict,
        description="Money for one: `METER`, `EFFECT:METER` or `EFFECT@CONNECTION:METER`.",
    )
    log_bytes_max: int = Field(default=10_000_000, ge=10_000, description="Size at which a log file is rotated.")

    @field_validator("database_url", "ray_address")
    @classmethod
    def _empty_is_absent(cls, given: str | None) -> str | None:
        return given if given and given.strip() else None

    @field_validator("relay_host")
    @classmethod
    def _one_address(cls, given: str) -> str:
        if given in ("0.0.0.0", "::"):  # noqa: S104 - it is refused
            raise ValueError("name the one address by which other nodes reach this machine")
        return given

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls)

    @property
    def folder(self) -> Path:
        return self.data.expanduser().resolve()

    @property
    def sqlite_path(self) -> Path:
        return self.folder / "steward.db"

    @property
    def runtime_folder(self) -> Path:
        """A short path for sockets and Ray's session: a unix socket's path holds 107 bytes."""
        mark = hashlib.sha256(str(self.folder).encode()).hexdigest()[:10]
        return Path("/tmp") / f"steward-{mark}"  # noqa: S108 - created 0700, owner checked at start

    @property
    def gate_socket(self) -> Path:
        return self.runtime_folder / "gate.sock"
