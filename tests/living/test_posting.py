"""Delay, time to live and priority: over the surface and by an agent, into inboxes and channels."""

import asyncio
from typing import Any

import pytest
from sqlalchemy import text

from controlplane.effects import delaying
from controlplane.store import queues
from controlplane.store.unit import Unit
from schemas.calls import AskInput, ChannelReadInput, JoinInput, PublishInput, SendInput
from schemas.dead_letters import DeadLetterListInput, RedriveInput
from schemas.problem import Refusal
from tests.living import world
from tests.living.conftest import Living

pytestmark = pytest.mark.anyio


@pytest.fixture
def database_url(quick_url: str) -> str:
    """On SQLite; in a soak on both."""
    return quick_url


async def send(living: Living, data: Any, name: str = "keeper", **more: Any) -> Any:
    return await living.call("agents.send", SendInput(name=name, data=data, **more))


async def is_got(living: Living, wanted: list[Any]) -> bool:
    reply = (await living.call("agents.ask", AskInput(name="keeper", data="what?"))).reply
    return bool(reply == wanted)


async def its_time_comes(living: Living) -> None:
    """What was to wait for an hour is due now; the next look at the clock finds it."""
    assert await living.store.write(Unit().run(text("UPDATE delayed SET due_at = 1.0")))
    await living.store.write(Unit().run(text("UPDATE timer SET due_at = due_at")))  # rings the sweep


async def test_what_is_delayed_takes_its_place_when_it_is_due(living: Living) -> None:
    """In an inbox and in a channel, behind what came meanwhile; said twice it is one; it takes its position then."""
    await living.agent("keeper", "Keeper")
    await living.call("channels.join", JoinInput(name="log", agent="keeper"))
    later = PublishInput(name="log", data="late", delay_s=3600)
    published = [await living.call("channels.publish", later, request_id="r1") for _ in range(2)]
    assert [it.position for it in published] == [None, None]
    await send(living, "later", delay_s=3600, key="k")
    await living.call("channels.publish", PublishInput(name="log", data="now"))
    await living.until(lambda: is_got(living, ["now"]))
    await its_time_comes(living)
    await living.until(lambda: is_got(living, ["now", "late", "later"]))  # as it was delayed: the channel's came first
    read = await living.call("channels.read", ChannelReadInput(name="log"))
    assert [(it["data"], it["position"]) for it in read.envelopes] == [("now", "1"), ("late", "2")]


async def test_an_agent_delays_what_it_sends(living: Living) -> None:
    """By its turn, and where nobody is left when it is due it is a dead letter."""
    await living.agent("poster", "Poster")
    await living.agent("keeper", "Keeper")
    say = [["send", "keeper", {"delay_s": 3600}], ["publish", "log", {"delay_s": 3600, "priority": 3}]]
    await living.call("agents.ask", AskInput(name="poster", data=say))
    assert await living.store.read(lambda s: s.connection().execute(text("SELECT COUNT(*) FROM delayed")).scalar()) == 2
    await living.store.write(Unit().run(text("UPDATE delayed SET name = 'nobody' WHERE kind = 'Agent'")))
    await its_time_comes(living)
    letters = await living.until(lambda: dead(living, "nobody"))
    assert [it.reason for it in letters] == ["TARGET_NOT_FOUND"]

    async def arrived() -> Any:
        return (await living.call("channels.read", ChannelReadInput(name="log"))).envelopes

    assert [it["priority"] for it in await living.until(arrived)] == [3]


async def dead(living: Living, name: str) -> Any:
    return (await living.call("channels.dead_letters", DeadLetterListInput(name=name))).items


async def test_what_is_not_handled_in_time_is_given_up(living: Living) -> None:
    """Without waking anybody: from an inbox and from a queue, as EXPIRED; and it can be put back."""
    await living.agent("keeper", "Keeper")
    await world.channel(living.store, "work", mode="queue")
    stop = Unit().run(text("UPDATE agent SET stopped = 1"))
    assert await living.store.write(stop)
    await send(living, "late", ttl_s=0.01)
    await send(living, "fine", ttl_s=3600)
    for ttl_s, key in ((0.01, "k"), (3600, "k")):
        await living.call("channels.publish", PublishInput(name="work", data=ttl_s, key=key, ttl_s=ttl_s))
    letters = await living.until(lambda: dead(living, "work"))
    assert [(it.reason, it.trigger, it.envelope["data"]) for it in letters] == [("EXPIRED", "publish", 0.01)]
    await asyncio.sleep(0.02)
    assert await living.store.write(Unit().run(text("UPDATE agent SET stopped = 0")))
    await living.until(lambda: is_got(living, ["fine"]))
    assert [(it.reason, it.envelope["data"]) for it in await dead(living, "keeper")] == [("EXPIRED", "late")]
    await living.call("channels.redrive", RedriveInput(name="keeper"))
    await living.until(lambda: is_got(living, ["fine", "late"]))
    await living.call("channels.join", JoinInput(name="work", agent="keeper"))
    await living.call("channels.redrive", RedriveInput(name="work"))
    await living.until(lambda: is_got(living, ["fine", "late", 3600, 0.01]))


