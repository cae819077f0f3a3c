"""Channels as operators read and join them, on the records alone."""

import asyncio
from typing import Any, cast

import pytest
from sqlalchemy import insert
from sqlmodel import select

from controlplane.feedback.doorbell import LocalDoorbell
from controlplane.operations.living import channels, members
from controlplane.store.direct import DirectWriter
from controlplane.store.store import Store
from controlplane.store.tables import ChannelMessageRow, ChannelRow, EventRow
from controlplane.store.unit import Unit
from schemas.calls import ChannelReadInput, JoinInput, LeaveInput
from schemas.ports import GatePort
from schemas.problem import Refusal
from tests.living import world

pytestmark = pytest.mark.anyio


def bound(store: Store, writer: DirectWriter, doorbell: LocalDoorbell | None = None) -> Any:
    """The handlers, with a writer that is no gate: nothing here publishes or delivers."""
    gate = cast(GatePort, writer)
    return channels.handlers(store, gate, doorbell or LocalDoorbell()) | members.handlers(store, gate)


async def read(handlers: Any, **given: Any) -> Any:
    return await handlers["channels.read"](world.call("channels.read"), ChannelReadInput(name="log", **given))


async def test_reading_goes_on_where_it_ended(store: Store, writer: DirectWriter) -> None:
    """Envelopes come oldest first with their positions, each once, and the cursor is exclusive."""
    await world.channel(store, "log", messages=5)
    handlers = bound(store, writer)
    first = await read(handlers, limit=3)
    second = await read(handlers, after=first.cursor)
    third = await read(handlers, after=second.cursor)
    assert [e["position"] for e in first.envelopes + second.envelopes] == ["1", "2", "3", "4", "5"]
    assert (third.envelopes, third.cursor) == ([], second.cursor)


async def test_what_retention_dropped_is_told_to_who_reads_on(store: Store, writer: DirectWriter) -> None:
    """A reader behind the oldest message kept gets a gap; one that starts gets what is there."""
    await world.channel(store, "log", messages=5, dropped=3)
    handlers = bound(store, writer)
    behind = await read(handlers, after="1")
    assert [e.get("type") for e in behind.envelopes] == ["steward.gap", None, None]
    assert behind.envelopes[0]["data"] == {"from": "2", "to": "3"}
    assert len((await read(handlers)).envelopes) == 2


async def test_a_channel_emptied_by_retention_tells_the_gap_alone(quick_store: Store) -> None:
    """The gap moves the cursor to the end."""
    await world.channel(quick_store, "log", messages=5, dropped=5)
    answer = await read(channels.handlers(quick_store, cast(GatePort, None), LocalDoorbell()), after="2")
    assert [e["data"] for e in answer.envelopes] == [{"from": "3", "to": "5"}]
    assert answer.cursor == "5"


async def test_an_answer_is_bounded_in_bytes(quick_store: Store) -> None:
    """Large envelopes come in several answers, at least one in each."""
    uid = await world.channel(quick_store, "log", messages=3, dropped=3)
    for position in (1, 2, 3):
        body = '{"data": "' + "x" * 3_000_000 + '"}'
        values = {"position": position, "message_id": f"m{position}", "body": body, "accepted_at": world.NOW}
        await world.add(quick_store, ChannelMessageRow, channel=uid, **values)
    handlers = channels.handlers(quick_store, cast(GatePort, None), LocalDoorbell())
    cursor, sizes = None, []
    for _ in range(3):
        answer = await read(handlers, after=cursor)
        sizes.append(len(answer.envelopes))
        cursor = answer.cursor
    assert sizes == [1, 1, 1]


@pytest.mark.parametrize("after", ["6", "-1", "x", "1.0", "\uff19", "9" * 30, " 1"])
async def test_a_cursor_that_was_never_answered_is_refused(quick_store: Store, after: str) -> None:
    """INVALID_CURSOR at /after, also beyond the end."""
    await world.channel(quick_store, "log", messages=5)
    with pytest.raises(Refusal) as refused:
        await read(channels.handlers(quick_store, cast(GatePort, None), LocalDoorbell()), after=after)
    assert (refused.value.problem.reason, refused.value.problem.field) == ("INVALID_CURSOR", "/after")


async def test_a_waiting_reader_is_woken_by_the_bell(store: Store, writer: DirectWriter) -> None:
    """With wait_s, the answer comes when there is something to read; else empty, when the time is over."""
    uid = await world.channel(store, "log")
    doorbell = LocalDoorbell()
    handlers = bound(store, writer, doorbell)
    assert (await read(handlers, wait_s=0.05)).envelopes == []
    waiting = asyncio.ensure_future(read(handlers, wait_s=20))
    await asyncio.sleep(0.05)
    values = {"position": 1, "message_id": "m1", "body": '{"data": 1}', "accepted_at": world.NOW}
    await world.add(store, ChannelMessageRow, channel=uid, **values)
    doorbell.ring()
    answer = await asyncio.wait_for(waiting, 5)
    assert [e["data"] for e in answer.envelopes] == [1]


