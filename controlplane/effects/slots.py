"""Agents that are awake, and only those. A suspended agent has no slot: it is a row, and nothing else.

A slot holds what the gate must know to run the agent's next turn: its fence (owner, epoch, version),
its spec, and the turn it is in: which effects and awaits its branches wait for, which of them are held or lasting,
what the host was told in this attempt, and the frames that wait until the unit before them is committed. It is made
from the row when something comes for the agent, and is dropped when the agent is let go.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import orjson

from controlplane.economy.accounts import Excess
from controlplane.economy.meters import Who
from controlplane.effects.keys import Key, reserved_for
from controlplane.effects.reading import Reader
from controlplane.effects.turnref import TurnRef
from controlplane.store import statements as sql
from schemas.branches import Place

if TYPE_CHECKING:
    from controlplane.effects.handing import Answer, Handed
    from controlplane.effects.moving import Move
    from controlplane.effects.placing import Host

Came = tuple[str, str, str]  # a turn's id, and its message's id and body
State = Literal["free", "acquiring", "idle", "running", "parked", "committing", "leaving"]


@dataclass(slots=True, eq=False)
class Slot:
    """One agent that is awake, or about to be."""

    uid: str
    namespace: str
    name: str
    generation: int
    epoch: int
    version: int
    owner: str | None
    stopped: bool
    state_text: str | None
    spec: dict[str, Any]
    state: State = "free"
    chunks: str | None = None
    state_version: int = 1
    host: "Host | None" = None
    resident: int = -1
    foldered: bool = False  # whether the host holds the workspace of the resident version
    turn: TurnRef | None = None
    awaits: set[Place] = field(default_factory=set)
    more: bool = False
    last: bool = False  # whether nothing was waiting behind the message of its turn when that was read
    emptied: bool = False  # while the next step is looked for, and nothing can have come since
    coming: Came | None = None  # the one message that its inbox holds, as far as no bell has rung since
    asked: str | None = None  # what became of the question of its turn, where that was read in this very step
    keep: bool = False
    leave: bool = False
    stale: bool = False
    counted: bool = False
    queued: bool = False
    suspended_by: str | None = None
    woken_by: str | None = None
    on_gone: list[Callable[[], None]] = field(default_factory=list)
    on_awake: list[Callable[[], None]] = field(default_factory=list)
    started: float = 0.0  # the present stretch of its turn
    active_s: float = 0.0  # for how long this attempt at its turn was active, in the stretches before
    late_since: float | None = None  # since when its turn was seen to be over its time
    journaled: int = 0  # bytes of what its turn recorded
    first_uses: set[str] = field(default_factory=set)  # channels that its turn names, and that were not there
    idle_timer: asyncio.TimerHandle | None = None
    retry_timer: asyncio.TimerHandle | None = None
    effects: set[Place] = field(default_factory=set)
    held: set[Place] = field(default_factory=set)
    lasting: set[Place] = field(default_factory=set)
    told: set[Place] = field(default_factory=set)
    said: int = 0
    writing: bool = False
    line: deque[Callable[[], None]] = field(default_factory=deque)
    placement: str | None = None
    labels: dict[str, str] = field(default_factory=dict)
    fleet: str = ""
    relabelled: bool = False  # whether these may be others by now
    used: dict[str, int] = field(default_factory=dict)
    move: "Move | None" = None
    chain: str | None = None  # what it was spawned within
    scope: str | None = None  # what it ends with
    turn_s: float | None = None  # for how long this stretch may be, where a chain leaves it less than its limits
    narrowed: Excess | None = None  # the limit of that chain
    unread: bool = False  # whether its inbox may hold what was not looked at
    handed: "dict[str, Handed]" = field(default_factory=dict)  # by id: what agents of this gate have for its inbox
    answer: "Answer | None" = None  # to its turn, which is on its way to a rest
    lane: int = 0  # by which what its turn was handed goes to the writer, and so its own units until that is committed
    unsure: list[Callable[[], None]] | None = None  # what waits until that is committed which its turn was handed

    @property
    def digest(self) -> str:
        """The code that the next turn runs on; an open turn stays on its own."""
        return self.turn.digest if self.turn is not None else str(self.spec["code"]["digest"])

    @property
    def key(self) -> Key:
        """What a host must serve to take it."""
        return Key(self.namespace, self.digest, reserved_for(self.uid, self.namespace, self.name, self.spec))

    @property
    def address(self) -> str:
        return f"{self.namespace}/{self.name}"

    @property
    def priority(self) -> str:
        """Its class among those of its namespace that wait for the same."""
        return str(self.spec.get("priority") or "normal")

    @property
    def rests(self) -> bool:
        """Whether it is idle, and nobody wants anything of it."""
        wanted = self.more or self.keep or self.leave or self.queued or self.coming or self.move or self.retry_timer
        return self.state == "idle" and self.turn is None and not (wanted or self.unread)

    @property
    def who(self) -> Who:
        """Whose work is metered."""
        return Who(self.namespace, self.name, self.fleet, self.turn.within if self.turn is not None else "")

    @property
    def limits(self) -> dict[str, Any]:
        """Those of its turn, which stays on what it began on; with none, those of the next one."""
        spec = self.spec if self.turn is None else self.turn.pinned
        return spec.get("limits") or {}

    @property
    def gpus(self) -> float:
        """What Ray keeps for its own host, and a turn of it is metered for."""
        return float((self.spec.get("resources") or {}).get("num_gpus") or 0)

    @property
    def turn_s_max(self) -> float:
        """For how long an attempt at its turn may be active, all stretches together."""
        return float(self.limits.get("turn_s_max", 60))

    @property
    def turn_s_left(self) -> float:
        """For how long the present stretch of its turn may be, or the next one."""
        left = max(0.0, self.turn_s_max - self.active_s)
        return left if self.turn_s is None else min(left, self.turn_s)

    def rested(self, now: float) -> float:
        """A stretch of its turn is over: for how long it was active; one that no host had was not."""
        active_s = now - self.started if self.started else 0.0
        self.active_s, self.started = self.active_s + active_s, 0.0
        return active_s

    def begin(self) -> None:
        """An attempt at the turn begins: nothing was heard or told of it."""
        for of_attempt in (self.awaits, self.effects, self.held, self.lasting, self.told, self.line, self.first_uses):
            of_attempt.clear()
        self.said, self.writing, self.more = 0, False, self.more and self.last

    def tell_gone(self) -> None:
        """Answer whoever waits for the agent to be suspended."""
        told, self.on_gone = self.on_gone, []
        for tell in told:
            tell()

    def tell_awake(self) -> None:
        """Answer whoever waits for the agent to be awake."""
        told, self.on_awake = self.on_awake, []
        for tell in told:
            tell()

    def cancel_timers(self) -> None:
        for timer in (self.idle_timer, self.retry_timer):
            if timer is not None:
                timer.cancel()
        self.idle_timer = self.retry_timer = None


class Slots:
    """All slots, by uid and by name."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._by_uid: dict[str, Slot] = {}
        self._by_name: dict[tuple[str, str], Slot] = {}

    def __len__(self) -> int:
        return len(self._by_uid)

    def all(self) -> list[Slot]:
        return list(self._by_uid.values())

    def get(self, uid: str) -> Slot | None:
        return self._by_uid.get(uid)

    def holds(self, slot: Slot) -> bool:
        """Whether this slot still speaks for its agent."""
        return self._by_uid.get(slot.uid) is slot

    def load(self, uid: str) -> Slot | None:
        """The slot of an agent; None when there is no such agent."""
        found = self._by_uid.get(uid)
        return found or self._made(self._reader.one(sql.AGENT_BY_UID, uid))

    def named(self, namespace: str, name: str) -> Slot | None:
        found = self._by_name.get((namespace, name))
        return found or self._made(self._reader.one(sql.AGENT_BY_NAME, namespace, name))

    def awake(self, namespace: str, name: str) -> Slot | None:
        """The slot of an agent that has one."""
        return self._by_name.get((namespace, name))

    def refresh(self, slot: Slot) -> None:
        """Take over what is declared by now."""
        if (row := self._reader.one(sql.AGENT_BY_UID, slot.uid)) is not None:
            slot.generation, slot.spec = row[3], orjson.loads(row[9])

    def relabelled(self, namespace: str, name: str) -> None:
        """A plane wrote labels of the agent, which moves no generation."""
        if (slot := self._by_name.get((namespace, name))) is not None:
            slot.relabelled = True

    def label(self, slot: Slot) -> None:
        """Take over labels and fleet as they are by now."""
        if slot.relabelled and (row := self._reader.one(sql.AGENT_BY_UID, slot.uid)) is not None:
            slot.labels, slot.fleet, slot.relabelled = orjson.loads(row[11]), row[12] or "", False

    def drop(self, slot: Slot) -> None:
        slot.cancel_timers()
        if self._by_uid.get(slot.uid) is slot:
            del self._by_uid[slot.uid]
            self._by_name.pop((slot.namespace, slot.name), None)

    def _made(self, row: tuple[Any, ...] | None) -> Slot | None:
        if row is None:
            return None
        slot = Slot(
            uid=row[0],
            namespace=row[1],
            name=row[2],
            generation=row[3],
            epoch=row[4],
            version=row[5],
            owner=row[6],
            stopped=bool(row[7]),
            state_text=row[8],
            spec=orjson.loads(row[9]),
            placement=row[10],
            labels=orjson.loads(row[11]),
            fleet=row[12] or "",
            chunks=row[13],
            state_version=row[14],
            chain=row[15],
            scope=row[16],
        )
        self._by_uid[slot.uid] = slot
        self._by_name[slot.namespace, slot.name] = slot
        return slot
