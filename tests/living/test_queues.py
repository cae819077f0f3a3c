"""Queues through a real gate: each message to one member, in order of its key; and how they are full, and empty."""

import asyncio
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from sqlmodel import select

from controlplane.store.retention import MESSAGES
from controlplane.store.tables import AgentRow, EventRow, InboxRow, QueuedRow
from controlplane.store.unit import Unit
from schemas.calls import (
    AskInput,
    ChannelReadInput,
    JoinInput,
    LeaveInput,
    NamedAct,
    PublishInput,
)
from schemas.dead_letters import DeadLetterListInput, RedriveInput
from schemas.problem import Refusal
from schemas.question import AnswerInput, QuestionListInput
from tests.living import world
from tests.living.conftest import Living

pytestmark = pytest.mark.anyio


@pytest.fixture
def database_url(quick_url: str) -> str:
    """On SQLite; in a soak on both: `tests/mesh` has queues on both in every run."""
    return quick_url


async def publish(living: Living, data: Any, key: str | None = None, **more: Any) -> Any:
    return await living.call("channels.publish", PublishInput(name="work", data=data, key=key, **more))


async def got(living: Living, name: str) -> Any:
    return (await living.call("agents.ask", AskInput(name=name, data="what?"))).reply


async def join(living: Living, *names: str, cls: str = "Keeper") -> None:
    for name in names:
        await living.agent(name, cls)
        await living.call("channels.join", JoinInput(name="work", agent=name))


async def empty(living: Living) -> bool:
    left = await living.store.read(
        lambda session: [*session.exec(select(QueuedRow.position)), *session.exec(select(InboxRow.position))]
    )
    return not left


async def holder(living: Living, data: Any) -> str:
    """Whose inbox a message is in."""
    query = text("SELECT a.name FROM inbox i JOIN agent a ON a.uid = i.agent WHERE i.body LIKE :it")
    like = f'%"data":"{data}"%'
    rows = await living.until(
        lambda: living.store.read(lambda session: session.connection().execute(query, {"it": like}).all())
    )
    return str(rows[0][0])


async def test_each_message_goes_to_one_member_in_order_of_its_key(living: Living) -> None:
    """Nothing twice, nothing lost, and of one key never the later before the earlier, whoever handles them."""
    await world.channel(living.store, "work", mode="queue")
    await join(living, "one", "two", "three")
    for n in range(24):
        await publish(living, [n % 4, n], f"k{n % 4}")
    await living.until(lambda: empty(living))
    shares = [await got(living, name) for name in ("one", "two", "three")]
    assert sorted(n for share in shares for _, n in share) == list(range(24))
    assert all(shares)
    for share in shares:
        for key in range(4):
            of_key = [n for k, n in share if k == key]
            assert of_key == sorted(of_key)


async def test_a_key_sticks_to_whoever_has_not_finished_with_it(living: Living) -> None:
    """A parked member keeps the key, and what else it may hold of it; other keys go on; parking is no attempt."""
    await world.channel(living.store, "work", mode="queue", in_flight_max=2)
    await join(living, "waiter", cls="Person")
    await publish(living, {"deadline_s": 60}, "a")
    parked = "SELECT 1 FROM turn WHERE outcome = 'parked'"
    await living.until(lambda: living.store.read(lambda s: s.connection().execute(text(parked)).all()))
    await join(living, "keeper")
    for n in range(3):
        await publish(living, n, "a")
    await publish(living, "b", "b")
    await living.until(lambda: is_got(living, "keeper", ["b"]))
    assert await living.store.read(lambda s: s.connection().execute(text("SELECT COUNT(*) FROM queued")).scalar()) == 2
    query = text("SELECT agent, attempts FROM inbox ORDER BY seq")
    assert (
        await living.store.read(lambda s: [tuple(row) for row in s.connection().execute(query)])
        == [("agt_waiter", 0)] * 2
    )
    await living.call("channels.leave", LeaveInput(name="work", agent="waiter"))
    assert await living.store.read(lambda s: s.connection().execute(text("SELECT COUNT(*) FROM queued")).scalar()) == 3
    question = (await living.call("questions.list", QuestionListInput())).items[0]
    await living.call("questions.answer", AnswerInput(question_id=question.question_id, answer="yes"))
    await living.until(lambda: is_got(living, "keeper", ["b", 0, 1, 2]))


