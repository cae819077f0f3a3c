"""Commitment: a plan's compare-and-set on its read set, once.

`commit` reads the plan and the world, and writes one unit that fits this world or changes nothing.
When it does not fit, the next look says why: the plan was committed already; or something moved, and
then the same decisions are proposed again on the world as it is now: with nothing left to do others
made it so (`superseded`), else the caller gets the new plan (`stale`). Commits of one plane follow
each other, so that memberships (a fleet's names, a channel's watchers) hold as they were read.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from sqlalchemy import and_, or_
from sqlmodel import Session, col, select

from controlplane.operations.admission import Admitted
from controlplane.operations.planning import moved
from controlplane.operations.proposing import ATTEMPTS_MAX, Kept, Proposer
from controlplane.operations.recording import Commit, OpenChange, commit_unit
from controlplane.operations.revert import Reverting
from controlplane.operations.snapshot import read_known, read_world
from controlplane.operations.visibility import absent_plan
from controlplane.operations.world import Key, Wanted, World
from controlplane.resources.problems import refuse
from controlplane.store.tables import ChangeRow, ChangeTargetRow, ClaimRow
from schemas import faults
from schemas.calls import CommitInput
from schemas.plan import Claim, CommitResult, Moved, Plan
from schemas.principal import Call, Principal
from schemas.problem import Next, Refusal
from schemas.resource import Ref

PATIENCE_S = 10.0


class Commitment:
    """Commits stored plans."""

    def __init__(self, proposer: Proposer, reverting: Reverting) -> None:
        self._proposer = proposer
        self._reverting = reverting
        self._store = proposer.store
        self._one_at_a_time = asyncio.Lock()

    async def commit(self, call: Call, given: CommitInput) -> CommitResult:
        """Make it so, or say what stands in the way."""
        async with self._turn_of_one():
            for _ in range(ATTEMPTS_MAX):
                kept = await self._proposer.kept(given.plan_id, call.principal)
                if kept is None:
                    raise absent_plan(given.plan_id)
                if kept.change_id is not None:
                    return _result(kept, "already_committed", change_id=kept.change_id)
                if kept.expires_at <= call.now:
                    raise _expired(kept)
                result = await self._attempt(call, given, kept)
                if result is not None:
                    return result
        raise refuse("CONFLICT", "others wrote at the same time; try again", retry_after_s=0.2, plan_id=given.plan_id)

    @asynccontextmanager
    async def _turn_of_one(self) -> AsyncIterator[None]:
        """One commit at a time; while the writer is away, nobody queues for long."""
        try:
            async with asyncio.timeout(PATIENCE_S):
                await self._one_at_a_time.acquire()
        except TimeoutError:
            detail = "commits before this one are still waiting for the writer; try again"
            raise refuse("NOT_READY", detail, retry_after_s=1.0) from None
        try:
            yield
        finally:
            self._one_at_a_time.release()

    async def _attempt(self, call: Call, given: CommitInput, kept: Kept) -> CommitResult | None:
        """Commit on the world as it is; None when others wrote in between."""
        world = await self._store.read(lambda session: _world_of(session, kept))
        if not self._as_read(kept, world):
            return await self._too_late(call, kept, world)
        self._proposer.check(kept.wanted, world, await self._proposer.tried(kept.wanted))
        commit = Commit(kept, call.principal.name, given.on_miss, call.now)
        ended = await self._store.read(lambda session: superseded_by(session, kept))
        faults.at("plane.committing")
        if not await self._store.write(commit_unit(commit, ended)):
            return None
        faults.at("plane.committed")
        return _result(kept, "committed", change_id=commit.change_id)

    def _as_read(self, kept: Kept, world: World) -> bool:
        """Whether planning again would give the very same plan."""
        members = [(it.selects, it.namespace, it.name, it.names) for it in world.members]
        planned = [(it["selects"], it["namespace"], it["name"], it["names"]) for it in kept.members]
        revisions = [world.at(it.kind, it.namespace, it.name).revision for it in kept.writes]
        return (
            not moved(kept.plan.read_set, world)
            and members == planned
            and revisions == [it.base_revision for it in kept.writes]
        )

    async def _too_late(self, call: Call, kept: Kept, world: World) -> CommitResult | None:
        """Propose the same decisions on the world as it is now."""
        found = [
            Moved(
                kind=entry.kind,
                namespace=entry.namespace,
                name=entry.name,
                planned_generation=entry.generation,
                current_generation=current,
            )
            for entry, current in moved(kept.plan.read_set, world)
        ] or _moved_labels(kept, world)
        left = tuple(it for it in kept.wanted if it.action == "apply" or world.at(it.kind, it.namespace, it.name).live)
        if not left:
            return _result(kept, "superseded", moved=found)
        plan = await self._again(call, kept, left)
        if plan is None:
            return _result(kept, "stale", moved=found)
        if plan.plan_id == kept.plan.plan_id:
            return None
        if not plan.steps:
            return _result(kept, "superseded", moved=found)
        return _result(kept, "stale", moved=found, new_plan_id=plan.plan_id)

    async def _again(self, call: Call, kept: Kept, wanted: tuple[Wanted, ...]) -> Plan | None:
        """The new plan, as the same principal would get it; None when it can not be proposed any more."""
        principal = kept.plan.principal
        try:
            if kept.plan.reverts is not None:
                as_before = Principal(principal, call.principal.role, call.principal.namespaces)
                return await self._reverting.propose(as_before, kept.plan.reverts, call.now)
            return await self._proposer.propose(principal, Admitted(wanted, kept.code), call.now)
        except Refusal:
            return None


def _world_of(session: Session, kept: Kept) -> World:
    world = read_world(session, kept.wanted, kept.code)
    rest = [(it.kind, it.namespace, it.name) for it in kept.plan.read_set]
    missing: list[Key] = [key for key in rest if key not in world.known]
    return World({**world.known, **read_known(session, missing)}, world.code, world.owners, world.members, world.agents)


def superseded_by(session: Session, kept: Kept) -> list[OpenChange]:
    """Open changes on targets whose generation the plan moves, with their open claims."""
    targets = [it for it in kept.writes if it.action != "update" or it.generation != it.base_generation]
    found: dict[str, Ref] = {}
    for start in range(0, len(targets), 100):
        names = [
            and_(
                col(ChangeTargetRow.kind) == it.kind,
                col(ChangeTargetRow.namespace) == it.namespace,
                col(ChangeTargetRow.name) == it.name,
            )
            for it in targets[start : start + 100]
        ]
        query = (
            select(ChangeTargetRow)
            .join(ChangeRow, col(ChangeRow.change_id) == col(ChangeTargetRow.change_id))
            .where(col(ChangeRow.done_at).is_(None), col(ChangeRow.operation).is_(None), or_(*names))
        )
        for row in session.exec(query):
            found.setdefault(row.change_id, Ref.model_validate(row.model_dump(include={"kind", "namespace", "name"})))
    return [OpenChange(change_id, subject, open_claims(session, change_id)) for change_id, subject in found.items()]


def open_claims(session: Session, change_id: str) -> tuple[Claim, ...]:
    """The claims of a change that have no verdict."""
    query = select(ClaimRow.body).where(ClaimRow.change_id == change_id, col(ClaimRow.verdict).is_(None))
    return tuple(Claim.model_validate_json(body) for body in session.exec(query))


def _expired(kept: Kept) -> Refusal:
    plan = kept.plan
    detail = f"plan {plan.plan_id} has expired; propose it again"
    step = Next(operation="plans.get", arguments={"plan_id": plan.plan_id}, why="shows what was planned")
    return refuse(
        "PLAN_EXPIRED",
        detail,
        field="/plan_id",
        next=[step],
        plan_id=plan.plan_id,
        expired_at=plan.model_dump(mode="json", include={"expires_at"})["expires_at"],
    )


def _moved_labels(kept: Kept, world: World) -> list[Moved]:
    """What was written without a new generation: labels."""
    found = []
    for it in kept.writes:
        if world.at(it.kind, it.namespace, it.name).revision != it.base_revision:
            generation = it.base_generation
            found.append(
                Moved(
                    kind=it.kind,
                    namespace=it.namespace,
                    name=it.name,
                    planned_generation=generation,
                    current_generation=generation,
                )
            )
    return found


def _result(
    kept: Kept,
    outcome: Any,
    *,
    change_id: str | None = None,
    new_plan_id: str | None = None,
    moved: Sequence[Moved] = (),
) -> CommitResult:
    return CommitResult(
        outcome=outcome,
        plan_id=kept.plan.plan_id,
        change_id=change_id,
        new_plan_id=new_plan_id,
        moved=list(moved),
    )
