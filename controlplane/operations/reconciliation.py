"""Reconciliation: what is there follows what is declared, whatever happened in between.

A tick carries no data. It looks at open changes, does what is left of their steps, and notes which
steps are so; beside that it sweeps over everything, a window at a time, because a crash, a restored
backup or a lost bell leaves no note. Each piece is one unit (all or nothing) and a hint to the gate,
in this order; a tick that ends anywhere between is finished by the next. The work of a tick is
bounded, and its answer is when to look again.
"""

import asyncio
from collections.abc import Callable, Iterable, Sequence

import orjson
from sqlalchemy.exc import DBAPIError
from sqlmodel import Session

from controlplane.mesh.membership import going, gone
from controlplane.operations import progress, repeating, vanishing
from controlplane.operations.carrying import NOTE, Carrier
from controlplane.operations.progress import OpenSteps, Sweep, Work
from controlplane.operations.scaling import unit_of
from controlplane.operations.starting import (
    reach_generation,
    retain_channel,
    set_up_channel,
    start_agents,
    take_down_channel,
)
from controlplane.operations.watches import channels_of
from controlplane.operations.world import Key, Known
from controlplane.store import statements
from controlplane.store.dead_letters import OF_REMOVED
from controlplane.store.scopes import END_OF_AGENT
from controlplane.store.store import Store
from controlplane.store.unit import Unit
from schemas import faults
from schemas.ports import Clock, GatePort
from schemas.problem import Refusal

CHANGES_AT_ONCE = 50
SWEEP_EVERY_S = 30.0
AGAIN_S = 0.02
WAITING_S = 0.25
IDLE_S = 5.0
AWAY_S = 0.5
HINTS_AT_ONCE = 32
PASSING = frozenset({"NOT_READY", "CONFLICT", "NOT_FOUND", "STORAGE_FULL", "IN_DOUBT"})


