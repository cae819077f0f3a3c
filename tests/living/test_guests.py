"""A channel of another namespace, over operations: joined, read, published to and left by an invitation."""

import time
from typing import Any

import pytest
from sqlmodel import select

from controlplane.store.tables import SubscriptionRow
from controlplane.store.unit import Unit
from schemas.calls import AskInput, ChannelReadInput, JoinInput, LeaveInput, MembersInput, PublishInput
from schemas.invitation import InvitationCreateInput, InvitationInput
from schemas.principal import Call, Principal
from schemas.problem import Refusal
from tests.living import world
from tests.living.conftest import Living

pytestmark = pytest.mark.anyio
OURS = {"namespace": "guests", "name": "log", "channel_namespace": "default"}
GUEST, BOB = Principal("op", "operator", ("guests",)), Principal("bob", "agent", ("guests",), agent="bob")


async def call(living: Living, operation: str, given: Any, principal: Principal = GUEST) -> Any:
    return await living.handlers[operation](Call(principal, operation, time.time()), given)


async def refused(living: Living, operation: str, given: Any, principal: Principal = GUEST) -> str:
    with pytest.raises(Refusal) as found:
        await call(living, operation, given, principal)
    assert found.value.problem.next[0].operation == "invitations.list"
    return found.value.problem.reason


async def invite(living: Living, *effects: Any, agent: str | None = None) -> str:
    given = InvitationCreateInput(
        name="log", kind="Channel", to_namespace="guests", to_agent=agent, effects=list(effects) or None
    )
    return str((await living.call("invitations.create", given)).invitation_id)


async def test_an_operator_acts_by_what_is_opened_to_its_namespace(living: Living) -> None:
    """Each by its own effect; what is opened to one agent is not opened to operators, nor to another agent."""
    await world.channel(living.store, "log")
    publish, read = PublishInput(**OURS, data="hello"), ChannelReadInput(**OURS)
    for operation, given in (("channels.publish", publish), ("channels.read", read)):
        assert await refused(living, operation, given) == "NOT_FOUND"
    await invite(living, "publish", agent="bob")
    assert await refused(living, "channels.publish", publish) == "NOT_FOUND"
    assert (await call(living, "channels.publish", publish, BOB)).position == "1"
    assert await refused(living, "channels.read", read, BOB) == "NOT_FOUND"
    both = await invite(living)
    assert (await call(living, "channels.publish", publish)).position == "2"
    assert [it["data"] for it in (await call(living, "channels.read", read)).envelopes] == ["hello", "hello"]
    later = PublishInput(**OURS, data="later", delay_s=60)
    with pytest.raises(Refusal, match="can not be delayed"):
        await call(living, "channels.publish", later)
    await living.call("invitations.revoke", InvitationInput(invitation_id=both))
    assert await refused(living, "channels.publish", publish) == "NOT_FOUND"
    assert await refused(living, "channels.read", read) == "NOT_FOUND"


async def test_an_agent_joins_and_leaves_by_operations(living: Living) -> None:
    """The host sees it as a member by its address; a way that ends meanwhile leads nowhere."""
    await living.agent(
        "keeper",
        "Keeper",
    )
    await living.store.write(Unit().raw("UPDATE agent SET namespace = 'guests' WHERE name = 'keeper'", []))
    await living.store.write(Unit().raw("UPDATE resource SET namespace = 'guests' WHERE name = 'keeper'", []))
    await world.channel(living.store, "log")
    await living.call("channels.publish", PublishInput(name="log", data="first"))
    join, leave = JoinInput(**OURS, agent="keeper", start="beginning"), LeaveInput(**OURS, agent="keeper")
    assert await refused(living, "channels.join", join) == "NOT_FOUND"
    assert await refused(living, "channels.leave", leave) == "NOT_FOUND"
    first = await invite(living, "read")
    found = await call(living, "channels.join", join)
    assert (found.member, found.channel_namespace, found.position) == (True, "default", "0")
    listed = await living.call("channels.members", MembersInput(name="log"))
    assert [it.agent for it in listed.items] == ["guests/keeper"]

    async def has_got() -> bool:
        asked = AskInput(namespace="guests", name="keeper", data="what?")
        return bool((await call(living, "agents.ask", asked)).reply == ["first"])

    await living.until(has_got)
    assert not (await call(living, "channels.leave", leave)).member
    assert not (await call(living, "channels.leave", leave)).member
    await call(living, "channels.join", join)
    await living.call("invitations.revoke", InvitationInput(invitation_id=first))

    async def is_gone() -> bool:
        return not await living.store.read(lambda session: session.exec(select(SubscriptionRow.agent)).all())

    await living.until(is_gone)
    assert await refused(living, "channels.leave", leave) == "NOT_FOUND"
