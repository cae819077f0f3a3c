"""Join, leave, members: who reads a channel, and who was a member when a message was accepted.

Joining and leaving repeat safely: only what changes a membership is written and told. A channel that is not
there is made by who joins it. What a spec's `watches` declares is not left here.
"""

from typing import Any

import orjson
from sqlmodel import Session, col, func, or_, select

from controlplane.mesh.making import made
from controlplane.mesh.membership import By, Member, joining, left_by
from controlplane.operations.living import envelopes, guesting, paging
from controlplane.operations.living.lookup import FoundAgent, find_agent, find_channel, find_or_make, making_uid
from controlplane.operations.watches import channels_of
from controlplane.resources.channels import MemberList
from controlplane.resources.problems import refuse
from controlplane.store.invitations import STANDS
from controlplane.store.store import Store
from controlplane.store.tables import ChannelMessageRow, ChannelRow, MembershipRow, ResourceRow, SubscriptionRow
from controlplane.store.unit import Unit
from schemas.calls import JoinInput, LeaveInput, Membership, MembersInput, MemberView
from schemas.plan import Preview
from schemas.ports import GatePort, Handler
from schemas.principal import Call
from schemas.problem import Next


def handlers(store: Store, gate: GatePort) -> dict[str, Handler]:
    """The handlers, by the names of their operations."""
    members = Members(store, gate)
    return {
        "channels.join": members.join,
        "channels.leave": members.leave,
        "channels.members": members.list,
    }


class Members:
    """Changes memberships, and tells of them."""

    def __init__(self, store: Store, gate: GatePort) -> None:
        self._store = store
        self._gate = gate

    async def join(self, call: Call, given: JoinInput) -> Membership | Preview:
        if guesting.elsewhere(given.namespace, given.channel_namespace) is not None:
            return await self._visit(call, given)
        namespace, name = given.namespace, given.name
        agent = await find_agent(self._store, namespace, given.agent, field="/agent")
        channel = await find_or_make(self._store, namespace, name)
        after = 0 if given.after is None else paging.position(given.after, channel.next_position - 1)
        position = await self._position(channel.uid, agent)
        start = given.start if given.after is None else "cursor"
        if call.dry_run:
            would = [] if position is not None else [f"{given.agent} would read {name} from {given.after or start}"]
            would = would if channel.uid else [f"channel {namespace}/{name} would be made", *would]
            return Preview(operation=call.operation, would=would, undo="exact")
        if position is None:
            by = By(call.principal.name)
            uid = "" if channel.uid else making_uid(call, namespace, name)
            unit = Unit().rows(made(uid, namespace, name, by.who, call.now) if uid else ())
            member = Member(agent.uid, given.agent, namespace, name)
            await self._store.write(unit.rows(joining(member, start, by, call.now, after)))
            channel = await find_channel(self._store, namespace, name)
            position = await self._position(channel.uid, agent)
            if start != "now":
                await self._gate.control("deliver", channel.uid, {})
        if position is None:
            raise refuse("CONFLICT", "others wrote at the same time; try again", retry_after_s=0.1)
        return _membership(given, position)

    async def _visit(self, call: Call, given: JoinInput) -> Membership | Preview:
        """An agent becomes the guest of a channel that it is invited to read; one that is already lasts as long."""
        agent = await find_agent(self._store, given.namespace, given.agent, field="/agent")
        way = _way(given)
        found, invitation = await guesting.opened(self._store, way, call.now)
        after = 0 if given.after is None else paging.position(given.after, found.next_position - 1)
        start = given.start if given.after is None else "cursor"
        if call.dry_run:
            there = await self._position(found.uid, agent) is not None
            would = [] if there else [f"{given.agent} would read {way.channel_namespace}/{way.name} from {start}"]
            return Preview(operation=call.operation, would=would, undo="exact")
        place = (way.channel_namespace, way.name)
        member = Member(agent.uid, f"{given.namespace}/{given.agent}", *place)
        unit = Unit().raw(STANDS, [invitation, call.now, *place], expect=1)
        unit.rows(joining(member, start, By(call.principal.name), call.now, after, invitation))
        position = await self._position(found.uid, agent) if await self._store.write(unit) else None
        if position is None:  # it was revoked, or ended, meanwhile
            raise guesting.not_open(way)
        await self._gate.control("deliver", found.uid, {})
        return _membership(given, position)

    async def leave(self, call: Call, given: LeaveInput) -> Membership | Preview:
        guest = guesting.elsewhere(given.namespace, given.channel_namespace) is not None
        channel = None if guest else await find_channel(self._store, given.namespace, given.name)
        agent = await find_agent(self._store, given.namespace, given.agent, field="/agent")
        if channel is None:
            position = await self._of_guest(call, given, agent)
        else:
            position = await self._position(channel.uid, agent)
        if position is not None and not guest:
            _require_unwatched(await self._store.read(lambda session: _spec(session, agent.uid)), given)
        if call.dry_run:
            would = [] if position is None else [f"{given.agent} would no longer read {given.name}"]
            return Preview(operation=call.operation, would=would, undo="compensate")
        if position is not None:
            called = f"{given.namespace}/{given.agent}" if guest else given.agent
            member = Member(agent.uid, called, given.channel_namespace or given.namespace, given.name)
            await self._store.write(Unit().rows(left_by(member, By(call.principal.name), call.now)))
        return _membership(given, None)

    async def _of_guest(self, call: Call, given: LeaveInput, agent: FoundAgent) -> int | None:
        """The guest's place, which it may leave at any time; else as for what is not open."""
        way = _way(given)

        def query(session: Session) -> int | None:
            return session.exec(
                select(SubscriptionRow.position)
                .join(ChannelRow, col(ChannelRow.uid) == col(SubscriptionRow.channel))
                .where(
                    col(SubscriptionRow.agent) == agent.uid,
                    col(ChannelRow.namespace) == way.channel_namespace,
                    col(ChannelRow.name) == way.name,
                )
            ).first()

        position: int | None = await self._store.read(query)
        if position is None:
            await guesting.opened(self._store, way, call.now)
        return position

    async def list(self, call: Call, given: MembersInput) -> MemberList:
        channel = await find_channel(self._store, given.namespace, given.name)
        at = None
        if given.accepted_at is not None:
            at = paging.position(given.accepted_at, channel.next_position - 1, field="/accepted_at")
            oldest = await self._store.read(lambda session: _oldest(session, channel.uid))
            if oldest is None or at < oldest:
                detail = f"the message at {at} is not kept any more, nor who was to get it"
                raise refuse("INVALID_CURSOR", detail, field="/accepted_at", after=given.accepted_at)
        after = 0 if given.page is None else int(paging.decode(given.page, (int,))[0])
        rows = await self._store.read(lambda session: _members(session, channel.uid, at, after, given.limit + 1))
        more, rows = len(rows) > given.limit, rows[: given.limit]
        next_page = paging.encode([rows[-1].id or 0]) if more else None
        return MemberList(items=[_view(row) for row in rows], next_page=next_page)

    async def _position(self, channel: str, agent: FoundAgent) -> int | None:
        def query(session: Session) -> int | None:
            return session.exec(
                select(SubscriptionRow.position).where(
                    SubscriptionRow.channel == channel, SubscriptionRow.agent == agent.uid
                )
            ).first()

        position: int | None = await self._store.read(query)
        return position


