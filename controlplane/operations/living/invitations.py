"""`invitations.create`, `list`, `revoke`: ways from one namespace into another, written by who holds the target's."""

import uuid
from typing import Any, get_args

from sqlmodel import Session, col, or_, select

from controlplane.operations.living import paging
from controlplane.operations.living.envelopes import moment
from controlplane.operations.living.lookup import absent
from controlplane.resources.invitations import InvitationList
from controlplane.resources.problems import refuse
from controlplane.store import invitations as sql
from controlplane.store.store import Store
from controlplane.store.tables import InvitationRow, ResourceRow
from controlplane.store.unit import Unit
from schemas.base import short_id
from schemas.invitation import (
    InvitationCreateInput,
    InvitationInput,
    InvitationListInput,
    InvitationView,
    Opens,
)
from schemas.plan import Preview
from schemas.ports import Handler
from schemas.principal import Call, Principal
from schemas.problem import Next, Refusal

OF_KIND: dict[str, tuple[Opens, ...]] = {"Agent": ("send", "ask"), "Channel": ("read", "publish")}
TRIES = 3


def handlers(store: Store) -> dict[str, Handler]:
    """The handlers of all three."""
    room = Invitations(store)
    return {"invitations.create": room.create, "invitations.list": room.list, "invitations.revoke": room.revoke}


class Invitations:
    """Writes and lists invitations."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def create(self, call: Call, given: InvitationCreateInput) -> InvitationView | Preview:
        effects = _effects(given)
        to = f"{given.to_namespace}/{given.to_agent or '*'}"
        if call.dry_run:
            if not await self._store.read(lambda session: _live(session, given)):
                raise absent(given.kind, given.namespace, given.name, "/name")
            would = f"{to} could {', '.join(effects)} to {given.kind.lower()} {given.namespace}/{given.name}"
            return Preview(operation=call.operation, would=[would], undo="exact")
        view = InvitationView(
            invitation_id=_new(call),
            kind=given.kind,
            namespace=given.namespace,
            name=given.name,
            to_namespace=given.to_namespace,
            to_agent=given.to_agent,
            effects=effects,
            created_by=call.principal.name,
            created_at=moment(call.now),
            expires_at=moment(call.now + given.expires_in_s),
        )
        text, expires_at = f",{','.join(effects)},", call.now + given.expires_in_s
        said = [view.invitation_id, given.to_namespace, given.to_agent or "", text, call.principal.name]
        unit = Unit().raw(sql.INVITE, [*said, call.now, expires_at, given.kind, given.namespace, given.name], 1)
        data = {"invitation_id": view.invitation_id, "to": to, "effects": effects}
        _tell(unit, "invitation.created", view, call, data)
        if not await self._store.write(unit):
            raise absent(given.kind, given.namespace, given.name, "/name")
        return view

    async def list(self, call: Call, given: InvitationListInput) -> InvitationList:
        after = "" if given.page is None else str(paging.decode(given.page, (str,))[0])
        rows = await self._store.read(lambda session: _page(session, given, after, call.principal))
        shown = rows[: given.limit]
        mark = paging.encode([shown[-1].invitation_id]) if len(rows) > given.limit else None
        return InvitationList(items=[_view(row) for row in shown], next_page=mark)

    async def revoke(self, call: Call, given: InvitationInput) -> InvitationView | Preview:
        for _ in range(TRIES):
            row = await self._store.read(lambda session: _known(session, given.invitation_id, call.principal))
            if row is None:
                raise _absent(given.invitation_id)
            if call.dry_run:
                would = [] if row.revoked_at else [f"invitation {row.invitation_id} would open nothing any more"]
                return Preview(operation=call.operation, would=would, undo="none")
            view = _view(row)
            if row.revoked_at is not None:
                return view
            unit = Unit().raw(sql.REVOKE, [call.now, row.invitation_id], 1)
            _tell(unit, "invitation.revoked", view, call, {"invitation_id": row.invitation_id})
            if await self._store.write(unit):
                return view.model_copy(update={"revoked_at": moment(call.now)})
        raise refuse("CONFLICT", "others wrote at the same time; try again", retry_after_s=1.0)


def _new(call: Call) -> str:
    if call.request_id is None:
        return f"inv_{uuid.uuid4().hex[:26]}"
    return short_id("inv", call.principal.identity, call.request_id)


def _effects(given: InvitationCreateInput) -> list[Opens]:
    """Those asked for, which its kind must have."""
    known = OF_KIND[given.kind]
    wanted = given.effects or list(known)
    if wrong := [it for it in wanted if it not in known]:
        detail = f"a {given.kind.lower()} is opened to {', '.join(known)}, not to {wrong[0]}"
        raise refuse("INVALID_VALUE", detail, field="/effects", kind=given.kind, known=list(known), wrong=wrong[0])
    return [it for it in get_args(Opens) if it in wanted]


def _live(session: Session, given: InvitationCreateInput) -> bool:
    query = select(ResourceRow.uid).where(
        col(ResourceRow.kind) == given.kind,
        col(ResourceRow.namespace) == given.namespace,
        col(ResourceRow.name) == given.name,
        col(ResourceRow.deleted_at).is_(None),
    )
    return session.exec(query).first() is not None


def _page(session: Session, given: InvitationListInput, after: str, principal: Principal) -> list[InvitationRow]:
    query = select(InvitationRow).where(col(InvitationRow.invitation_id) > after)
    reached: tuple[str, ...] | None = None if "*" in principal.namespaces else principal.namespaces
    if given.namespace is not None:
        reached = (given.namespace,)
    if reached is not None:
        by, to = col(InvitationRow.namespace).in_(reached), col(InvitationRow.to_namespace).in_(reached)
        query = query.where(or_(by, to))
    return list(session.exec(query.order_by(col(InvitationRow.invitation_id)).limit(given.limit + 1)))


def _known(session: Session, invitation_id: str, principal: Principal) -> InvitationRow | None:
    """One that the principal may revoke: its namespace gave it."""
    query = select(InvitationRow).where(col(InvitationRow.invitation_id) == invitation_id)
    if "*" not in principal.namespaces:
        query = query.where(col(InvitationRow.namespace).in_(principal.namespaces))
    return session.exec(query).first()


def _absent(invitation_id: str) -> Refusal:
    step = Next(operation="invitations.list", why="shows the invitations there are")
    detail = f"there is no invitation {invitation_id}"
    return refuse("NOT_FOUND", detail, field="/invitation_id", next=[step], kind="Invitation", id=invitation_id)


def _tell(unit: Unit, event: str, view: InvitationView, call: Call, data: dict[str, Any]) -> None:
    unit.event(
        event,
        kind=view.kind,
        namespace=view.namespace,
        name=view.name,
        now=call.now,
        principal=call.principal.name,
        data=data,
    )


def _view(row: InvitationRow) -> InvitationView:
    return InvitationView(
        invitation_id=row.invitation_id,
        kind="Channel" if row.kind == "Channel" else "Agent",
        namespace=row.namespace,
        name=row.name,
        to_namespace=row.to_namespace,
        to_agent=row.to_agent or None,
        effects=[it for it in get_args(Opens) if f",{it}," in row.effects],
        created_by=row.principal,
        created_at=moment(row.created_at),
        expires_at=moment(row.expires_at),
        revoked_at=None if row.revoked_at is None else moment(row.revoked_at),
    )
