"""Finding what a call names, by one indexed read; or the refusal that says where to look.

A resource that is declared and whose running side is not there yet is never NOT_FOUND: it was
acknowledged, and will be there in a moment. That moment is waited for; after it, NOT_SET_UP.
"""

import asyncio
from collections.abc import Callable
from typing import NamedTuple, TypeVar
from uuid import uuid4

from sqlalchemy import ColumnElement
from sqlmodel import Session, and_, col, func, select

from controlplane.mesh import making
from controlplane.resources.problems import refuse
from controlplane.store.store import Store
from controlplane.store.tables import AgentRow, ChannelRow, ResourceRow
from schemas.base import short_id
from schemas.channel import CHANNELS_MAX
from schemas.principal import Call
from schemas.problem import Next, Refusal
from schemas.resource import Kind

RETRY_AFTER_S = 1.0
SET_UP_S_MAX = 2.0
LOOK_S, LOOK_S_MAX = 0.01, 0.2

Row = TypeVar("Row", bound=tuple[object, ...])


class FoundAgent(NamedTuple):
    """The running side of an agent."""

    uid: str
    owner: str | None
    stopped: bool


class FoundChannel(NamedTuple):
    """The running side of a channel, with its declared spec as JSON."""

    uid: str
    next_position: int
    spec: str


async def find_agent(store: Store, namespace: str, name: str, field: str = "/name") -> FoundAgent:
    """The agent of this name, or the refusal."""
    row = await _set_up(store, lambda session: _agent(session, namespace, name))
    if row is None:
        raise absent("Agent", namespace, name, field)
    uid, stopped, owner = row
    if stopped is None:
        raise _not_yet("Agent", namespace, name)
    return FoundAgent(uid, owner, bool(stopped))


async def find_channel(store: Store, namespace: str, name: str) -> FoundChannel:
    """The channel of this name, or the refusal."""
    row = await _set_up(store, lambda session: _channel(session, namespace, name))
    if row is None:
        raise absent("Channel", namespace, name, "/name")
    uid, next_position, spec = row
    if next_position is None:
        raise _not_yet("Channel", namespace, name)
    return FoundChannel(uid, next_position, spec)


async def find_or_make(store: Store, namespace: str, name: str) -> FoundChannel:
    """The channel of this name; one that is not there is to be made by its first use, and has no uid yet."""
    row = await _set_up(store, lambda session: _channel(session, namespace, name))
    if row is not None and row[1] is None:
        raise _not_yet("Channel", namespace, name)
    if row is not None:
        return FoundChannel(row[0], row[1] or 1, row[2])
    left, most = await store.read(lambda session: _taken(session, namespace, name))
    if left:  # of a channel of this name that was deleted
        raise _not_yet("Channel", namespace, name)
    if most:
        raise Refusal(making.too_many(namespace))
    return FoundChannel("", 1, making.SPEC.model_dump_json())


def making_uid(call: Call, namespace: str, name: str) -> str:
    """The uid of a channel that a call makes; a call that is repeated makes the same."""
    return short_id("channel", call.principal.identity, call.request_id or uuid4().hex, namespace, name)


def _taken(session: Session, namespace: str, name: str) -> tuple[bool, bool]:
    """Whether something runs under the name, and whether the namespace has as many channels as first uses make."""
    here = col(ChannelRow.namespace) == namespace
    left = session.exec(select(col(ChannelRow.uid)).where(here, col(ChannelRow.name) == name)).first()
    some = select(col(ChannelRow.uid)).where(here).limit(CHANNELS_MAX).subquery()
    return left is not None, session.exec(select(func.count()).select_from(some)).one() >= CHANNELS_MAX


async def _set_up(store: Store, query: Callable[[Session], Row | None]) -> Row | None:
    """The row, once it has its running side, or as it is when the time for that is over."""
    loop, pause = asyncio.get_running_loop(), LOOK_S
    deadline = loop.time() + SET_UP_S_MAX
    while (row := await store.read(query)) is not None and row[1] is None and loop.time() < deadline:
        await asyncio.sleep(pause)
        pause = min(2 * pause, LOOK_S_MAX)
    return row


def _agent(session: Session, namespace: str, name: str) -> tuple[str, int | None, str | None] | None:
    query = select(col(ResourceRow.uid), col(AgentRow.stopped), col(AgentRow.owner))
    joined = query.join(AgentRow, col(AgentRow.uid) == col(ResourceRow.uid), isouter=True)
    return session.exec(joined.where(_named("Agent", namespace, name))).first()


def _channel(session: Session, namespace: str, name: str) -> tuple[str, int | None, str] | None:
    query = select(col(ResourceRow.uid), col(ChannelRow.next_position), col(ResourceRow.spec))
    joined = query.join(ChannelRow, col(ChannelRow.uid) == col(ResourceRow.uid), isouter=True)
    return session.exec(joined.where(_named("Channel", namespace, name))).first()


def _named(kind: Kind, namespace: str, name: str) -> ColumnElement[bool]:
    return and_(
        col(ResourceRow.kind) == kind,
        col(ResourceRow.namespace) == namespace,
        col(ResourceRow.name) == name,
        col(ResourceRow.deleted_at).is_(None),
    )


def absent(kind: Kind, namespace: str, name: str, field: str) -> Refusal:
    """There is no such resource; the list shows which there are."""
    word = kind.lower()
    return refuse(
        "NOT_FOUND",
        f"there is no {word} {namespace}/{name}",
        field=field,
        next=[Next(operation=f"{word}s.list", arguments={"namespace": namespace}, why=f"shows the {word}s there are")],
        kind=kind,
        namespace=namespace,
        name=name,
    )


def _not_yet(kind: Kind, namespace: str, name: str) -> Refusal:
    detail = f"{kind.lower()} {namespace}/{name} is declared, and not set up yet"
    why = Next(operation=f"{kind.lower()}s.get", arguments={"namespace": namespace, "name": name}, why="shows how far")
    return refuse(
        "NOT_SET_UP", detail, next=[why], retry_after_s=RETRY_AFTER_S, kind=kind, namespace=namespace, name=name
    )
