"""An invitation opens an agent or a channel to agents of another namespace, as each message is sent. Both databases."""

import time
from typing import Any

import orjson
import pytest
from sqlalchemy import insert

from controlplane.operations.living import invitations
from controlplane.store.tables import ResourceRow
from controlplane.store.unit import Unit
from schemas.invitation import InvitationCreateInput, InvitationInput, InvitationListInput
from schemas.principal import Call, Principal
from schemas.problem import Refusal
from tests.gate.running import RunningGate, running

pytestmark = pytest.mark.anyio
HOST, GUEST = Principal("host", "operator", ("default",)), Principal("guest", "operator", ("guests",))
SOURCE = """
from ray_runtime import Agent, Refusal


class Echo(Agent):
    async def on_message(self, turn, envelope):
        return {"said": envelope.data, "by": envelope.source}


class Frail(Agent):
    async def on_message(self, turn, envelope):
        raise ValueError("the inside")


class Guest(Agent):
    async def on_message(self, turn, envelope):
        verb, to = envelope.data
        if verb == "find":
            return [it.address for it in await turn.find(name="echo")]
        if verb == "find and ask":
            return [(await turn.ask(it.address, 1)).data for it in await turn.find(name="echo")]
        if verb == "publish":
            return turn.publish(to, 1)
        if verb == "send":
            return turn.send(to, 1)
        if verb == "later":
            return turn.send(to, 1, delay_s=60)
        try:
            return (await turn.ask(to, 1)).data
        except Refusal as refusal:
            return refusal.problem.model_dump(mode="json") if verb == "why" else refusal.problem.reason
"""


async def call(gate: RunningGate, operation: str, given: Any, principal: Principal = HOST, now: float = 0) -> Any:
    return await invitations.handlers(gate.store)[operation](Call(principal, operation, now or time.time()), given)


async def dead(gate: RunningGate, count: int) -> None:
    await gate.until("SELECT COUNT(*) FROM dead_letter WHERE reason = 'TARGET_NOT_FOUND'", lambda it: it[0][0] == count)


async def test_an_invitation_opens_one_agent_until_it_is_revoked(quick_url: str) -> None:
    """Whom it names, for what it names: before, besides and afterwards there is nobody, in the same words."""
    async with running(quick_url, hosts=2) as gate:
        code = await gate.code(SOURCE)
        for name in ("echo", "echo-b"):
            await gate.agent(name, code, "Echo")
        for name in ("ann", "bob"):
            await gate.agent(name, code, "Guest", namespace="guests")

        async def says(name: str, verb: str, to: str, number: int) -> Any:
            return await asked(gate, name, [verb, to], f"m{number}")

        assert await says("ann", "ask", "default/echo", 1) == "TARGET_NOT_FOUND"
        given = InvitationCreateInput(name="echo", to_namespace="guests", to_agent="ann", effects=["ask"])
        made = await call(gate, "invitations.create", given)
        assert await says("ann", "ask", "default/echo", 2) == {"said": 1, "by": "/guests/agents/ann"}
        assert await says("ann", "find", "", 3) == ["default/echo"]
        assert await says("ann", "find and ask", "", 11) == [{"said": 1, "by": "/guests/agents/ann"}]
        assert await says("bob", "find", "", 4) == []
        assert await says("bob", "ask", "default/echo", 5) == "TARGET_NOT_FOUND"
        assert await says("ann", "ask", "default/echo-b", 6) == "TARGET_NOT_FOUND"
        await says("ann", "send", "default/echo", 7)
        await dead(gate, 1)
        refused = await says("ann", "later", "default/echo", 10)  # it would outlive its invitation
        assert (refused["reason"], refused["field"]) == ("INVALID_VALUE", "/delay_s")
        listed = await call(gate, "invitations.list", InvitationListInput(), GUEST)
        assert [it.invitation_id for it in listed.items] == [made.invitation_id]
        with pytest.raises(Refusal, match="there is no invitation"):  # who is invited does not revoke
            await call(gate, "invitations.revoke", InvitationInput(invitation_id=made.invitation_id), GUEST)
        await call(gate, "invitations.revoke", InvitationInput(invitation_id=made.invitation_id))
        assert await says("ann", "ask", "default/echo", 8) == "TARGET_NOT_FOUND"
        assert await says("ann", "find", "", 9) == []


async def test_a_failure_is_told_to_another_namespace_without_its_inside(quick_url: str) -> None:
    """Who asked from elsewhere hears the reason alone; who is of the same namespace hears what was raised."""
    async with running(quick_url, hosts=2, turn_attempts_max=1) as gate:
        code = await gate.code(SOURCE)
        await gate.agent("echo", code, "Frail")
        await gate.agent("own", code, "Guest")
        await gate.agent("ann", code, "Guest", namespace="guests")
        await call(gate, "invitations.create", InvitationCreateInput(name="echo", to_namespace="guests"))
        abroad = await asked(gate, "ann", ["why", "default/echo"], "m1")
        assert (abroad["reason"], abroad["detail"]) == ("HANDLER_ERROR", "the turn of default/echo failed")
        assert "inside" not in str(abroad)
        assert abroad["metadata"] == {}
        await gate.send("own", ["why", "echo"], "m2", time.time() + 60)
        at_home = (await gate.until("SELECT result FROM awaiting WHERE await_id = 'm2' AND resolved_at > 0", bool))[0][
            0
        ]
        assert "the inside" in at_home
        assert "traceback" in at_home


async def test_a_channel_is_opened_too_and_time_ends_it(quick_url: str) -> None:
    """What is published by it is in the channel; one that is over opens nothing, nor one of what was deleted since."""
    async with running(quick_url) as gate:
        code = await gate.code(SOURCE)
        await gate.agent("ann", code, "Guest", namespace="guests")
        await gate.channel("news")
        await declared(gate, "Channel", "news")
        given = InvitationCreateInput(name="news", kind="Channel", to_namespace="guests", expires_in_s=60)
        await call(gate, "invitations.create", given, now=time.time() - 120)
        await asked(gate, "ann", ["publish", "default/news"], "m1")
        await dead(gate, 1)
        await call(gate, "invitations.create", given)
        await asked(gate, "ann", ["publish", "default/news"], "m2")
        assert len(await gate.rows("SELECT position FROM channel_message")) == 1
        await gate.store.write(Unit().raw("UPDATE resource SET deleted_at = 1.0 WHERE uid = 'channel_news'", [], 1))
        await asked(gate, "ann", ["publish", "default/news"], "m3")
        await dead(gate, 2)
        wrong = InvitationCreateInput(name="news", kind="Channel", to_namespace="guests", effects=["ask"])
        with pytest.raises(Refusal, match="not to ask"):
            await call(gate, "invitations.create", wrong)
        with pytest.raises(Refusal, match="there is no channel"):
            await call(gate, "invitations.create", given)


async def asked(gate: RunningGate, name: str, data: Any, message_id: str) -> Any:
    await gate.send(name, data, message_id, time.time() + 60, namespace="guests")
    rows = await gate.until(
        f"SELECT outcome, result FROM awaiting WHERE await_id = '{message_id}'", lambda it: it and it[0][0] is not None
    )
    return orjson.loads(rows[0][1])


async def declared(gate: RunningGate, kind: str, name: str) -> None:
    row = {"kind": kind, "namespace": "default", "name": name, "uid": f"{kind.lower()}_{name}", "labels": "{}"}
    row |= {"spec": '{"dataschema": null}', "revision": 1, "generation": 1, "created_at": 1.0, "updated_at": 1.0}
    assert await gate.store.write(Unit().run(insert(ResourceRow).values(row), 1))
