"""An invitation opens a channel to agents of another namespace, as members and as publishers, while it stands."""

import time
from typing import Any

import pytest

from controlplane.operations.living import dead_letters, invitations
from controlplane.store.unit import Unit
from schemas.dead_letters import DeadLetterListInput, RedriveInput
from schemas.invitation import InvitationCreateInput, InvitationInput
from schemas.posting import Placed
from schemas.principal import Call, Principal
from tests.gate.running import RunningGate, running
from tests.gate.test_invitations import HOST, asked, declared

pytestmark = pytest.mark.anyio
GUEST = Principal("guest", "operator", ("guests",))
SOURCE = """
from pydantic import BaseModel
from ray_runtime import Agent, Refusal


class Kept(BaseModel):
    got: list = []


class Visitor(Agent):
    state: Kept

    async def on_message(self, turn, envelope):
        match envelope.data:
            case "join":
                return turn.join("default/news")
            case "leave":
                return turn.leave("default/news")
            case "what?":
                return self.state.got
            case "publish":
                return turn.publish("default/news", "from ann")
            case "wait":
                return await turn.sleep(3600)
            case "fail":
                raise ValueError("it can not")
        self.state.got.append(envelope.data)
"""


async def published(gate: RunningGate, data: str, message_id: str, key: str | None = None) -> None:
    body = (
        f'{{"specversion":"1.0","id":"{message_id}","source":"/operators/test","type":"steward.message",'
        f'"subject":"default/news","time":"2026-01-01T00:00:00Z","data":"{data}"}}'
    )
    await gate.client.publish_channel("default", "news", message_id, body.encode(), Placed(key))


async def invited(gate: RunningGate, *effects: Any, agent: str | None = "ann") -> str:
    given = InvitationCreateInput(
        name="news", kind="Channel", to_namespace="guests", to_agent=agent, effects=list(effects) or None
    )
    call = Call(HOST, "invitations.create", time.time())
    return str((await invitations.handlers(gate.store)["invitations.create"](call, given)).invitation_id)  # type: ignore[attr-defined]


async def revoked(gate: RunningGate, invitation: str) -> None:
    call = Call(HOST, "invitations.revoke", time.time())
    await invitations.handlers(gate.store)["invitations.revoke"](call, InvitationInput(invitation_id=invitation))


async def got(gate: RunningGate, count: int, mark: str) -> list[Any]:
    """What the guest has, once it is so many."""
    await gate.until("SELECT COUNT(*) FROM turn WHERE finished_at IS NOT NULL", bool)
    for n in range(200):
        found = await asked(gate, "ann", "what?", f"{mark}-{n}")
        if len(found) >= count:
            return list(found)
    raise AssertionError(found)


async def members(gate: RunningGate, count: int) -> None:
    await gate.until("SELECT agent FROM subscription", lambda rows: len(rows) == count)


async def begun(gate: RunningGate, **running_side: Any) -> str:
    code = await gate.code(SOURCE)
    await gate.agent("ann", code, "Visitor", namespace="guests")
    await gate.channel("news", **running_side)
    await declared(gate, "Channel", "news")
    return code


async def test_a_guest_reads_a_channel_until_its_invitation_is_revoked(quick_url: str) -> None:
    """Not before, nor for what another invitation names; afterwards nothing comes, and both namespaces are told."""
    async with running(quick_url) as gate:
        await begun(gate)
        await asked(gate, "ann", "join", "m1")  # nobody is there, for all that ann can see
        await invited(gate, "publish")
        await asked(gate, "ann", "join", "m2")
        assert await gate.rows("SELECT 1 FROM subscription") == []
        invitation = await invited(gate, "read")
        await published(gate, "before", "c1")
        await asked(gate, "ann", "join", "m3")
        await published(gate, "one", "c2")
        assert await got(gate, 1, "g1") == ["one"]
        assert await gate.rows("SELECT name, joined_position FROM membership") == [("guests/ann", 2)]
        await revoked(gate, invitation)
        await published(gate, "two", "c3")
        await members(gate, 0)
        await published(gate, "three", "c4")
        await asked(gate, "ann", "join", "m4")
        assert await gate.rows("SELECT 1 FROM subscription") == []
        assert await got(gate, 1, "g2") == ["one"]
        told = await gate.rows(
            "SELECT type, namespace, name FROM event WHERE type IN ('channel.joined', 'channel.left',"
            " 'invitation.ended') ORDER BY cursor"
        )
        assert told == [
            ("channel.joined", "default", "news"), ("channel.left", "default", "news"),
            ("invitation.ended", "guests", "ann"),
        ]  # fmt: skip


