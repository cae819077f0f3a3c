"""Channels through a real gate: what is published is read, and comes to who joined."""

import time
from typing import Any

import orjson
import pytest
from sqlmodel import select

from controlplane.effects import segments
from controlplane.mesh import making
from controlplane.operations import vanishing
from controlplane.operations.living import lookup
from controlplane.store.tables import ChannelRow, EventRow, MembershipRow, ResourceRow
from controlplane.store.unit import Unit
from schemas.calls import AskInput, ChannelReadInput, JoinInput, LeaveInput, MembersInput, PublishInput
from schemas.problem import Refusal
from tests.living import world
from tests.living.conftest import Living

pytestmark = pytest.mark.anyio


async def publish(living: Living, data: Any, **about: Any) -> Any:
    return await living.call("channels.publish", PublishInput(name="log", data=data), **about)


async def got(living: Living) -> Any:
    return (await living.call("agents.ask", AskInput(name="keeper", data="what?"))).reply


async def test_what_is_published_is_read_in_order(living: Living) -> None:
    """Positions count up, the position answered is a cursor, and a key travels with the envelope."""
    await world.channel(living.store, "log")
    published = [await publish(living, n) for n in range(3)]
    assert [one.position for one in published] == ["1", "2", "3"]
    keyed = await living.call("channels.publish", PublishInput(name="log", data="k", key="disk"))
    read = await living.call("channels.read", ChannelReadInput(name="log", after=published[0].position))
    assert [(e["data"], e["position"], e["id"]) for e in read.envelopes] == [
        (1, "2", published[1].message_id),
        (2, "3", published[2].message_id),
        ("k", "4", keyed.message_id),
    ]
    assert read.envelopes[-1]["partitionkey"] == "disk"
    assert {e["subject"] for e in read.envelopes} == {"default/log"}


async def test_one_request_id_is_one_envelope(living: Living) -> None:
    """Publishing again under the same id answers the same position."""
    await world.channel(living.store, "log")
    answers = [await publish(living, "once", request_id="r1") for _ in range(2)]
    assert answers[0] == answers[1]
    assert len((await living.call("channels.read", ChannelReadInput(name="log"))).envelopes) == 1


async def test_data_against_the_channels_schema_is_refused(living: Living) -> None:
    """SCHEMA_MISMATCH below /data, in a dry run too; nothing is stored."""
    await world.channel(living.store, "log", dataschema={"type": "object", "required": ["n"]})
    for about in ({}, {"dry_run": True}):
        with pytest.raises(Refusal) as refused:
            await publish(living, {"m": 1}, **about)
        assert refused.value.problem.reason == "SCHEMA_MISMATCH"
    await publish(living, {"n": 1}, dry_run=True)
    assert (await living.call("channels.read", ChannelReadInput(name="log"))).envelopes == []


@pytest.mark.parametrize(("start", "expected"), [("now", [2]), ("beginning", [0, 1, 2])])
async def test_a_member_gets_what_is_published_from_where_it_joined(
    living: Living, start: Any, expected: list[int]
) -> None:
    """From now on, or from the beginning; once each, in order."""
    await world.channel(living.store, "log")
    await living.agent("keeper", "Keeper")
    for n in range(2):
        await publish(living, n)
    joined = await living.call("channels.join", JoinInput(name="log", agent="keeper", start=start))
    assert joined.member
    await publish(living, 2)

    async def arrived() -> bool:
        return bool((await got(living))[-1:] == [2])

    await living.until(arrived)
    assert await got(living) == expected


async def test_joining_from_the_beginning_needs_no_later_publish(living: Living) -> None:
    """What is there is brought at once."""
    await world.channel(living.store, "log")
    await living.agent("keeper", "Keeper")
    await publish(living, 0)
    await living.call("channels.join", JoinInput(name="log", agent="keeper", start="beginning"))

    async def arrived() -> bool:
        return bool(await got(living) == [0])

    await living.until(arrived, limit_s=1.5)  # before the sweep would find it


async def test_who_left_gets_nothing_more(living: Living) -> None:
    """What is published after leaving does not come; what came before stays."""
    await world.channel(living.store, "log")
    await living.agent("keeper", "Keeper")
    await living.call("channels.join", JoinInput(name="log", agent="keeper"))
    await publish(living, 0)

    async def arrived() -> bool:
        return bool(await got(living) == [0])

    await living.until(arrived)
    await living.call("channels.leave", LeaveInput(name="log", agent="keeper"))
    await publish(living, 1)
    assert await got(living) == [0]


async def test_a_waiting_reader_hears_a_publish(living: Living) -> None:
    """The gate's word after the commit rings the bell that readers wait for."""
    import asyncio

    await world.channel(living.store, "log")
    reading = asyncio.ensure_future(living.call("channels.read", ChannelReadInput(name="log", wait_s=20)))
    await asyncio.sleep(0.05)
    await publish(living, "now")
    read = await asyncio.wait_for(reading, 0.9)  # less than it takes to look again unasked
    assert [e["data"] for e in read.envelopes] == ["now"]


