"""Carrying on what operations began: the gate is told again until each step is so, a batch at a time.

A step is so when its claim's measure is as expected; what is not so is done again, which changes nothing
where it is under way. A stage begins when those before it are so. A claim that is missed, by its time or
because the gate refuses, ends what was not begun: those claims are unverifiable, and their agents stay
where they are. What was begun goes on. Nothing is kept between two looks.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
from sqlalchemy import text
from sqlmodel import Session

from controlplane.operations.observing import many, rows
from controlplane.operations.oneshots import Act, unpacked
from controlplane.operations.prediction import measure
from controlplane.operations.progress import OpenSteps
from controlplane.operations.recording import judge
from controlplane.operations.replays import seen_replays
from controlplane.store.store import Store
from controlplane.store.unit import Unit
from schemas.base import canonical
from schemas.plan import Claim
from schemas.ports import Clock, GatePort
from schemas.problem import Problem, Refusal

NOTE = "UPDATE change SET steps = ? WHERE change_id = ? AND steps = ? AND done_at IS NULL"
PASSING = frozenset({"NOT_READY", "CONFLICT", "STORAGE_FULL", "IN_DOUBT"})
STOPPED = "it was not begun, because another was missed"
DELETED = "it is not there any more"
VERDICTS = text("SELECT claim_id, verdict FROM claim WHERE change_id = :change_id")
WHERE = many("SELECT uid, owner, placement FROM agent WHERE uid IN :uids", "uids")
HOSTS = text("SELECT host_id, node FROM host WHERE ended_at IS NULL")
STILL_OPEN = text("SELECT 1 AS it FROM claim WHERE change_id = :change_id AND claim_id = :claim_id AND verdict IS NULL")
CLOSED = text("SELECT key FROM meta WHERE key = :key")


@dataclass(frozen=True)
class Look:
    """How far an operation's change is: which steps are so, and the claims that have no verdict, by their index."""

    acts: Sequence[Act]
    steps: list[bool]
    open: Mapping[int, Claim]
    missed: set[int]

    @property
    def stage(self) -> int:
        """The one that is under way; one in which something was missed is the last."""
        return min((self.acts[it].stage for it in (*self.open, *self.missed)), default=0)


def look(session: Session, change: OpenSteps) -> Look:
    """The change beside what is recorded of those it is about."""
    _, acts = unpacked(change.undo)
    found = rows(session, VERDICTS, change_id=change.change_id)
    verdicts = {int(it["claim_id"][1:]): it["verdict"] for it in found}
    seen = _seen(session, [it for index, it in enumerate(acts) if not change.steps[index]])
    steps, left = list(change.steps), {}
    for index, act in enumerate(acts):
        claim = act.claim(index, 0)
        steps[index] = steps[index] or verdicts[index] == "held" or _so(claim, seen[act.subject])
        if verdicts[index] is None and not steps[index]:
            left[index] = claim
    return Look(acts, steps, left, {it for it, verdict in verdicts.items() if verdict == "missed"})


def _so(claim: Claim, output: dict[str, Any] | None) -> bool:
    return canonical(measure(claim, output)) == canonical(claim.expected.value)


def _seen(session: Session, acts: Sequence[Act]) -> dict[str, dict[str, Any] | None]:
    """What a claim's probe would show of each, from the records that it rests on."""
    agents = {it.uid for it in acts if it.kind == "Agent"}
    found: dict[str, dict[str, Any] | None] = dict.fromkeys(agents)
    for row in rows(session, WHERE, uids=sorted(agents)) if agents else []:
        found[row["uid"]] = {"status": {"host": row["owner"], "placement": row["placement"]}}
    routes = {it.uid for it in acts if it.kind == "Route"}
    replays = seen_replays(session, sorted(routes))
    found |= {uid: {"status": {"replay": replays.get(uid)}} for uid in routes}
    others = [it for it in acts if it.kind not in ("Agent", "Route")]
    hosts = rows(session, HOSTS) if others else []
    for act in others:
        closed = bool(rows(session, CLOSED, key=f"node.closed.{act.name}"))
        node = {"node": act.name, "draining": closed, "hosts": sum(it["node"] == act.name for it in hosts)}
        found[act.name] = {"items": [node] if act.kind == "Node" else hosts}
    return found


class Carrier:
    """Tells the gate what is left of an operation's change."""

    def __init__(self, store: Store, gate: GatePort, clock: Clock) -> None:
        self._store = store
        self._gate = gate
        self._clock = clock

    async def advance(self, change: OpenSteps) -> bool:
        """Do what is left of the batch that is under way; whether anything was recorded."""
        seen = await self._store.read(lambda session: look(session, change))
        batch = max(change.batch - len(seen.missed), 0)
        begun = [it for it in seen.open if seen.acts[it].stage == seen.stage][:batch]
        rest = sorted(seen.open.keys() - set(begun))
        refused = {}
        for index in begun:
            if not await self._is_open(change, seen.open[index]):  # somebody asked otherwise meanwhile
                continue
            if (found := await self._tell(change, seen.acts[index])) is not None:
                refused[index] = found
        unit = Unit()
        for index, (verdict, why) in refused.items():
            judge(unit, change.change_id, seen.open[index], verdict, why, self._clock())
        if seen.missed or any(verdict == "missed" for verdict, _ in refused.values()):
            for index in rest:
                judge(unit, change.change_id, seen.open[index], "unverifiable", STOPPED, self._clock())
        if seen.steps != change.steps:
            unit.raw(NOTE, [orjson.dumps(seen.steps).decode(), change.change_id, change.stored], expect=1)
        if not len(unit):
            return False
        return await self._store.write(unit)

    async def _is_open(self, change: OpenSteps, claim: Claim) -> bool:
        which = {"change_id": change.change_id, "claim_id": claim.claim_id}
        return bool(await self._store.read(lambda session: rows(session, STILL_OPEN, **which)))

    async def _tell(self, change: OpenSteps, act: Act) -> tuple[str, str] | None:
        """Tell the gate, if there is anything to be told; the verdict and why, where it says that it never will."""
        if not act.verb:
            return None
        argument = {"principal": change.principal, "patient": False, **act.told}
        try:
            await self._gate.control(act.verb, act.subject, argument)
        except Refusal as refusal:
            found = refusal.problem
            if found.reason in PASSING:
                return None
            return _verdict(act, found)
        return None


def _verdict(act: Act, found: Problem) -> tuple[str, str]:
    """An agent that is gone can not be verified; whatever else is refused is missed."""
    gone = act.kind == "Agent" and found.reason == "NOT_FOUND" and found.field is None
    return ("unverifiable", DELETED) if gone else ("missed", f"{found.reason}: {found.detail}")