async def test_what_was_on_its_way_when_the_invitation_ended_does_not_come(quick_url: str) -> None:
    """It is judged in the unit that delivers; by time as by revocation, also where nobody was told of that."""
    async with running(quick_url) as gate:
        await begun(gate)
        await invited(gate, "read", agent=None)
        await asked(gate, "ann", "join", "m1")
        over = Unit().raw("UPDATE invitation SET expires_at = 1.0", [], 1)
        over.raw(
            "INSERT INTO channel_message (channel, position, message_id, body, accepted_at)"
            " VALUES ('channel_news', 1, 'c1', '{\"id\":\"c1\"}', 1.0)",
            [],
        )
        over.raw("UPDATE channel SET next_position = 2", [], 1)
        assert await gate.store.write(over)
        await members(gate, 0)
        assert await got(gate, 0, "g") == []
        rows = await gate.rows("SELECT 1 FROM inbox WHERE message_id = 'c1'")
        assert rows == []


async def test_who_is_invited_to_both_publishes_leaves_and_comes_again(quick_url: str) -> None:
    """A membership lasts as long as the invitation that it was last joined by."""
    async with running(quick_url) as gate:
        await begun(gate)
        first = await invited(gate)
        await asked(gate, "ann", "join", "m1")
        await asked(gate, "ann", "publish", "m2")
        assert await got(gate, 1, "g1") == ["from ann"]
        await asked(gate, "ann", "leave", "m3")
        await members(gate, 0)
        await published(gate, "missed", "c1")
        await asked(gate, "ann", "join", "m4")
        await gate.store.write(Unit().raw("UPDATE invitation SET expires_at = expires_at - 60", []))
        second = await invited(gate, "read")
        await asked(gate, "ann", "join", "m5")
        await revoked(gate, first)
        await asked(gate, "ann", "publish", "m6")  # that one opened it
        await gate.until("SELECT 1 FROM dead_letter WHERE reason = 'TARGET_NOT_FOUND'", lambda rows: len(rows) == 1)
        await published(gate, "two", "c2")
        assert await got(gate, 2, "g2") == ["from ann", "two"]
        await revoked(gate, second)
        await members(gate, 0)


async def test_a_guest_of_a_queue_gives_back_what_it_had_not_begun(quick_url: str) -> None:
    """Its work goes to others when its invitation ends; what it gave up is put back where it came from."""
    async with running(quick_url, hosts=2) as gate:
        code = await begun(gate, mode="queue", in_flight_max=3, attempts_max=1)
        invitation = await invited(gate, "read")
        await asked(gate, "ann", "join", "m1")
        await published(gate, "fail", "c1")
        rows = await gate.until("SELECT namespace, name, channel, reason, detail, turn_id FROM dead_letter", bool)
        why = ("HANDLER_ERROR", "a guest, guests/ann, gave it up", None)  # no text of its own is read there
        assert rows == [("default", "news", "news", *why)]
        listing = DeadLetterListInput(namespace="guests")
        call = Call(GUEST, "channels.dead_letters", time.time())
        assert (await dead_letters.handlers(gate.store)["channels.dead_letters"](call, listing)).items == []  # type: ignore[attr-defined]
        await published(gate, "wait", "c2", "k")
        await gate.until("SELECT 1 FROM turn WHERE outcome = 'parked'", bool)
        await published(gate, "work", "c3", "k")
        await gate.until("SELECT agent FROM inbox WHERE message_id = 'c3'", lambda rows: rows == [("agent_ann",)])
        await revoked(gate, invitation)
        await members(gate, 0)
        assert await gate.rows("SELECT position FROM queued") == [(3,)]
        await gate.agent("own", code, "Visitor")
        await gate.store.write(
            Unit().raw("INSERT INTO subscription (channel, agent, position, since) VALUES (?, ?, 0, 1.0)",
                       ["channel_news", "agent_own"])
        )  # fmt: skip
        await gate.store.write(Unit().raw("UPDATE inbox SET key = NULL WHERE message_id = 'c2'", []))
        await gate.store.write(Unit().raw("UPDATE queued SET ready = 1", []))
        await gate.until("SELECT 1 FROM turn WHERE agent = 'agent_own' AND message_id = 'c3'", bool)
        redrive = RedriveInput(name="news")
        call = Call(HOST, "channels.redrive", time.time())
        answer = await dead_letters.handlers(gate.store)["channels.redrive"](call, redrive)
        assert len(answer.redriven) == 1  # type: ignore[attr-defined]
        await gate.until("SELECT 1 FROM turn WHERE agent = 'agent_own' AND outcome = 'failed'", bool)
