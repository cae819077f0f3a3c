"""Agents that are awake, and only those. A suspended agent has no slot: it is a row, and nothing else.

A slot holds what the gate must know to run the agent's next turn: its fence (owner, epoch, version),
its spec, and the turn it is in. It is made from the row when something comes for the agent, and is
dropped when the agent is let go.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import orjson

from controlplane.effects.entries import TurnRef
from controlplane.effects.reading import Reader
from controlplane.store import statements as sql

if TYPE_CHECKING:
    from controlplane.effects.placing import Host

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
    host: "Host | None" = None
    resident: int = -1
    turn: TurnRef | None = None
    await_position: int | None = None
    more: bool = False
    keep: bool = False
    leave: bool = False
    stale: bool = False
    counted: bool = False
    queued: bool = False
    suspended_by: str | None = None
    woken_by: str | None = None
    on_gone: list[Callable[[], None]] = field(default_factory=list)
    on_awake: list[Callable[[], None]] = field(default_factory=list)
    started: float = 0.0
    idle_timer: asyncio.TimerHandle | None = None
    retry_timer: asyncio.TimerHandle | None = None
    effects: set[int] = field(default_factory=set)

    @property
    def digest(self) -> str:
        """The code that the next turn runs on; an open turn stays on its own."""
        return self.turn.digest if self.turn is not None else str(self.spec["code"]["digest"])

    @property
    def address(self) -> str:
        return f"{self.namespace}/{self.name}"

    @property
    def limits(self) -> dict[str, Any]:
        return dict(self.spec.get("limits") or {})

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
        )
        self._by_uid[slot.uid] = slot
        self._by_name[slot.namespace, slot.name] = slot
        return slot