class Reconciler:
    """Brings what is there to what is declared; `tick` again and again."""

    def __init__(
        self,
        store: Store,
        gate: GatePort,
        clock: Clock,
        steady: Clock | None = None,
        settled: Callable[[], bool] = lambda: True,
    ) -> None:
        self._store = store
        self._gate = gate
        self._clock = clock
        self._steady = steady or clock
        self._settled = settled
        self._after = (0.0, "")
        self._sweep_at = 0.0
        self._sweep_is_at, self._swept = Sweep(), False
        self._full: dict[str, int] = {}
        self._hints = asyncio.Semaphore(HINTS_AT_ONCE)
        self._carrier = Carrier(store, gate, clock)

    async def tick(self) -> float:
        """Do a bounded piece of what is left; answers in how many seconds to look again."""
        try:
            worked, waiting = await self._changes()
            if self._steady() >= self._sweep_at:
                worked = await self._sweep() or worked
        except Refusal as refusal:
            if refusal.problem.reason not in PASSING:
                raise
            return AWAY_S
        except DBAPIError:  # the database is away, or being restarted
            return AWAY_S
        if worked:
            return AGAIN_S
        return WAITING_S if waiting else min(IDLE_S, max(0.0, self._sweep_at - self._steady()))

    async def _changes(self) -> tuple[bool, bool]:
        """Some open changes: whether anything was done, and whether anything is still open."""
        found = await self._open(self._after)
        if not found and self._after[1]:
            found = await self._open((0.0, ""))
        if not found:
            self._full.clear()
        full = len(found) == CHANGES_AT_ONCE
        self._after = (found[-1].committed_at, found[-1].change_id) if full else (0.0, "")
        worked = False
        for change in found:
            carry = self._advance if change.operation is None else self._carrier.advance
            worked = await carry(change) or worked
            await asyncio.sleep(0)  # reads may never wait; calls of others go between
        return worked or full, any(not all(it.steps) for it in found)

    async def _open(self, after: tuple[float, str]) -> list[OpenSteps]:
        return await self._store.read(lambda session: progress.open_changes(session, after, CHANGES_AT_ONCE))

    async def _advance(self, change: OpenSteps) -> bool:
        """Do what is left of a change's steps, and note the ones that are so."""
        steps, worked = list(change.steps), False
        for index, write in enumerate(change.writes):
            if steps[index]:
                continue
            key: Key = (write["kind"], write["namespace"], write["name"])
            work = await self._look(key, write["uid"])
            steps[index] = not work
            worked = await self._do_all(work) or worked
        if steps != change.steps:
            noted = orjson.dumps(steps).decode()
            faults.at("plane.reconcile.noting")
            await self._store.write(Unit().raw(NOTE, [noted, change.change_id, change.stored], expect=1))
            faults.at("plane.reconcile.noted")
        return worked or steps != change.steps

    async def _sweep(self) -> bool:
        """What is not as declared, whether a change speaks of it or not; a window at a time, all of them at the start.

        Where something was done, the same window is looked at again.
        """
        sweep, worked = self._sweep_is_at, False
        found, following = await self._store.read(lambda session: progress.behind(session, sweep))
        for key, uid in found:
            worked = await self._do_all(await self._look(key, uid)) or worked
            await asyncio.sleep(0)
        if worked:
            return True
        self._sweep_is_at = Sweep() if following.done else following
        self._swept = self._swept or following.done
        if self._swept:
            self._sweep_at = self._steady() + SWEEP_EVERY_S
            if self._settled():
                await self._store.write(repeating.sweep(self._clock()))
                await vanishing.sweep(self._store, self._clock())
        return not self._swept

    async def _look(self, key: Key, uid: str | None) -> list[Work]:
        def query(session: Session) -> list[Work]:
            return progress.look(session, key, uid, self._full)

        work = await self._store.read(query)
        self._full |= {it.piece.fleet: it.piece.full for it in work if it.piece is not None}
        return work

    async def _do_all(self, work: Iterable[Work]) -> bool:
        worked = False
        for it in work:
            faults.at("plane.reconcile.began")
            worked = await self._do(it) or worked
            faults.at("plane.reconcile.done")
        return worked

    async def _do(self, work: Work) -> bool:
        """One piece of work; False when others wrote at the same time, or nothing can be done now."""
        now, unit = self._clock(), Unit()
        if work.verb == "start":
            return await self._begin(start_agents(unit, [(work.uid, work.known)], now), [work.uid], work.known)
        if work.verb == "reach":
            return await self._begin(reach_generation(unit, [(work.uid, work.known)], now), [work.uid], work.known)
        if work.verb == "remove":
            return await self._remove(work.known.namespace, [(work.uid, work.known.name)])
        if work.verb == "retain":
            return await self._store.write(retain_channel(unit, work.known, work.uid, now))
        if work.verb == "take_down":
            return await self._store.write(take_down_channel(unit, work.uid, work.known))
        if work.verb == "set_up":
            watching = await self._store.read(lambda session: progress.watching(session, work.known))
            return await self._store.write(set_up_channel(unit, work.known, watching, now))
        return await self._scale(work)

    async def _scale(self, work: Work) -> bool:
        piece = work.piece
        if piece is None:
            return False
        await self._remove(piece.namespace, piece.gone)
        unit, begun = unit_of(piece, self._clock())
        if not await self._begin(unit, begun, Known("Agent", piece.namespace, piece.name, spec=piece.spec)):
            return False
        return bool(piece.writes or piece.gone)

    async def _begin(self, unit: Unit, agents: list[str], known: Known) -> bool:
        """Write start messages, then tell the gate; what the gate does not hear, its own sweep finds."""
        if not await self._store.write(unit):
            return False
        faults.at("plane.reconcile.hint")
        await self._hint("reload", agents)
        if agents and any(it["start"] == "beginning" for it in channels_of(known.spec["watches"])):
            channels = await self._store.read(lambda session: progress.watched(session, known))
            await self._hint("deliver", channels)
        return True

    async def _remove(self, namespace: str, agents: Sequence[tuple[str, str]]) -> bool:
        """The gate ends what runs and whoever waits for it; then nothing of the running side is left."""
        await self._hint("remove", [uid for uid, _ in agents])
        left = await self._store.read(lambda session: progress.still_there(session, [uid for uid, _ in agents]))
        unit = Unit()
        for uid, name in agents:
            if uid not in left:
                continue
            now = self._clock()
            unit.rows(going(uid)).raw(OF_REMOVED, [namespace, namespace, name, now, uid])
            unit.raw(END_OF_AGENT, [now, uid])
            for sql in statements.REMOVE:
                unit.raw(sql, [uid])
            unit.rows(gone(uid, now))
        return await self._store.write(unit)

    async def _hint(self, verb: str, agents: Iterable[str]) -> None:
        await asyncio.gather(*(self._tell(verb, agent) for agent in agents))

    async def _tell(self, verb: str, agent: str) -> None:
        async with self._hints:
            try:
                await self._gate.control(verb, agent, {})
            except Refusal as refusal:
                if refusal.problem.reason not in PASSING:
                    raise
