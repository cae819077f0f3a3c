"""What was given up is looked at, and put back: once, in order, as a message of its own. On both databases."""

from typing import Any

import orjson
import pytest
from sqlmodel import select

from controlplane.store.tables import DeadLetterRow, EventRow
from schemas.calls import AskInput, ChannelReadInput, JoinInput, Named, PublishInput, SendInput
from schemas.dead_letters import DeadLetterListInput, RedriveInput
from tests.living import world
from tests.living.conftest import Living

pytestmark = pytest.mark.anyio


async def letters(living: Living, count: int, **filters: Any) -> list[Any]:
    """So many dead letters, once they are there."""

    async def there() -> Any:
        found = await living.call("channels.dead_letters", DeadLetterListInput(**filters))
        return [found.items] if len(found.items) == count else None

    return list((await living.until(there))[0])


async def given_up(living: Living, number: int, name: str, **row: Any) -> None:
    """A letter as the gate leaves it."""
    body = {
        "specversion": "1.0", "id": f"msg_{number}", "source": "/operators/ann", "type": "steward.message",
        "subject": f"default/{name}", "time": "2026-01-01T00:00:00Z", "data": number, "replyto": "msg_x",
    }  # fmt: skip
    whole = {"message_id": f"msg_{number}", "reason": "TARGET_NOT_FOUND", "detail": "it was not there", "at": world.NOW}
    await world.add(
        living.store, DeadLetterRow, namespace="default", name=name, body=orjson.dumps(body).decode(), **whole | row
    )


async def redriven(living: Living, *, dry_run: bool = False, **given: Any) -> Any:
    about = {"principal": world.operator("ann"), "dry_run": dry_run}
    return await living.call("channels.redrive", RedriveInput(**given), **about)


async def test_a_failed_message_says_which_way_it_came_and_fails_anew(living: Living) -> None:
    """By a channel and by the inbox; put back it is another message with another turn, which may fail again."""
    await living.agent("broken", "Broken")
    await world.channel(living.store, "news")
    await living.call("channels.join", JoinInput(name="news", agent="broken"))
    await living.call("channels.publish", PublishInput(name="news", data={"n": 1}))
    await letters(living, 1)
    await living.call("agents.send", SendInput(name="broken", data={"n": 2}))
    first, second = await letters(living, 2)
    assert [(it.channel, it.name, it.trigger, it.envelope["data"]) for it in (first, second)] == [
        ("news", "broken", "message", {"n": 1}), (None, "broken", "message", {"n": 2})
    ]  # fmt: skip
    assert [it.dead_letter_id for it in await letters(living, 1, name="news")] == [first.dead_letter_id]
    assert await letters(living, 0, reason="DEADLINE") == []
    would = await redriven(living, name="news", dry_run=True)
    assert would.would == [f"dead letter {first.dead_letter_id} would be put back to default/broken"]
    done = (await redriven(living, name="news")).redriven
    second_again, first_again = await letters(living, 2)
    assert second_again == second
    assert first_again.message_id == done[0].message_id != first.message_id
    assert first_again.envelope["causationid"] == first.message_id
    assert first_again.turn_id != first.turn_id


async def test_what_found_nobody_arrives_in_its_order_and_once(living: Living) -> None:
    """Once its target is there; who asked is not answered any more. Who is not there, or only starts, is told."""
    for number in range(3):
        await given_up(living, number, "keeper")
    await given_up(living, 3, "nobody")
    await given_up(living, 4, "keeper", trigger="start")
    await living.agent("keeper", "Keeper")
    all_of_them = await letters(living, 5)
    part = await redriven(living, limit=2)
    assert (len(part.redriven), part.left, part.remaining) == (2, [], 3)
    rest = await redriven(living)
    assert ([it.name for it in rest.redriven], rest.remaining) == (["keeper"], 0)
    assert [(it.dead_letter_id, it.reason) for it in rest.left] == [
        (all_of_them[3].dead_letter_id, "TARGET_NOT_FOUND"), (all_of_them[4].dead_letter_id, "NOT_REPEATABLE")
    ]  # fmt: skip

    async def got() -> Any:
        state = (await living.call("agents.inspect", Named(name="keeper"))).state or {}
        return state if len(state.get("got", [])) == 3 else None

    assert (await living.until(got))["got"] == [0, 1, 2]
    again = await redriven(living, dead_letter_ids=[all_of_them[0].dead_letter_id, "no-number"])
    assert [(it.reason, it.dead_letter_id) for it in again.left] == [
        ("NOT_FOUND", all_of_them[0].dead_letter_id), ("NOT_FOUND", "no-number")
    ]  # fmt: skip
    query = select(EventRow.principal).where(EventRow.type == "message.redriven")
    assert await living.store.read(lambda session: list(session.exec(query))) == ["ann"] * 3


async def test_what_found_no_channel_is_published(living: Living) -> None:
    """It takes the next position, under its new id; pages go on where one ended."""
    await world.channel(living.store, "late")
    for number in range(2):
        await given_up(living, number, "late", trigger="publish", channel="late")
    first = await living.call("channels.dead_letters", DeadLetterListInput(limit=1))
    after = await living.call("channels.dead_letters", DeadLetterListInput(limit=1, page=first.next_page))
    assert ([it.message_id for it in (*first.items, *after.items)], after.next_page) == (["msg_0", "msg_1"], None)
    assert len((await redriven(living, name="late")).redriven) == 2
    read = await living.call("channels.read", ChannelReadInput(name="late"))
    assert [(it["data"], it["causationid"], it["position"]) for it in read.envelopes] == [
        (0, "msg_0", "1"), (1, "msg_1", "2")
    ]  # fmt: skip
    assert await letters(living, 0) == []


async def test_what_was_for_another_namespace_goes_to_nobody_here(living: Living) -> None:
    """Its agent or channel was not open to the sender; one of the same name beside the sender is a stranger."""
    await living.agent("poster", "Poster")
    await living.agent("bob", "Keeper")
    await world.channel(living.store, "log")
    say = [["send", "guests/bob", {}], ["publish", "guests/log", {}], ["send", "late", {}]]
    await living.call("agents.ask", AskInput(name="poster", data=say))
    agent, channel, local = await letters(living, 3)
    assert [(it.namespace, it.name, it.envelope["subject"]) for it in (agent, channel, local)] == [
        ("default", "bob", "guests/bob"), ("default", "log", "guests/log"), ("default", "late", "default/late")
    ]  # fmt: skip
    await living.agent("late", "Keeper")
    would = (await redriven(living, dry_run=True)).would
    assert ["would stay" in it for it in would] == [True, True, False]
    answer = await redriven(living)
    assert [it.name for it in answer.redriven] == ["late"]
    assert [(it.dead_letter_id, it.reason) for it in answer.left] == [
        (agent.dead_letter_id, "TARGET_NOT_FOUND"), (channel.dead_letter_id, "TARGET_NOT_FOUND")
    ]  # fmt: skip
    assert "guests/bob" in answer.left[0].detail
    assert (await living.call("channels.read", ChannelReadInput(name="log"))).envelopes == []
    assert (await living.call("agents.ask", AskInput(name="bob", data="what?"))).reply == []
    assert [it.dead_letter_id for it in await letters(living, 2)] == [agent.dead_letter_id, channel.dead_letter_id]
