"""Who is found beside the agents of the namespaces that are looked into: members from elsewhere, and, for an agent,
those that an invitation opens to it. There are few, so they are read whole, and judged here."""

import time
from typing import Any, NamedTuple

import orjson
from sqlmodel import Session, col, or_, select

from controlplane.mesh import candidates
from controlplane.mesh.candidates import Asked, Key
from controlplane.mesh.traits import meaning_text
from controlplane.store.tables import InvitationRow, MemberRow, ResourceRow
from schemas.capability import Capability
from schemas.discovery import FoundAgent

OTHERS_MAX = 10_000


class Other(NamedTuple):
    """One of them; `text` is what it says of itself."""

    key: Key
    view: FoundAgent
    text: str


def others(session: Session, asked: Asked, asker: Key | None) -> tuple[list[Other], bool]:
    """Those who fit what is asked for exactly, in the order of their names; and whether all were looked at."""
    now = time.time()
    members, invited = _members(session, asked, now), _invited(session, asker, now)
    fitting = sorted((it for it in (*members, *invited) if fits(it.view, asked)), key=lambda it: it.key)
    return fitting, max(len(members), len(invited)) < OTHERS_MAX


def fits(view: FoundAgent, asked: Asked) -> bool:
    """Whether it has the name, the labels and the capability."""
    return (
        (asked.name is None or view.name.startswith(asked.name))
        and asked.labels.items() <= view.labels.items()
        and (asked.capability is None or any(it.name == asked.capability for it in view.capabilities))
    )


def _members(session: Session, asked: Asked, now: float) -> list[Other]:
    query = select(MemberRow).where(col(MemberRow.expires_at) > now)
    if asked.namespaces is not None:
        query = query.where(col(MemberRow.namespace).in_(asked.namespaces))
    ordered = query.order_by(col(MemberRow.namespace), col(MemberRow.name)).limit(OTHERS_MAX)
    return [_member(row) for row in session.exec(ordered)]


def _member(row: MemberRow) -> Other:
    capabilities: list[dict[str, Any]] = orjson.loads(row.capabilities)
    view = FoundAgent(
        namespace=row.namespace,
        name=row.name,
        labels=orjson.loads(row.labels),
        purpose=row.purpose,
        capabilities=[Capability(**it) for it in capabilities],
        state="elsewhere",
        address=row.address or None,
        found_by="filter",
        score=None,
    )
    return Other(Key(row.namespace, row.name, elsewhere=True), view, meaning_text(row.purpose, capabilities))


def _invited(session: Session, asker: Key | None, now: float) -> list[Other]:
    """Agents of other namespaces that an invitation opens to the one that asks."""
    if asker is None:
        return []
    query = (
        select(col(ResourceRow.namespace), col(ResourceRow.name))
        .join(InvitationRow, col(InvitationRow.uid) == col(ResourceRow.uid))
        .where(
            col(InvitationRow.to_namespace) == asker.namespace,
            or_(col(InvitationRow.to_agent) == "", col(InvitationRow.to_agent) == asker.name),
            col(InvitationRow.kind) == "Agent",
            col(InvitationRow.namespace) != asker.namespace,
            col(InvitationRow.expires_at) > now,
            col(InvitationRow.revoked_at).is_(None),
            col(ResourceRow.deleted_at).is_(None),
        )
        .distinct()
        .limit(OTHERS_MAX)
    )
    keys = [Key(*row) for row in session.exec(query)]
    return [_agent(row) for row in candidates.rows(session, keys)]


def _agent(row: candidates.Row) -> Other:
    view = candidates.view(row, "filter", None)
    text = meaning_text(view.purpose, [it.model_dump() for it in view.capabilities])
    return Other(Key(row.namespace, row.name), view, text)
