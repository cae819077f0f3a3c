"""What the rooms of the gate share: the clock, the writer, the reader, the slots, and each other.

A room is a class that is given the node; wiring them is `gate.py`'s. `commit` hands rows to the
writer and calls back on the loop, after the transaction ended; nothing is told, rung or sent before, but for what
is handed on under a guard (`handing`).
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from controlplane.effects.connections import Connections
from controlplane.effects.reading import Reader
from controlplane.effects.slots import Slots
from controlplane.mesh.publishing import channel_of
from controlplane.store import channels, divergences
from controlplane.store import statements as sql
from controlplane.store.clocks import ForwardClock
from controlplane.store.committer import Committer, Job
from schemas import faults
from schemas.ports import Clock
from schemas.protocols import Performer

if TYPE_CHECKING:
    from controlplane.effects.arriving import Arriving
    from controlplane.effects.budgeting import Budgeting
    from controlplane.effects.cancelling import Cancelling
    from controlplane.effects.computing import Computing
    from controlplane.effects.delaying import Delaying
    from controlplane.effects.diverging import Diverging
    from controlplane.effects.draining import Draining
    from controlplane.effects.execution import Execution
    from controlplane.effects.handing import Handing
    from controlplane.effects.holding import Holding
    from controlplane.effects.holdups import Holdups
    from controlplane.effects.hosts import Hosts
    from controlplane.effects.moving import Moving
    from controlplane.effects.nodes import Nodes
    from controlplane.effects.offers import Offers
    from controlplane.effects.ownership import Ownership
    from controlplane.effects.planes import Planes
    from controlplane.effects.quota import Quota
    from controlplane.effects.relays import Relays
    from controlplane.effects.scopes import Scopes
    from controlplane.effects.summaries import Summaries
    from controlplane.effects.timers import Timers
    from controlplane.effects.trouble import Trouble
    from controlplane.effects.turns import Turns
    from controlplane.effects.upgrading import Upgrading
    from controlplane.mesh.delivery import Delivery
    from controlplane.mesh.events import Events

Done = Callable[[str, str], None]
TELLING = sql.TELLING | channels.TELLING | divergences.TELLING
HAPPENING = TELLING - {sql.RESOLVE_OPERATOR}  # of which the log may say more
TURNS, MESSAGES = 0, 1


@dataclass(frozen=True)
class Bounds:
    """The limits that the gate keeps."""

    hosts_warm: int = 1
    hosts_max: int = 12
    host_idle_s: float = 60.0
    host_appear_s: float = 60.0
    host_window: int = 64
    lease_s: float = 10.0
    state_bytes_max: int = 1_048_576
    inbox_messages_max: int = 10_000
    turn_attempts_max: int = 5
    send_within_s: float = 30.0
    hold_s: float = 86_400.0
    node: str = "local"
    move_wait_s: float = 10.0
    loop_held_s_max: float = 5.0
    stopped_s_max: float = 1.0
    acquiring_max: int = 64
    relay_host: str = "127.0.0.1"
    relay_port: int = 0
    confined_uid_first: int = 0
    confined_uids: int = 0
    compute_fit_s: float = 30.0
    late_s_max: float = 15.0  # for how long a turn may be over its time, whatever its host says
    agents_max: int = 200_000
    mcp_commands: tuple[tuple[str, ...], ...] = ()
    mcp_variables: tuple[str, ...] = ()
    replay_one_in: int = 100  # turns; 0: none


@dataclass(eq=False)
class Node:
    """One gate, from the inside."""

    bounds: Bounds
    clock: ForwardClock
    steady: Clock
    reader: Reader
    committer: Committer
    slots: Slots
    effectors: Mapping[str, Performer]
    connections: Connections
    publishing: Counter[tuple[str, str]] = field(default_factory=Counter)  # publications on their way, by channel
    budgeting: "Budgeting" = field(init=False)
    offers: "Offers" = field(init=False)
    ownership: "Ownership" = field(init=False)
    turns: "Turns" = field(init=False)
    handing: "Handing" = field(init=False)
    hosts: "Hosts" = field(init=False)
    planes: "Planes" = field(init=False)
    timers: "Timers" = field(init=False)
    delivery: "Delivery" = field(init=False)
    delaying: "Delaying" = field(init=False)
    events: "Events" = field(init=False)
    execution: "Execution" = field(init=False)
    holding: "Holding" = field(init=False)
    moving: "Moving" = field(init=False)
    draining: "Draining" = field(init=False)
    holdups: "Holdups" = field(init=False)
    nodes: "Nodes" = field(init=False)
    relays: "Relays" = field(init=False)
    quota: "Quota" = field(init=False)
    upgrading: "Upgrading" = field(init=False)
    cancelling: "Cancelling" = field(init=False)
    computing: "Computing" = field(init=False)
    summaries: "Summaries" = field(init=False)
    trouble: "Trouble" = field(init=False)
    scopes: "Scopes" = field(init=False)
    arriving: "Arriving" = field(init=False)
    diverging: "Diverging" = field(init=False)
    sweep_soon: Callable[[], None] = field(init=False)
    removing: Callable[[str, Callable[[Any], None]], None] = field(init=False)

    def commit(self, unit: str, rows: Sequence[Any], done: Done, lane: int = TURNS, *, patient: bool = False) -> None:
        """Commit rows together; `done(outcome, detail)` comes on the loop. Planes are roused by what they may read.

        Patient is what nobody waits for, and more of the same turn follows.
        """
        done = faults.around(unit, done)
        if not TELLING.isdisjoint([row[0] for row in rows]):
            done = self._rousing(rows, done)
        self.committer.submit(Job(rows, done, lane, patient))

    def publish(self, rows: Sequence[Any], done: Done, lane: int = TURNS) -> None:
        """Commit what goes into a channel."""
        self.commit("channel", rows, done, lane)

    def _rousing(self, rows: Sequence[Any], done: Done) -> Done:
        channels = [channel_of(row[1]) for row in rows if row[0] == sql.CHANNEL_PUT]
        happened = not HAPPENING.isdisjoint([row[0] for row in rows])
        self.publishing.update(channels)

        def told(outcome: str, detail: str) -> None:
            self.planes.rouse(happened=happened)
            try:
                done(outcome, detail)
            finally:
                self.publishing -= Counter(channels)

        return told
