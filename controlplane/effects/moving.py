"""Moving: an agent goes from one host to another.

The new host is there before the old one is left, so that senders notice a short gap only. An agent
leaves where its turn rests, at its end or at a durable await, and never while an effect of its is on
its way; it is acquired under a new epoch, and goes on from its journal. Of a suspended one only the
placement changes, and nothing is woken. A placement is a record, and holds as long as its host is there.
Who waits for another host goes once there is one, unless it was suspended before; a gate that dies is told again,
by the change that wants it moved.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import msgspec

from controlplane.effects import eventing
from controlplane.effects.controls import Answer, failed, soon
from controlplane.effects.keys import Key
from controlplane.effects.node import Node
from controlplane.effects.placing import Host
from controlplane.effects.reasons import why_awake
from controlplane.effects.slots import Slot
from controlplane.resources.problems import problem
from controlplane.store import moving as sql
from schemas.frames import Control
from schemas.problem import Next, Problem


class Asked(msgspec.Struct):
    """What an operator wants of one agent; `warm` says whether it may know of unspecialised hosts.

    `from_host`: to leave that one, and none but that; empty for one that is suspended. `off_node`: for a host of
    another node, if one can take it. `patient`: to wait a while for the answer.
    """

    principal: str
    to_host: str | None = None
    from_host: str | None = None
    off_node: bool = False
    warm: bool = False
    dry_run: bool = False
    patient: bool = True


@dataclass(eq=False, slots=True)
class Move:
    """An agent's way to another host, until it was acquired there."""

    from_host: str
    to_host: str
    principal: str
    began: float
    tell: list[Callable[[], None]] = field(default_factory=list)


@dataclass(eq=False, slots=True, frozen=True)
class Seek:
    """An agent that waits for a host other than the one it is on, for whom, and who is told."""

    key: Key
    than: Host
    asked: Asked
    tell: list[Answer] = field(default_factory=list)


