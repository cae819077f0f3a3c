"""`system.doctor`: an audit of the records, for what is left of what ended, and for what should have ended.

It reads and changes nothing. Each finding is data, with the operation that shows or mends it. Which namespaces a
caller sees is a condition around each query, before anything is counted.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import bindparam, text
from sqlmodel import Session

from controlplane.operations.audits import CHECKS, GRACE_S, Check
from controlplane.store.store import Store
from schemas.doctor import DoctorInput, DoctorReport, Finding, FindingSubject
from schemas.ports import Handler
from schemas.principal import Call, Principal
from schemas.problem import Next

SHOWN_MAX = 50
Rows = list[Mapping[str, Any]]


def handlers(store: Store) -> dict[str, Handler]:
    """The handler of `system.doctor`."""

    async def doctor(call: Call, given: DoctorInput) -> DoctorReport:
        reached = _reached(call.principal, given.namespace)
        checks = [it for it in CHECKS if reached is None or not it.whole]
        grace = call.now - GRACE_S
        found = await store.read_aside(lambda session: [(it, _rows(session, it, reached, grace)) for it in checks])
        return _report(found, call.now)

    return {"system.doctor": doctor}


def _reached(principal: Principal, namespace: str | None) -> tuple[str, ...] | None:
    if namespace is not None:
        return (namespace,)
    return None if "*" in principal.namespaces else principal.namespaces


def _rows(session: Session, check: Check, reached: tuple[str, ...] | None, grace: float) -> Rows:
    """What a check finds, one row more than is shown."""
    within = "" if reached is None else " WHERE found.namespace IN :reached"
    order = f"{within} ORDER BY found.namespace, found.name, found.more LIMIT {SHOWN_MAX + 1}"
    query = text(f"SELECT * FROM ({check.query}) AS found{order}")  # noqa: S608 - queries of ours
    values: dict[str, Any] = {"grace": grace} if ":grace" in check.query else {}
    if reached is not None:
        query = query.bindparams(bindparam("reached", expanding=True))
        values["reached"] = list(reached)
    return [dict(row) for row in session.connection().execute(query, values).mappings()]


def _report(found: list[tuple[Check, Rows]], now: float) -> DoctorReport:
    findings = [_finding(check, row) for check, rows in found for row in rows[:SHOWN_MAX]]
    truncated = [check.name for check, rows in found if len(rows) > SHOWN_MAX]
    wrong = sum(it.weight == "wrong" for it in findings)
    said = f"{len(found)} checks found nothing wrong."
    if findings:
        said = f"{wrong} things are wrong, {len(findings) - wrong} are late." + (
            " There are more." if truncated else ""
        )
    return DoctorReport(
        healthy=not findings,
        text=said,
        findings=findings,
        checked=[check.name for check, _ in found],
        truncated=truncated,
        as_of=datetime.fromtimestamp(now, UTC),
    )


def _finding(check: Check, row: Mapping[str, Any]) -> Finding:
    place = {"namespace": str(row["namespace"]), "name": str(row["name"])}
    metadata = {**place, "more": row["more"]}
    since = row["since"]
    return Finding(
        check=check.name,
        weight=check.weight,
        subject=FindingSubject(kind=check.kind, **place),
        detail=check.detail.format(**metadata),
        metadata=metadata,
        since=None if since is None else datetime.fromtimestamp(float(since), UTC),
        next=[Next(operation=check.operation, arguments=place if check.named else {}, why=check.why)],
    )
