"""`discovery.register`, `renew`, `unregister`: agents elsewhere say that they are here, and for how long.

One row holds all of a member, so that it is there or gone, and nothing of it is ever left. A lease that is over
counts at once: reads leave it out, whenever it is swept. Whoever may change the
namespace may say so: who comes last is believed.
"""

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import orjson
from sqlalchemy import Row, text
from sqlmodel import Session

from controlplane.mesh.traits import mark_of, meaning_text
from controlplane.operations.living.envelopes import moment
from controlplane.operations.offered import require_schemas
from controlplane.resources.problems import refuse
from controlplane.store import members as sql
from controlplane.store.store import Store
from controlplane.store.unit import Scalar, Unit
from schemas.base import canonical
from schemas.calls import NamedAct
from schemas.capability import Capability
from schemas.member import MEMBERS_MAX, RegisterInput, RemoteMember, RenewInput, Unregistered
from schemas.plan import Preview
from schemas.ports import Handler
from schemas.principal import Call
from schemas.problem import Next, Refusal

T = TypeVar("T")
Known = Row[Any]
TRIES = 3
# Members come and go often, and a mapped row would cost more than its read.
KNOWN = text(
    "SELECT namespace, name, principal, labels, purpose, capabilities, address, since, expires_at FROM member"
    " WHERE namespace = :namespace AND name = :name AND expires_at > :now"
)
COUNT = text("SELECT COUNT(*) FROM member WHERE namespace = :namespace AND expires_at > :now")


def handlers(store: Store) -> dict[str, Handler]:
    """The handlers of all three."""
    members = Members(store)
    return {
        "discovery.register": members.register,
        "discovery.renew": members.renew,
        "discovery.unregister": members.unregister,
    }


class Members:
    """Registers members, keeps them, and takes them away."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def register(self, call: Call, given: RegisterInput) -> RemoteMember | Preview:
        require_schemas([it.model_dump() for it in _offered(given)], "/capabilities")

        async def attempt() -> RemoteMember | Preview | None:
            row, there = await self._store.read(lambda session: _seen(session, given.namespace, given.name, call.now))
            if there >= MEMBERS_MAX:
                raise _full(given.namespace, there)
            view = _registered(call, given, row)
            if call.dry_run:
                would = f"{given.namespace}/{given.name} would be found until {view.expires_at:%Y-%m-%dT%H:%M:%SZ}"
                return Preview(operation=call.operation, would=[would], undo="exact")
            capabilities = [it.model_dump(mode="json") for it in view.capabilities]
            meant = meaning_text(given.purpose, capabilities)
            said = [canonical(given.labels).decode(), given.purpose, canonical(capabilities).decode(), given.address]
            lease = [call.now, call.now + given.lease_s]
            meaning = mark_of(meant) if meant else ""
            values: list[Scalar] = [given.namespace, given.name, call.principal.name, *said, meaning, *lease]
            unit = Unit().raw(sql.REGISTER, values, 1)
            return view if await self._store.write(_told(unit, "member.registered", given, call)) else None

        return await again(attempt)

    async def renew(self, call: Call, given: RenewInput) -> RemoteMember | Preview:
        async def attempt() -> RemoteMember | Preview | None:
            row = await self._store.read(lambda session: _known(session, given.namespace, given.name, call.now))
            if row is None:
                raise _gone(given)
            until = call.now + given.lease_s
            if call.dry_run:
                would = f"the lease of {given.namespace}/{given.name} would run {given.lease_s:g} s from now"
                return Preview(operation=call.operation, would=[would], undo="none")
            values: list[Scalar] = [until, given.namespace, given.name, row.since, call.now]
            if not await self._store.write(Unit().raw(sql.RENEW, values, 1)):
                return None
            return _view(row).model_copy(update={"expires_at": moment(until)})

        return await again(attempt)

    async def unregister(self, call: Call, given: NamedAct) -> Unregistered | Preview:
        gone = Unregistered(namespace=given.namespace, name=given.name)
        if call.dry_run:
            row = await self._store.read(lambda session: _known(session, given.namespace, given.name, call.now))
            would = [] if row is None else [f"{given.namespace}/{given.name} would be found no more"]
            return Preview(operation=call.operation, would=would, undo="none")
        which: list[Scalar] = [given.namespace, given.name, call.now]
        unit = Unit().raw(sql.UNREGISTERED_EVENT, [call.now, call.principal.name, *which])
        await self._store.write(unit.raw(sql.UNREGISTER, which))  # of one that is not there, nothing is touched
        return gone


async def again(attempt: Callable[[], Awaitable[T | None]]) -> T:
    """Whoever meets another who writes at the same time looks again."""
    for _ in range(TRIES):
        if (answer := await attempt()) is not None:
            return answer
    raise refuse("CONFLICT", "others wrote at the same time; try again", retry_after_s=1.0)


def _known(session: Session, namespace: str, name: str, now: float) -> Known | None:
    return session.connection().execute(KNOWN, {"namespace": namespace, "name": name, "now": now}).one_or_none()


def _seen(session: Session, namespace: str, name: str, now: float) -> tuple[Known | None, int]:
    """A member as it is known; for one that is not, how many others there are."""
    row = _known(session, namespace, name, now)
    if row is not None:
        return row, 0
    return None, int(session.connection().execute(COUNT, {"namespace": namespace, "now": now}).scalar_one())


def _told(unit: Unit, event: str, given: RegisterInput | NamedAct, call: Call) -> Unit:
    by = call.principal.name
    return unit.event(event, kind="Member", namespace=given.namespace, name=given.name, now=call.now, principal=by)


def _registered(call: Call, given: RegisterInput, before: Known | None) -> RemoteMember:
    return RemoteMember(
        namespace=given.namespace,
        name=given.name,
        labels=dict(given.labels),
        purpose=given.purpose,
        capabilities=_offered(given),
        address=given.address,
        registered_by=call.principal.name,
        since=moment(call.now if before is None else before.since),
        expires_at=moment(call.now + given.lease_s),
    )


def _offered(given: RegisterInput) -> list[Capability]:
    return [it for it in given.capabilities if isinstance(it, Capability)]


def _view(row: Known) -> RemoteMember:
    return RemoteMember(
        namespace=row.namespace,
        name=row.name,
        labels=orjson.loads(row.labels),
        purpose=row.purpose,
        capabilities=[Capability(**it) for it in orjson.loads(row.capabilities)],
        address=row.address,
        registered_by=row.principal,
        since=moment(row.since),
        expires_at=moment(row.expires_at),
    )


def _gone(given: NamedAct) -> Refusal:
    detail = f"{given.namespace}/{given.name} is not registered, or its lease is over; register it again"
    step = Next(operation="operations.describe", arguments={"name": "discovery.register"}, why="shows how to register")
    return refuse("NOT_FOUND", detail, field="/name", next=[step], namespace=given.namespace, name=given.name)


def _full(namespace: str, there: int) -> Refusal:
    detail = f"{there} members are registered in {namespace}, which is the most"
    return refuse("QUOTA", detail, field="/namespace", namespace=namespace, members=there, members_max=MEMBERS_MAX)
