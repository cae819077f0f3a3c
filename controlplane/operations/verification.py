"""Verification: every claim of a committed plan gets exactly one verdict, from its own probe.

A claim is looked at again and again, less often the longer it takes: what holds is `held` at once;
what does not hold by its time is `missed`. An estimate is looked at when its time is over, and not before: it
holds if what is observed lies in its band, and is `unverifiable` where nothing could be said before or be seen
now. The probe is the operation that the claim names, called
as the plane itself through the same code as anybody's call. A change is done when its steps are so
and every claim that binds has its verdict. `on_miss: revert` acts at the first miss, once, and never for a
revert; `hold` takes no action of its own: the missed change is told and left for somebody to decide.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import orjson
from pydantic import BaseModel
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlmodel import Session

from controlplane.operations.observing import rows
from controlplane.operations.prediction import measure
from controlplane.operations.recording import DONE, judge, tell
from controlplane.store.packed import unpack
from controlplane.store.store import Store
from controlplane.store.unit import Unit
from schemas import faults
from schemas.base import canonical
from schemas.calls import CommitInput
from schemas.plan import Claim, CommitResult, Plan
from schemas.ports import Clock
from schemas.principal import PLANE, Call, Principal
from schemas.problem import Refusal
from schemas.resource import Target

Dispatch = Callable[[Principal, str, Any], Awaitable[BaseModel]]
Revert = Callable[[Principal, str, float], Awaitable[Plan]]
Verdict = Literal["held", "missed", "unverifiable"]
CommitPlan = Callable[[Call, CommitInput], Awaitable[CommitResult]]

CLAIMS_AT_ONCE = 200
SOONEST_S, LATEST_S = 0.05, 2.0
SLOWER_BY = 0.1  # the next look at a claim comes after this share of its age
IDLE_S = 2.0
AWAY_S = 0.5
PASSING = frozenset({"NOT_READY", "CONFLICT", "STORAGE_FULL", "IN_DOUBT"})
OPEN = text(
    "SELECT k.change_id, k.claim_id, k.body, k.due_at, c.committed_at FROM claim k JOIN change c"
    " ON c.change_id = k.change_id WHERE k.verdict IS NULL AND (k.binding = 1 OR k.due_at <= :now)"
    " AND (k.due_at > :after OR (k.due_at = :after AND k.change_id || k.claim_id > :last))"
    " ORDER BY k.due_at, k.change_id || k.claim_id LIMIT :many"
)
READY_TO_END = text(
    "SELECT c.change_id, c.steps, c.operation FROM change c WHERE c.done_at IS NULL"
    " AND NOT EXISTS (SELECT 1 FROM claim k WHERE k.change_id = c.change_id AND k.verdict IS NULL AND k.binding = 1)"
    " ORDER BY c.committed_at LIMIT :many"
)
MISSED = text(
    "SELECT c.change_id FROM change c WHERE c.done_at IS NULL AND c.on_miss = 'revert' AND c.reverts IS NULL"
    " AND EXISTS (SELECT 1 FROM claim k WHERE k.change_id = c.change_id AND k.verdict = 'missed' AND k.binding = 1)"
    " ORDER BY c.committed_at LIMIT :many"
)
SUBJECTS = text("SELECT kind, namespace, name FROM change_target WHERE change_id = :change_id")
VERDICTS = text("SELECT claim_id, verdict, body FROM claim WHERE change_id = :change_id")
STEPS = "UPDATE change SET steps = ? WHERE change_id = ?"


def _claim(row: Mapping[str, Any]) -> Claim:
    return Claim.model_validate_json(unpack(row["body"]))


def _verdict(claim: Claim, observed: Any) -> Verdict:
    """What is to be said of a claim by what is observed now."""
    expected = claim.expected
    if claim.binding:
        return "held" if canonical(observed) == canonical(expected.value) else "missed"
    if claim.fidelity == "unknown" or observed is None or expected.low is None or expected.high is None:
        return "unverifiable"
    return "held" if expected.low <= observed <= expected.high else "missed"


@dataclass(frozen=True)
class OpenClaim:
    """A claim without a verdict."""

    change_id: str
    claim: Claim
    due_at: float
    committed_at: float

    @property
    def key(self) -> str:
        return self.change_id + self.claim.claim_id


class Verifier:
    """Judges claims and ends changes; `tick` again and again."""

    def __init__(
        self,
        store: Store,
        dispatch: Dispatch,
        revert: Revert,
        commit: CommitPlan,
        clock: Clock,
        steady: Clock | None = None,
    ) -> None:
        self._store = store
        self._dispatch = dispatch
        self._revert = revert
        self._commit = commit
        self._clock = clock
        self._steady = steady or clock
        self._due: dict[str, float] = {}
        self._after = (-1.0, "")
        self._look_at: dict[str, float] = {}
        self._refused: set[str] = set()

    async def tick(self) -> float:
        """Judge what can be judged now; answers in how many seconds to look again."""
        try:
            soonest = await self._judge_some()
            await self._answer_misses()
            ended = await self._end_changes()
        except Refusal as refusal:
            if refusal.problem.reason not in PASSING:
                raise
            return AWAY_S
        except DBAPIError:  # the database is away, or being restarted
            return AWAY_S
        return SOONEST_S if ended else soonest

    async def _judge_some(self) -> float:
        """Look at the open claims whose time has come; answers when the next one's does."""
        claims = await self._open(self._after)
        if not claims and self._after[1]:
            claims = await self._open((-1.0, ""))
        full = len(claims) == CLAIMS_AT_ONCE
        self._after = (claims[-1].due_at, claims[-1].key) if full else (-1.0, "")
        if not full and max(len(self._look_at), len(self._due)) > CLAIMS_AT_ONCE:
            open_now = {it.key for it in claims}
            self._look_at = {key: at for key, at in self._look_at.items() if key in open_now}
            self._due = {key: at for key, at in self._due.items() if key in open_now}
        waits: list[float] = []
        for claim in claims:
            waits.append(await self._look(claim))
            await asyncio.sleep(0)  # reads may never wait; calls of others go between
        return 0.0 if full else max(SOONEST_S, min(waits, default=IDLE_S))

    async def _look(self, claim: OpenClaim) -> float:
        """Judge one claim if its time has come; answers in how many seconds to look at it again."""
        now, steady = self._clock(), self._steady()
        left = min(max(0.0, claim.due_at - now), float(claim.claim.verify_within_s))
        due = self._due.setdefault(claim.key, steady + left)  # from here on, nobody who sets the clock moves it
        look_at = min(self._look_at.get(claim.key, 0.0), due)
        if steady < look_at:
            return look_at - steady
        observed = await self._observed(claim.claim)
        verdict = _verdict(claim.claim, observed)
        if verdict == "missed" and steady < due:
            wait = min(LATEST_S, max(SOONEST_S, (now - claim.committed_at) * SLOWER_BY))
            self._look_at[claim.key] = steady + wait
            return min(wait, due - steady)
        unit = Unit()
        judge(unit, claim.change_id, claim.claim, verdict, observed, now)
        faults.at("plane.verdict.before")
        await self._store.write(unit)
        faults.at("plane.verdict.after")
        self._look_at.pop(claim.key, None)
        self._due.pop(claim.key, None)
        return SOONEST_S

    async def _observed(self, claim: Claim) -> Any:
        try:
            output = await self._dispatch(PLANE, claim.probe.operation, claim.probe.arguments)
        except Refusal as refusal:
            if refusal.problem.reason != "NOT_FOUND":
                raise
            return measure(claim, None)
        return measure(claim, output.model_dump(mode="json"))

    async def _answer_misses(self) -> None:
        """Take back, once, what was committed with `on_miss: revert` and missed."""
        for row in await self._store.read(lambda session: rows(session, MISSED, many=CLAIMS_AT_ONCE)):
            change_id, now = row["change_id"], self._clock()
            if change_id in self._refused:
                continue
            try:
                plan = await self._revert(PLANE, change_id, now)
                faults.at("plane.revert.planned")
                result = await self._commit(Call(PLANE, "plans.commit", now), CommitInput(plan_id=plan.plan_id))
            except Refusal as refusal:
                if refusal.problem.reason in PASSING:
                    raise
                self._refused.add(change_id)  # what it wrote was moved by others: theirs stays
            else:
                faults.at("plane.revert.committed")
                if result.outcome != "committed":
                    self._refused.add(change_id)

    async def _end_changes(self) -> bool:
        """End changes whose steps are so and whose claims are judged."""
        ended = False
        for row in await self._store.read(lambda session: rows(session, READY_TO_END, many=CLAIMS_AT_ONCE)):
            at_once, steps = row["operation"] is not None, orjson.loads(row["steps"])
            if at_once or all(steps):
                unit = await self._ending(row["change_id"], steps if at_once else [])
                faults.at("plane.ending.before")
                ended = await self._store.write(unit) or ended
                faults.at("plane.ending.after")
                self._refused.discard(row["change_id"])
        return ended

    async def _ending(self, change_id: str, steps: list[bool]) -> Unit:
        """The unit of its end; of an operation, a step is so if its claim was held, and nobody does the others."""

        def query(session: Session) -> tuple[list[Any], dict[str, Counter[str]]]:
            verdicts: dict[str, Counter[str]] = {}
            for it in rows(session, VERDICTS, change_id=change_id):
                if it["verdict"] is None:  # an estimate, whose time is not over
                    continue
                verdicts.setdefault(_claim(it).subject.namespace, Counter())[it["verdict"]] += 1
                if steps and it["verdict"] == "held":
                    steps[int(it["claim_id"][1:])] = True
            return rows(session, SUBJECTS, change_id=change_id), verdicts

        targets, verdicts = await self._store.read(query)
        now = self._clock()
        unit = Unit().raw(DONE, [now, change_id], expect=1)
        if steps:
            unit.raw(STEPS, [orjson.dumps(steps).decode(), change_id], expect=1)
        for namespace, subject in {it["namespace"]: Target(**it) for it in reversed(targets)}.items():
            tell(unit, "change.done", subject, change_id, now, {"verdicts": dict(verdicts.get(namespace, ()))})
        return unit

    async def _open(self, after: tuple[float, str]) -> list[OpenClaim]:
        def query(session: Session) -> list[OpenClaim]:
            found = rows(session, OPEN, after=after[0], last=after[1], many=CLAIMS_AT_ONCE, now=self._clock())
            return [OpenClaim(it["change_id"], _claim(it), it["due_at"], it["committed_at"]) for it in found]

        return await self._store.read(query)