async def is_got(living: Living, name: str, wanted: list[Any]) -> bool:
    return bool(await got(living, name) == wanted)


async def test_a_member_that_leaves_gives_back_what_it_had_not_begun(living: Living) -> None:
    """In order; what it had begun it goes on with."""
    await world.channel(living.store, "work", mode="queue", in_flight_max=3)
    await join(living, "waiter", cls="Person")
    for data, key in (({"deadline_s": 60}, "a"), (1, "k"), (2, "k"), (3, "k")):
        await publish(living, data, key)
    held = "SELECT 1 FROM inbox WHERE channel IS NOT NULL"
    await living.until(lambda: counted(living, held, 3))
    await living.until(lambda: counted(living, "SELECT 1 FROM turn WHERE outcome = 'parked'", 1))
    await living.call("channels.leave", LeaveInput(name="work", agent="waiter"))
    assert await counted(living, held, 1)
    await join(living, "two")
    await living.until(lambda: is_got(living, "two", [1, 2, 3]))


async def test_a_key_is_free_when_whoever_holds_it_is_gone(living: Living) -> None:
    """Though it had left, and nothing says any more that it was ever a member."""
    await world.channel(living.store, "work", mode="queue")
    await publish(living, {"deadline_s": 60}, "k")
    await publish(living, 2, "k")
    await join(living, "waiter", cls="Person")
    await living.until(lambda: counted(living, "SELECT 1 FROM turn WHERE outcome = 'parked'", 1))
    await living.call("channels.leave", LeaveInput(name="work", agent="waiter"))
    assert await counted(living, "SELECT 1 FROM membership", 0)
    await join(living, "two")
    await living.gate.control("remove", "agt_waiter", {})
    await living.until(lambda: is_got(living, "two", [2]))


async def counted(living: Living, query: str, many: int) -> bool:
    rows = await living.store.read(lambda session: session.connection().execute(text(query)).all())
    return len(rows) == many


async def test_a_stopped_member_gets_nothing(living: Living) -> None:
    """The message waits for others; when it is woken, the member is one again."""
    await world.channel(living.store, "work", mode="queue")
    await join(living, "one")
    await living.call("agents.stop", NamedAct(name="one"))
    await publish(living, 0)
    await living.gate.control("deliver", "chn_work", {})
    assert await counted(living, "SELECT 1 FROM queued", 1)
    await living.call("agents.wake", NamedAct(name="one"))
    await living.gate.control("deliver", "chn_work", {})
    await living.until(lambda: is_got(living, "one", [0]))


async def test_a_full_queue_makes_the_publisher_wait(living: Living) -> None:
    """BACKLOG_FULL with a time, and nothing is dropped; what was taken in before is not refused again."""
    await world.channel(living.store, "work", mode="queue", backlog_messages_max=3)
    for n in range(3):
        await living.call("channels.publish", PublishInput(name="work", data=n), request_id=f"r{n}")
    with pytest.raises(Refusal) as refused:
        await publish(living, 3)
    found = refused.value.problem
    assert (found.reason, found.recovery, found.retry_after_s) == ("BACKLOG_FULL", "wait", 1.0)
    again = await living.call("channels.publish", PublishInput(name="work", data=2), request_id="r2")
    assert again.position == "3"
    await join(living, "one")
    await living.until(lambda: is_got(living, "one", [0, 1, 2]))
    await publish(living, 3)
    await living.until(lambda: is_got(living, "one", [0, 1, 2, 3]))


async def test_what_a_member_gives_up_goes_back_to_the_queue(living: Living) -> None:
    """After the queue's own number of attempts; the letter names both, and a redrive gives it to whoever is there."""
    await world.channel(living.store, "work", mode="queue", attempts_max=2)
    await join(living, "broken", cls="Broken")
    await publish(living, "x", "k")
    letters = await living.until(lambda: dead(living))
    assert [(it.name, it.channel, it.trigger, it.reason) for it in letters] == [
        ("broken", "work", "queue", "HANDLER_ERROR")
    ]
    attempts = await living.store.read(lambda s: s.connection().execute(text("SELECT attempts FROM turn")).all())
    assert [tuple(it) for it in attempts] == [(2,)]
    await living.call("channels.leave", LeaveInput(name="work", agent="broken"))
    await join(living, "keeper")
    done = await living.call("channels.redrive", RedriveInput(name="work"))
    assert len(done.redriven) == 1
    await living.until(lambda: is_got(living, "keeper", ["x"]))