def _oldest(session: Session, channel: str) -> int | None:
    query = select(func.min(ChannelMessageRow.position)).where(ChannelMessageRow.channel == channel)
    oldest: int | None = session.exec(query).one()
    return oldest


def _members(session: Session, channel: str, at: int | None, after: int, many: int) -> list[MembershipRow]:
    left = col(MembershipRow.left_position)
    query = select(MembershipRow).where(MembershipRow.channel == channel, col(MembershipRow.id) > after)
    if at is None:
        query = query.where(left.is_(None))
    else:
        query = query.where(col(MembershipRow.joined_position) <= at, or_(left.is_(None), left > at))
    return list(session.exec(query.order_by(col(MembershipRow.id)).limit(many)).all())


def _view(row: MembershipRow) -> MemberView:
    return MemberView(
        agent=row.name,
        joined_at=envelopes.moment(row.joined_at),
        joined_position=str(row.joined_position),
        left_at=None if row.left_at is None else envelopes.moment(row.left_at),
        left_position=None if row.left_position is None else str(row.left_position),
    )


def _membership(given: JoinInput | LeaveInput, position: int | None) -> Membership:
    return Membership(
        namespace=given.namespace,
        name=given.name,
        agent=given.agent,
        member=position is not None,
        position=None if position is None else str(position),
        channel_namespace=guesting.elsewhere(given.namespace, given.channel_namespace),
    )


def _way(given: JoinInput | LeaveInput) -> guesting.Way:
    other = given.channel_namespace or given.namespace
    return guesting.Way(given.namespace, given.agent, "read", other, given.name)


def _spec(session: Session, uid: str) -> dict[str, Any]:
    spec: dict[str, Any] = orjson.loads(
        session.exec(select(ResourceRow.spec).where(ResourceRow.uid == uid)).first() or b"{}"
    )
    return spec


def _require_unwatched(spec: dict[str, Any], given: LeaveInput) -> None:
    if any(watch["channel"] == given.name for watch in channels_of(spec.get("watches") or [])):
        detail = (
            f"agent {given.namespace}/{given.agent} watches {given.name} by its spec; propose it without that watch"
        )
        arguments = {"namespace": given.namespace, "name": given.agent}
        raise refuse(
            "OWNED",
            detail,
            field="/agent",
            next=[Next(operation="agents.get", arguments=arguments, why="shows the spec to propose anew")],
            namespace=given.namespace,
            name=given.name,
            agent=given.agent,
        )