async def test_priority_goes_ahead_in_an_inbox_but_not_of_its_key(living: Living) -> None:
    """While the agent is stopped they gather; the most urgent key is handled first."""
    await living.agent("keeper", "Keeper")
    await living.store.write(Unit().run(text("UPDATE agent SET stopped = 1")))
    for data, key, priority in ((1, None, 0), (2, "b", 0), (3, None, 5), (4, "b", 9), (5, "a", 0)):
        await send(living, data, key=key, priority=priority)
    await living.store.write(Unit().run(text("UPDATE agent SET stopped = 0")))
    await living.until(lambda: is_got(living, [2, 4, 3, 1, 5]))


async def test_only_so_many_wait_for_their_time(living: Living, monkeypatch: pytest.MonkeyPatch) -> None:
    """BACKLOG_FULL, with a time to come back; whoever says again what waits there is not refused."""
    monkeypatch.setattr(delaying, "DELAYED_MAX", 2)
    await living.agent("keeper", "Keeper")
    given = SendInput(name="keeper", data=1, delay_s=3600)
    first, _ = [await living.call("agents.send", given, request_id=it) for it in ("r1", "r2")]
    with pytest.raises(Refusal) as refused:
        await send(living, 1, delay_s=3600)
    assert await living.call("agents.send", given, request_id="r1") == first  # it waits already
    assert (refused.value.problem.reason, refused.value.problem.retry_after_s) == ("BACKLOG_FULL", 1.0)
    await send(living, 2)


async def test_what_finds_no_room_keeps_nothing_else_from_its_time(
    living: Living, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It becomes due again later, in its order; the gate is not busy with it meanwhile."""
    monkeypatch.setattr(queues, "DUE", queues.DUE.replace(f"LIMIT {queues.DUE_MAX}", "LIMIT 3"))
    asked: list[tuple[str, str]] = []

    def no_room(_self: Any, kind: str, to: tuple[str, str]) -> bool:
        asked.append(to)
        return to[1] == "full" and not roomy

    roomy: list[bool] = []
    monkeypatch.setattr(delaying.Delaying, "_no_room", no_room)
    await living.agent("full", "Keeper")
    await living.agent("keeper", "Keeper")
    for n in range(5):
        await send(living, n, "full", delay_s=3600)
    await send(living, "other", delay_s=3600)
    await its_time_comes(living)
    await living.until(lambda: is_got(living, ["other"]))
    assert await living.store.read(
        lambda s: s.connection().execute(text("SELECT COUNT(*) FROM delayed WHERE due_at > 1.0")).scalar()
    )
    assert asked.count(("default", "full")) < 20  # a look for each block of three, and again each second
    roomy.append(True)

    async def all_got() -> bool:
        return bool((await living.call("agents.ask", AskInput(name="full", data="what?"))).reply == [0, 1, 2, 3, 4])

    await living.until(all_got)


@pytest.mark.parametrize("stopped", [True, False])
async def test_a_question_that_expires_is_answered_at_once(living: Living, stopped: bool) -> None:
    """Behind a parked turn, or of an agent that is stopped: as EXPIRED, long before its deadline; nothing is left."""
    await living.agent("slow", "Person")
    if stopped:
        await living.store.write(Unit().run(text("UPDATE agent SET stopped = 1")))
    else:
        await send(living, {"deadline_s": 60}, "slow")
        parked = text("SELECT 1 FROM turn WHERE outcome = 'parked'")
        await living.until(lambda: living.store.read(lambda s: s.connection().execute(parked).all()))
    with pytest.raises(Refusal) as refused:
        await living.call("agents.ask", AskInput(name="slow", data={}, ttl_s=0.05, timeout_s=60))
    assert refused.value.problem.reason == "EXPIRED"
    (letter,) = await dead(living, "slow")
    assert (letter.reason, letter.trigger, letter.channel) == ("EXPIRED", "message", None)
    left = text("SELECT COUNT(*) FROM inbox WHERE message_id = :it").bindparams(it=letter.message_id)
    assert await living.store.read(lambda s: s.connection().execute(left).scalar()) == 0


async def test_a_question_with_which_a_turn_has_begun_has_its_deadline_alone(living: Living) -> None:
    """Its message does not expire any more, whether its turn runs or is parked."""
    await living.agent("slow", "Slow")
    answer = await living.call("agents.ask", AskInput(name="slow", data={}, ttl_s=0.3, priority=5, timeout_s=60))
    assert answer.reply["slept"]
    assert await dead(living, "slow") == []


async def test_an_agent_hears_of_a_question_that_expired(living: Living) -> None:
    """By `ask`, `ask_all` and `request`, each with its time to live and its priority."""
    await living.agent("slow", "Person")
    await living.agent("asker", "Asker")
    await living.store.write(Unit().run(text("UPDATE agent SET stopped = 1 WHERE name = 'slow'")))
    found = await living.call("agents.ask", AskInput(name="asker", data="ask", timeout_s=60))
    assert found.reply == ["EXPIRED", "EXPIRED"]
    await send(living, "request", "asker")

    async def is_heard() -> bool:
        return bool((await living.call("agents.ask", AskInput(name="asker", data="heard?"))).reply == ["EXPIRED"])

    await living.until(is_heard)
    ranks = text("SELECT body FROM dead_letter WHERE name = 'slow'")
    bodies = await living.store.read(lambda s: [row[0] for row in s.connection().execute(ranks)])
    assert len(bodies) == 3
    assert all('"priority":4' in it for it in bodies)