class Moving:
    """The moves of this gate's agents."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._seeking: dict[str, Seek] = {}  # by the agent

    def sought(self) -> set[Key]:
        """What one more host is wanted for. Who was suspended meanwhile has left its host."""
        slots = self._node.slots
        for uid, seek in list(self._seeking.items()):
            if (slot := slots.get(uid)) is None or slot.host is not seek.than:
                del self._seeking[uid]
        return {it.key for it in self._seeking.values()}

    def migrate(self, frame: Control, done: Answer) -> None:
        """Move one agent; the same again says how far it is."""
        asked = msgspec.json.decode(frame.argument, type=Asked)
        slot = self._node.slots.load(frame.agent)
        if slot is None:
            done(problem("NOT_FOUND", f"there is no agent of uid {frame.agent}", uid=frame.agent, verb="migrate"))
            return
        if slot.state == "leaving" and slot.move is None:  # it is about to be suspended: then it is moved as such
            if asked.patient:
                slot.on_gone.append(lambda: self.migrate(frame, done))
            else:
                done(self._answer(slot.uid, None))
            return
        named = self._named(slot, asked)
        if isinstance(named, Problem):
            done(named)
        elif asked.dry_run:
            done(self._answer(slot.uid, named.host_id if named is not None else None))
        elif slot.move is not None and (named is None or named.host_id == slot.move.to_host):
            self._await(slot, slot.move, asked, done)
        elif _elsewhere(slot, asked):
            here = slot.host.host_id if slot.host is not None else None
            moved = {"moved": True, "from_host": asked.from_host, "to_host": here} if here and asked.from_host else {}
            done(self._answer(slot.uid, None) | moved)
        elif slot.host is None:
            self._place(slot, named.host_id if named is not None else None, asked, done)
        else:
            self._to(slot.uid, named, asked, done)

    def _named(self, slot: Slot, asked: Asked) -> Host | Problem | None:
        """The host that was asked for, if the agent can go there; one that the asker may not see is absent."""
        if asked.to_host is None:
            return None
        host = self._node.hosts.get(asked.to_host)
        seen = host is not None and (host.namespace == slot.namespace or (not host.digest and asked.warm))
        about: dict[str, Any] = {"host_id": asked.to_host, "agent": slot.address}
        look = [Next(operation="hosts.list", why="shows the hosts there are")]
        if host is None or not seen:
            detail = f"there is no host {asked.to_host} that could take {slot.address}"
            return problem("NOT_FOUND", detail, field="/to_host", next=look, kind="Host", **about)
        if host.draining or host.emptying or host.node in self._node.nodes.closed:
            why = "it is being emptied"
        elif host.digest and host.digest != slot.digest:
            why = f"it serves other code, {host.digest}"
        elif host.reserved != slot.key.reserved:
            why = "it is kept for one agent" if host.reserved else "the agent has hosts of its own"
        else:
            return host
        detail = f"host {host.host_id} can not take {slot.address}: {why}"
        return problem("UNFIT_HOST", detail, field="/to_host", next=look, why=why, **about)

    def _place(self, slot: Slot, host_id: str | None, asked: Asked, done: Answer) -> None:
        """It is not awake: it goes there when something comes for it."""
        self._wish(slot, host_id, asked, done, lambda: done(self._answer(slot.uid, host_id)))

    def _wish(self, slot: Slot, host_id: str | None, asked: Asked, done: Answer, then: Callable[[], None]) -> None:
        """Record where the agent shall go, if that is new; then go on."""
        uid = slot.uid
        if slot.placement == host_id:
            then()
            return
        now = self._node.clock()
        told = {"host": host_id}
        event = eventing.agent_event("agent.placed", slot.namespace, slot.name, asked.principal, now, told)

        def placed(outcome: str, detail: str) -> None:
            if failed(outcome, detail, done):
                return
            if (known := self._node.slots.get(uid)) is not None:
                known.placement = host_id
            then()

        self._node.commit("place", [(sql.PLACE, (host_id, now, uid), 1), event], placed)

    def _to(self, uid: str, named: Host | None, asked: Asked, done: Answer) -> None:
        """It is awake: find the host it goes to, or wait until there is one; then it leaves where it is."""
        slot = self._node.slots.get(uid)
        if slot is None or slot.host is None:
            done(self._answer(uid, None))
            return
        target = named or self._node.hosts.other(slot.key, slot.host, off_node=asked.off_node)
        if target is None:
            self._seek(slot, slot.host, asked, done)
            return
        self._seeking.pop(uid, None)
        here = slot.host
        if target is here:
            self._wish(slot, here.host_id, asked, done, lambda: done(self._answer(uid, here.host_id)))
            return
        move = Move(here.host_id, target.host_id, asked.principal, self._node.steady())
        self._wish(slot, target.host_id, asked, done, lambda: self._leave(uid, move, asked, done))

    def _seek(self, slot: Slot, than: Host, asked: Asked, done: Answer) -> None:
        """No other host could take it: one is asked for, and the agent goes once that is there."""
        uid = slot.uid
        seek = self._seeking.setdefault(uid, Seek(slot.key, than, asked))
        if asked.patient:
            seek.tell.append(soon(done, lambda: self._answer(uid, None), self._node.bounds.move_wait_s))
        else:
            done(self._answer(uid, None))
        self._node.hosts.ensure()

    def served(self) -> None:
        """Hosts have come: who waits for another one goes, if there is one."""
        for uid, seek in list(self._seeking.items()):
            slot = self._node.slots.get(uid)
            gone = slot is None or slot.host is not seek.than
            if gone or self._node.hosts.other(seek.key, seek.than) is not None:
                self._seeking.pop(uid, None)
                told = partial(_all, seek.tell)
                told(self._answer(uid, None)) if gone else self._to(uid, None, seek.asked, told)

    def _leave(self, uid: str, move: Move, asked: Asked, done: Answer) -> None:
        slot = self._node.slots.get(uid)
        if slot is None or slot.host is None or slot.host.host_id == move.to_host:
            done(self._answer(uid, move.to_host, move))
            return
        if slot.move is not None:
            move.tell = slot.move.tell
        slot.move, slot.leave = move, True
        self._await(slot, move, asked, done)
        self._node.ownership.let_go(slot)

    def _await(self, slot: Slot, move: Move, asked: Asked, done: Answer) -> None:
        """Answer when it has arrived; or, after a while, with what it waits for."""
        uid = slot.uid
        if not asked.patient:
            done(self._answer(uid, move.to_host, move))
            return
        told = soon(done, lambda: self._answer(uid, move.to_host, move), self._node.bounds.move_wait_s)
        move.tell.append(lambda: told(self._answer(uid, move.to_host, move)))

    def left(self, uid: str, move: Move) -> None:
        """It has left its host: bring it to the other one, whether it has work or not."""
        if (slot := self._node.slots.load(uid)) is not None:
            slot.move, slot.keep = move, True
            self._node.ownership.pump(slot)

    def arriving(self, slot: Slot, host: Host, epoch: int, now: float) -> Any:
        """The event of the unit in which it is acquired elsewhere."""
        assert slot.move is not None
        gap_s = round(self._node.steady() - slot.move.began, 6)
        about = {"from": slot.move.from_host, "to": host.host_id, "epoch": epoch, "after_s": gap_s}
        return eventing.agent_event("agent.migrated", slot.namespace, slot.name, slot.move.principal, now, about)

    def arrived(self, slot: Slot) -> None:
        """It was acquired."""
        move, slot.move = slot.move, None
        for tell in move.tell if move is not None else ():
            tell()

    def _answer(self, uid: str, to_host: str | None, move: Move | None = None) -> dict[str, Any]:
        """Where it is, where it shall go, and what it waits for."""
        slot = self._node.slots.load(uid)
        if slot is None:  # it was deleted meanwhile
            return {"moved": False, "from_host": None, "to_host": None, "epoch": 0, "waits_for": None}
        here = slot.host.host_id if slot.host is not None else None
        moved = move is not None and here is not None and here != move.from_host
        found = {
            "moved": moved,
            "from_host": move.from_host if move is not None else here,
            "to_host": here if moved else to_host,
            "epoch": slot.epoch,
            "waits_for": None if moved else self._waits_for(slot),
        }
        if slot.state == "free" and not slot.queued:  # it was only looked at
            self._node.ownership.pump(slot)
        return found

    def _waits_for(self, slot: Slot) -> str | None:
        """Why it has not left its host, where it shall."""
        if slot.uid in self._seeking:
            return f"another host of {slot.namespace} for its code"
        return why_awake(self._node, slot) if slot.move is not None else None


def _elsewhere(slot: Slot, asked: Asked) -> bool:
    """Whether it is not where it shall leave from, and not asked to go to a certain host."""
    here = slot.host.host_id if slot.host is not None else ""
    return asked.to_host is None and asked.from_host not in (None, here)


def _all(tell: Sequence[Answer], found: dict[str, Any] | Problem) -> None:
    for each in tell:
        each(found)
