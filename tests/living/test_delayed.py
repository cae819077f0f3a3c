"""What waits for its time is listed, and cancelled: whichever comes first, its time or that, is what is answered."""

from typing import Any

import pytest
from sqlalchemy import text
from sqlmodel import select

from controlplane.store import queues
from controlplane.store.tables import EventRow
from controlplane.store.unit import Unit
from schemas.calls import ChannelReadInput, PublishInput, SendInput
from schemas.delayed import CancelDelayedInput, DelayedListInput
from schemas.problem import Refusal
from tests.living import world
from tests.living.conftest import Living
from tests.living.test_posting import is_got, its_time_comes

pytestmark = pytest.mark.anyio


async def cancel(living: Living, kind: Any, name: str, message_id: str, **more: Any) -> Any:
    given = CancelDelayedInput(kind=kind, name=name, message_id=message_id)
    return await living.call("channels.cancel_delayed", given, **more)


async def waiting(living: Living, **given: Any) -> Any:
    return await living.call("channels.delayed", DelayedListInput(**given))


async def test_delayed_messages_are_listed_and_cancelled(living: Living) -> None:
    """Of inboxes and channels; a cancelled one is told, goes nowhere, and is not taken in again under its id."""
    await living.agent("keeper", "Keeper")
    await world.channel(living.store, "log")
    later = SendInput(name="keeper", data="later", delay_s=3600, key="k", priority=3, ttl_s=60)
    sent = await living.call("agents.send", later, request_id="r1")
    published = await living.call("channels.publish", PublishInput(name="log", data="late", delay_s=3600))
    page = await waiting(living, limit=1)
    (first,) = page.items
    assert (first.message_id, first.kind, first.name, first.key, first.priority) == (
        sent.message_id, "Agent", "keeper", "k", 3,
    )  # fmt: skip
    assert (first.envelope["data"], (first.expires_at - first.due_at).total_seconds()) == ("later", 60)
    (second,) = (await waiting(living, page=page.next_page)).items
    assert (second.kind, second.message_id) == ("Channel", published.message_id)
    assert (await waiting(living, namespace="elsewhere")).items == []
    assert [it.kind for it in (await waiting(living, namespace="default", kind="Channel", name="log")).items] == [
        "Channel"
    ]
    would = await cancel(living, "Agent", "keeper", sent.message_id, dry_run=True)
    assert len(would.would) == 1
    for _ in range(2):
        assert (await cancel(living, "Agent", "keeper", sent.message_id)).outcome == "cancelled"
    assert [it.kind for it in (await waiting(living)).items] == ["Channel"]
    assert (await living.call("agents.send", later, request_id="r1")).message_id == sent.message_id
    await its_time_comes(living)

    async def arrived() -> Any:
        return (await living.call("channels.read", ChannelReadInput(name="log"))).envelopes

    assert [it["data"] for it in await living.until(arrived)] == ["late"]
    assert await is_got(living, [])
    told = await living.store.read(
        lambda session: session.exec(select(EventRow.name).where(EventRow.type == "message.cancelled")).all()
    )
    assert told == ["keeper"]


async def test_what_was_due_first_is_in_its_place(living: Living) -> None:
    """In an inbox or handled, in a channel, or given up: and what nobody knows is NOT_FOUND."""
    await living.agent("keeper", "Keeper")
    await world.channel(living.store, "log")
    sent = await living.call("agents.send", SendInput(name="keeper", data="later", delay_s=3600))
    lost = await living.call("agents.send", SendInput(name="keeper", data="lost", delay_s=3600))
    published = await living.call("channels.publish", PublishInput(name="log", data="late", delay_s=3600))
    assert await living.store.write(
        Unit().run(text("UPDATE delayed SET name = 'nobody' WHERE message_id = :it").bindparams(it=lost.message_id))
    )
    await its_time_comes(living)

    async def none_waits() -> bool:
        return not (await waiting(living)).items

    await living.until(none_waits)
    for kind, name, message_id in (
        ("Agent", "keeper", sent.message_id),
        ("Agent", "nobody", lost.message_id),
        ("Channel", "log", published.message_id),
    ):
        assert (await cancel(living, kind, name, message_id)).outcome == "due"
    with pytest.raises(Refusal) as refused:
        await cancel(living, "Channel", "log", "msg_unknown")
    assert refused.value.problem.reason == "NOT_FOUND"


async def test_a_message_is_cancelled_or_due_and_never_both(living: Living) -> None:
    """The unit that gives it its place finds it cancelled, and is void; that which cancels finds it gone."""
    await living.agent("keeper", "Keeper")
    for first in ("cancelled", "due"):
        sent = await living.call("agents.send", SendInput(name="keeper", data=first, delay_s=3600))
        row = await living.store.read(
            lambda s, it=sent.message_id: (
                s.connection().execute(text("SELECT id FROM delayed WHERE message_id = :it"), {"it": it}).scalar()
            )
        )
        place = Unit().raw(queues.NO_LONGER_DELAYED, [row], 1)
        if first == "due":
            assert await living.store.write(place)
            with pytest.raises(Refusal, match="waits to go"):  # the test gave it no place
                await cancel(living, "Agent", "keeper", sent.message_id)
        else:
            assert (await cancel(living, "Agent", "keeper", sent.message_id)).outcome == "cancelled"
            assert not await living.store.write(place)