async def test_joining_and_leaving_repeat_safely(store: Store, writer: DirectWriter) -> None:
    """The second time changes nothing and tells nobody; each change is one event."""
    await world.channel(store, "log", messages=4)
    await world.agent(store, "echo")
    handlers = bound(store, writer)
    join, leave = JoinInput(name="log", agent="echo"), LeaveInput(name="log", agent="echo")
    answers = [await handlers["channels.join"](world.call("channels.join"), join) for _ in range(2)]
    assert [(a.member, a.position) for a in answers] == [(True, "4"), (True, "4")]
    answers = [await handlers["channels.leave"](world.call("channels.leave"), leave) for _ in range(2)]
    assert [(a.member, a.position) for a in answers] == [(False, None), (False, None)]
    told = await store.read(lambda session: list(session.exec(select(EventRow.type, EventRow.name))))
    assert [tuple(row) for row in told] == [("channel.joined", "log"), ("channel.left", "log")]


async def test_a_dry_run_of_joining_changes_nothing(quick_store: Store) -> None:
    """It says what would be done; nothing when there is nothing to do."""
    await world.channel(quick_store, "log")
    await world.agent(quick_store, "echo")
    handlers = members.handlers(quick_store, cast(GatePort, None))
    dry = world.call("channels.join", dry_run=True)
    preview = await handlers["channels.join"](dry, JoinInput(name="log", agent="echo", dry_run=True))
    assert preview.would == ["echo would read log from now"]
    preview = await handlers["channels.leave"](dry, LeaveInput(name="log", agent="echo", dry_run=True))
    assert preview.would == []


async def test_what_a_spec_watches_is_not_left_by_hand(store: Store, writer: DirectWriter) -> None:
    """OWNED, with the agent to look at."""
    await world.channel(store, "log")
    await world.agent(store, "echo", watches=["log"])
    handlers = bound(store, writer)
    await handlers["channels.join"](world.call("channels.join"), JoinInput(name="log", agent="echo"))
    with pytest.raises(Refusal) as refused:
        await handlers["channels.leave"](world.call("channels.leave"), LeaveInput(name="log", agent="echo"))
    assert refused.value.problem.reason == "OWNED"
    assert refused.value.problem.next[0].arguments == {"namespace": "default", "name": "echo"}


async def test_names_that_are_not_there_are_told_apart(quick_store: Store) -> None:
    """The agent at /agent; what is declared and not set up in time is NOT_SET_UP."""
    await world.channel(quick_store, "log")
    await world.declared(quick_store, "Agent", "newborn")
    await world.declared(quick_store, "Channel", "fresh")
    join = members.handlers(quick_store, cast(GatePort, None))["channels.join"]
    await world.agent(quick_store, "echo")
    found = []
    for name, agent in (("log", "nobody"), ("log", "newborn"), ("fresh", "echo")):
        with pytest.raises(Refusal) as refused:
            await join(world.call("channels.join"), JoinInput(name=name, agent=agent))
        found.append((refused.value.problem.reason, refused.value.problem.field))
    assert found == [("NOT_FOUND", "/agent"), ("NOT_SET_UP", None), ("NOT_SET_UP", None)]


async def test_who_waits_at_a_channel_that_is_deleted_is_told(quick_store: Store) -> None:
    """The reader gets NOT_FOUND at the next look, not a failure of the plane."""
    uid = await world.channel(quick_store, "log")
    doorbell = LocalDoorbell()
    reading = asyncio.ensure_future(
        read(channels.handlers(quick_store, cast(GatePort, None), doorbell), after="0", wait_s=60)
    )
    await asyncio.sleep(0)
    removal = Unit().raw("DELETE FROM channel WHERE uid = ?", [uid]).raw("DELETE FROM resource WHERE uid = ?", [uid])
    assert await quick_store.write(removal)
    doorbell.ring()
    with pytest.raises(Refusal) as refused:
        await asyncio.wait_for(reading, 30)
    assert (refused.value.problem.reason, refused.value.problem.field) == ("NOT_FOUND", "/name")


async def test_what_is_about_to_be_set_up_is_waited_for(quick_store: Store) -> None:
    """A call that comes between the commit and the setting up goes through once that is done."""
    await world.declared(quick_store, "Channel", "log")
    reading = asyncio.ensure_future(read(channels.handlers(quick_store, cast(GatePort, None), LocalDoorbell())))
    await asyncio.sleep(0)
    row = {"uid": "new_log", "namespace": "default", "name": "log", "next_position": 1, "retention_s": 60.0}
    assert await quick_store.write(Unit().run(insert(ChannelRow).values(**row)))
    assert (await asyncio.wait_for(reading, 30)).envelopes == []