async def test_a_channel_is_made_by_its_first_use(living: Living) -> None:
    """Publishing and joining make it, once, as an ephemeral one; a dry run says so, and reading makes none."""
    with pytest.raises(Refusal) as refused:
        await living.call("channels.read", ChannelReadInput(name="log"))
    assert (refused.value.problem.reason, refused.value.problem.next[0].operation) == ("NOT_FOUND", "channels.list")
    preview = await publish(living, 0, dry_run=True)
    assert preview.would[0] == "channel default/log would be made"
    await living.agent("keeper", "Keeper")
    published = [await publish(living, n, request_id="r1" if n < 2 else None) for n in (1, 1, 2)]
    assert [it.position for it in published] == ["1", "1", "2"]
    joined = await living.call("channels.join", JoinInput(name="log", agent="keeper", after="1"))
    assert (joined.member, joined.position) == (True, "1")
    await living.until(lambda: as_got(living, [2]))
    await living.call("channels.join", JoinInput(name="other", agent="keeper"))
    made = await living.store.read(lambda session: list(session.exec(select(ResourceRow.name, ResourceRow.spec))))
    specs = {name: orjson.loads(spec) for name, spec in made if name != "keeper"}
    assert {name: spec["ephemeral"] for name, spec in specs.items()} == {"log": True, "other": True}
    told = await living.store.read(
        lambda session: list(session.exec(select(EventRow.name).where(EventRow.type == "resource.created")))
    )
    assert sorted(told) == ["log", "other"]


async def as_got(living: Living, wanted: list[Any]) -> bool:
    return bool(await got(living) == wanted)


async def test_who_was_a_member_when_has_one_answer(living: Living) -> None:
    """Whoever comes or leaves later; one who came and left between two messages was a member of none."""
    await world.channel(living.store, "log")
    for name in ("one", "two"):
        await living.agent(name, "Keeper")
    await living.call("channels.join", JoinInput(name="log", agent="one"))
    await publish(living, 1)
    await living.call("channels.join", JoinInput(name="log", agent="two", start="beginning"))
    await publish(living, 2)
    await living.call("channels.leave", LeaveInput(name="log", agent="one"))
    await publish(living, 3)
    for operation, given in (("channels.join", JoinInput), ("channels.leave", LeaveInput)):
        await living.call(operation, given(name="log", agent="one"))

    async def members(**given: Any) -> list[str]:
        found = await living.call("channels.members", MembersInput(name="log", **given))
        return [it.agent for it in found.items]

    assert [await members(accepted_at=str(n)) for n in (1, 2, 3)] == [["one"], ["one", "two"], ["two"]]
    assert await members() == ["two"]
    with pytest.raises(Refusal) as refused:
        await members(accepted_at="9")
    assert (refused.value.problem.reason, refused.value.problem.field) == ("INVALID_CURSOR", "/accepted_at")
    rows = await living.store.read(lambda session: list(session.exec(select(MembershipRow.joined_position))))
    assert sorted(rows) == [1, 2]


async def test_a_namespace_has_only_so_many_channels_by_first_use(
    living: Living, monkeypatch: pytest.MonkeyPatch
) -> None:
    """QUOTA, to wait for: an operator is told so, and an agent's turn fails with it; those that are there go on."""
    for room in (lookup, segments, making):
        monkeypatch.setattr(room, "CHANNELS_MAX", 1)
    await living.agent("poster", "Poster")
    assert (await living.call("agents.ask", AskInput(name="poster", data=[["publish", "log", {}]]))).answered
    with pytest.raises(Refusal) as refused:
        await living.call("channels.publish", PublishInput(name="other", data=1))
    found = refused.value.problem
    assert (found.reason, found.recovery, found.metadata["max"]) == ("QUOTA", "wait", 1)
    with pytest.raises(Refusal) as failed:
        await living.call("agents.ask", AskInput(name="poster", data=[["publish", "other", {}]]))
    assert "QUOTA" in str(failed.value.problem.model_dump())
    assert (await publish(living, 1)).position == "2"


async def test_a_cursor_outlives_its_channel(living: Living) -> None:
    """One that vanished and is made anew goes on behind it: a reader of before gets all of it, or a gap that names what
    it did not get, and so does a member; a name that none had before begins at the beginning."""
    first = [await publish(living, n) for n in range(3)]
    assert [it.position for it in first] == ["1", "2", "3"]
    await living.store.write(Unit().raw("DELETE FROM channel_message", []))
    assert await vanishing.sweep(living.store, time.time() + 3600) == 1
    assert await living.store.read(lambda session: session.exec(select(ChannelRow.uid)).all()) == []
    for n in range(5):
        await publish(living, n)
    for after, gap in (("3", None), ("1", {"from": "2", "to": "3"})):
        read = await living.call("channels.read", ChannelReadInput(name="log", after=after))
        wanted: list[Any] = [0, 1, 2, 3, 4] if gap is None else [gap, 0, 1, 2, 3, 4]
        assert [it["data"] for it in read.envelopes] == wanted
    await living.agent("keeper", "Keeper")
    await living.call("channels.join", JoinInput(name="log", agent="keeper", after="1"))
    await living.until(lambda: as_got(living, [{"from": "2", "to": "3"}, 0, 1, 2, 3, 4]))
    assert (await living.call("channels.read", ChannelReadInput(name="log"))).envelopes[0]["data"] == 0
    other = await living.call("channels.publish", PublishInput(name="other", data=1))
    assert other.position == "1"