async def dead(living: Living) -> Any:
    return (await living.call("channels.dead_letters", DeadLetterListInput(name="work"))).items


async def test_a_member_that_lags_too_far_gets_a_gap(living: Living) -> None:
    """Retention waits for it until then; what it drops is told to the member and in the log, and it goes on behind."""
    await world.channel(living.store, "work", backlog_messages_max=2)
    for n in range(1, 7):
        await publish(living, n)
    await living.agent("one", "Keeper")
    joined = "INSERT INTO subscription (channel, agent, position, since) VALUES ('chn_work', 'agt_one', 1, 1.0)"
    later = time.time() + 3600
    await living.store.write(Unit().run(text(joined)).raw(MESSAGES, [500, later, later, 500]))
    told = await living.until(
        lambda: living.store.read(lambda s: list(s.exec(select(EventRow.data).where(EventRow.type == "channel.gap"))))
    )
    assert told == ['{"agent":"one","from":"2","to":"4"}']
    await living.until(lambda: is_got(living, "one", [{"from": "2", "to": "4"}, 5, 6]))
    read = await living.call("channels.read", ChannelReadInput(name="work", after="1"))
    assert [(it["type"], it["position"]) for it in read.envelopes][:2] == [
        ("steward.gap", "4"),
        ("steward.message", "5"),
    ]


async def test_the_most_urgent_key_goes_first(living: Living) -> None:
    """Priority orders keys, and never within one: an urgent message takes along what stands before it."""
    await world.channel(living.store, "work", mode="queue")
    for data, key, priority in ((1, "a", 0), (2, "b", 0), (3, None, 5), (4, "b", 9), (5, "a", 0)):
        await publish(living, data, key, priority=priority)
    await join(living, "one")
    await living.until(lambda: is_got(living, "one", [2, 4, 3, 1, 5]))
    assert await living.store.read(lambda s: s.exec(select(AgentRow.name)).all()) == ["one"]


async def test_a_turn_that_is_not_on_record_loses_what_its_agent_gave_back(living: Living) -> None:
    """It comes to park when its message is another's already: nothing of it is kept, and the message is done once."""
    await world.channel(living.store, "work", mode="queue")
    await join(living, "slow", cls="Stander")
    flag = Path(tempfile.mkdtemp(prefix="stl-")) / "go"
    await publish(living, str(flag), "k")
    await living.until(lambda: counted(living, "SELECT 1 FROM inbox WHERE channel IS NOT NULL", 1))
    await living.until(lambda: asyncio.to_thread(flag.with_suffix(".here").exists))
    await living.call("channels.leave", LeaveInput(name="work", agent="slow"))
    assert await counted(living, "SELECT 1 FROM queued", 1)
    flag.touch()
    await join(living, "keeper")
    await living.until(lambda: is_got(living, "keeper", [str(flag)]))
    await living.call("agents.suspend", NamedAct(name="slow"))
    assert await counted(living, "SELECT 1 FROM turn WHERE finished_at IS NULL", 0)
    assert await counted(living, "SELECT 1 FROM turn WHERE agent = 'agt_slow' AND message_id LIKE 'msg_%'", 0)
    shutil.rmtree(flag.parent)


async def test_a_key_is_as_urgent_as_what_stands_behind_it_also_where_it_is_held(living: Living) -> None:
    """The urgent one takes along what stands before it under its key, before less urgent keys."""
    await world.channel(living.store, "work", mode="queue", in_flight_max=2)
    await join(living, "waiter", cls="Person")
    await publish(living, {"deadline_s": 60}, "a")
    parked = "SELECT 1 FROM turn WHERE outcome = 'parked'"
    await living.until(lambda: living.store.read(lambda s: s.connection().execute(text(parked)).all()))
    await living.store.write(Unit().run(text("UPDATE agent SET stopped = 1")))
    await publish(living, "calm", "c", priority=3)
    await publish(living, "first", "a")
    await publish(living, "second", "a", priority=9)
    await living.store.write(Unit().run(text("UPDATE agent SET stopped = 0")))
    query = text("SELECT position FROM inbox WHERE channel IS NOT NULL ORDER BY seq")
    await living.until(lambda: living.store.read(lambda s: len(s.connection().execute(query).all()) == 2))
    assert await living.store.read(lambda s: [row[0] for row in s.connection().execute(query)]) == [1, 3]
