"""Plans and changes as they are answered, and waiting for a change to be done.

A change's outcome is derived from its claims: nobody stores it. While it is open, `waits_on` says
which claim it waits on, and until when. Waiting listens for the bell and looks at the record; a
timeout answers the change as it is, because it is no error.
"""

import asyncio
from collections.abc import Sequence
from typing import Any, Literal

import orjson
from sqlalchemy import ColumnElement, and_, exists, or_, tuple_
from sqlmodel import Session, col, select

from controlplane.operations.conditions import moment
from controlplane.operations.living import paging
from controlplane.operations.visibility import absent_change, within
from controlplane.store.store import Store
from controlplane.store.tables import ChangeRow, ChangeTargetRow, ClaimRow
from schemas.calls import ChangeList, PageInput
from schemas.plan import Change, Claim, ClaimState, StepState, Wait
from schemas.ports import Doorbell
from schemas.principal import Principal

LOOK_AGAIN_S = 1.0
Outcome = Literal["open", "verified", "missed", "unverifiable", "superseded"]


async def get_change(store: Store, principal: Principal, change_id: str) -> Change:
    """One change; raises NOT_FOUND, also for what the principal may not see."""

    def query(session: Session) -> Change | None:
        seen = within(principal, col(ChangeRow.namespace))
        row = session.exec(select(ChangeRow).where(ChangeRow.change_id == change_id, *seen)).first()
        return view_changes(session, [row])[0] if row is not None else None

    found = await store.read(query)
    if found is None:
        raise absent_change(change_id)
    return found


async def wait_for_change(
    store: Store, doorbell: Doorbell, principal: Principal, change_id: str, timeout_s: float
) -> Change:
    """The change once it is done, or as it is when the time is over."""
    loop = asyncio.get_running_loop()
    until = loop.time() + timeout_s
    while True:
        rung = doorbell.rung
        change = await get_change(store, principal, change_id)
        if change.done or loop.time() >= until:
            return change
        await doorbell.wait(max(0.0, min(until - loop.time(), LOOK_AGAIN_S)), since=rung)


async def list_changes(store: Store, given: PageInput, principal: Principal) -> ChangeList:
    """A page of changes, newest first."""
    after = paging.decode(given.page, (float, str)) if given.page is not None else None

    def query(session: Session) -> ChangeList:
        wanted = select(ChangeRow).where(*_visible(principal), *_in_namespace(given.namespace))
        if after is not None:
            wanted = wanted.where(tuple_(col(ChangeRow.committed_at), col(ChangeRow.change_id)) < tuple_(*after))
        order = (col(ChangeRow.committed_at).desc(), col(ChangeRow.change_id).desc())
        found = session.exec(wanted.order_by(*order).limit(given.limit + 1)).all()
        shown = found[: given.limit]
        mark = paging.encode([shown[-1].committed_at, shown[-1].change_id]) if len(found) > given.limit else None
        return ChangeList(items=view_changes(session, shown), next_page=mark)

    return await store.read(query)


def _visible(principal: Principal) -> list[ColumnElement[bool]]:
    """Changes all of whose namespaces the principal reaches."""
    if "*" in principal.namespaces:
        return []
    several = and_(col(ChangeRow.namespace).contains(","), *within(principal, col(ChangeRow.namespace)))
    return [or_(col(ChangeRow.namespace).in_(principal.namespaces), several)]


def _in_namespace(namespace: str | None) -> list[ColumnElement[bool]]:
    if namespace is None:
        return []
    inside = exists().where(
        col(ChangeTargetRow.change_id) == col(ChangeRow.change_id), col(ChangeTargetRow.namespace) == namespace
    )
    return [or_(col(ChangeRow.namespace) == namespace, and_(col(ChangeRow.namespace).contains(","), inside))]


def view_changes(session: Session, found: Sequence[ChangeRow]) -> list[Change]:
    """Changes with their claims, in one read."""
    ids = [it.change_id for it in found]
    claims: dict[str, list[ClaimRow]] = {it: [] for it in ids}
    if ids:
        for row in session.exec(select(ClaimRow).where(col(ClaimRow.change_id).in_(ids))):
            claims[row.change_id].append(row)
    return [_change(it, sorted(claims[it.change_id], key=lambda row: int(row.claim_id[1:]))) for it in found]


def _change(row: ChangeRow, claims: Sequence[ClaimRow]) -> Change:
    done, binding = row.done_at is not None, [it for it in claims if it.binding]
    return Change(
        change_id=row.change_id,
        plan_id=row.plan_id,
        outcome=outcome_of([it.verdict for it in binding], done=done, superseded=row.superseded_by is not None),
        done=done,
        principal=row.principal,
        committed_at=moment(row.committed_at),
        on_miss=row.on_miss,
        steps=[StepState(index=index, done=it) for index, it in enumerate(orjson.loads(row.steps))],
        claims=[_claim(it) for it in claims],
        waits_on=[] if done else [_wait(row, it) for it in binding if it.verdict is None],
        reverts=row.reverts,
        reverted_by=row.reverted_by,
        operation=row.operation,
    )


def outcome_of(verdicts: Sequence[str | None], *, done: bool, superseded: bool) -> Outcome:
    """What became of a change, from its claims' verdicts; a miss is told before anything else."""
    if not done:
        return "open"
    if "missed" in verdicts:
        return "missed"
    if superseded:
        return "superseded"
    return "unverifiable" if "unverifiable" in verdicts else "verified"


def _claim(row: ClaimRow) -> ClaimState:
    observed: Any = orjson.loads(row.observed) if row.observed is not None else None
    at = moment(row.verified_at) if row.verified_at is not None else None
    return ClaimState(claim_id=row.claim_id, verdict=row.verdict, observed=observed, verified_at=at)


def _wait(change: ChangeRow, row: ClaimRow) -> Wait:
    claim = Claim.model_validate_json(row.body)
    about = claim.subject
    message = f"{claim.measure} of {about.kind} {about.namespace}/{about.name} to be {claim.expected.value}"
    return Wait(
        reason="CLAIM_OPEN",
        message=message,
        subject=about,
        since=moment(change.committed_at),
        until=moment(row.due_at),
    )
