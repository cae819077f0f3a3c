"""Acting on living agents, through a real gate to a real host, on both databases."""

import asyncio
import time
from typing import Any

import pytest
from sqlmodel import select

from controlplane.store.tables import ChainRow, EventRow, InboxRow, TurnRow
from schemas.calls import AskInput, Named, NamedAct, SendInput
from schemas.problem import Refusal
from schemas.records import TurnInput
from tests.living import world
from tests.living.conftest import INBOX_MAX, Living

pytestmark = pytest.mark.anyio


@pytest.fixture
def database_url(quick_url: str) -> str:
    """On SQLite; in a soak on both: `tests/gate` has turns on both in every run."""
    return quick_url


def condition(agent: Any, kind: str) -> Any:
    return next(it for it in agent.status.conditions if it.type == kind)


async def test_an_ask_is_answered_by_what_the_handler_returns(living: Living) -> None:
    """The reply is the return value, whatever JSON it is."""
    await living.agent("echo", "Echo")
    for data in (None, 1, "text", [1, {"a": None}], {"deep": {"er": "ünïcode"}}):
        answer = await living.call("agents.ask", AskInput(name="echo", data=data))
        assert (answer.answered, answer.reply) == (True, data)


async def test_an_ask_does_not_wait_longer_than_it_must(living: Living) -> None:
    """The bell is heard: a warm agent answers far within the time at which the record is read again."""
    await living.agent("echo", "Echo")
    await living.call("agents.ask", AskInput(name="echo", data=0))
    took = []
    for n in range(10):
        began = time.monotonic()
        await living.call("agents.ask", AskInput(name="echo", data=n))
        took.append(time.monotonic() - began)
    assert sorted(took)[5] < 0.3


async def test_the_envelope_says_who_asked(living: Living) -> None:
    """An operator is named as one, an agent by its address."""
    await living.agent("slow", "Slow")
    ops = await living.call("agents.ask", AskInput(name="slow"), principal=world.operator("ops"))
    assert ops.reply == {"slept": True, "source": "/operators/ops", "onbehalfof": "ops"}
    bot = world.Principal("bot", "agent", ("default",), agent="echo")
    answer = await living.call("agents.ask", AskInput(name="slow"), principal=bot)
    assert answer.reply["source"] == "/default/agents/echo"


async def test_an_ask_brings_a_budget_and_says_what_it_is_for(living: Living) -> None:
    """Both are recorded under the message's id, for whoever asked; a message without them opens nothing."""
    await living.agent("echo", "Echo")
    await living.call("agents.ask", AskInput(name="echo", data=1))
    given = AskInput(name="echo", data=2, budget={"money": 0.5}, intent="to see")
    answer = await living.call("agents.ask", given, principal=world.operator("ops"))
    (chain,) = await living.store.read(lambda session: session.exec(select(ChainRow)).all())
    assert (chain.chain_id, chain.parent, chain.limits) == (answer.message_id, None, '{"money":0.5}')
    assert (chain.opened_by, chain.onbehalfof, chain.intent) == ("ops", "ops", "to see")


async def test_an_ask_that_ran_out_of_time_is_picked_up_by_its_request_id(living: Living) -> None:
    """A timeout is no error; the same request id waits for the same message, which is handled once."""
    uid = await living.agent("slow", "Slow")
    given = AskInput(name="slow", timeout_s=0.2)
    first = await living.call("agents.ask", given, request_id="r1")
    assert (first.answered, first.reply) == (False, None)
    second = await living.call("agents.ask", given.model_copy(update={"timeout_s": 20}), request_id="r1")
    assert (second.answered, second.message_id) == (True, first.message_id)
    found = await living.store.read(lambda s: s.exec(select(TurnRow.turn_id).where(TurnRow.agent == uid)).all())
    assert len(found) == 1


async def test_a_turn_that_failed_is_told_to_who_asked(living: Living) -> None:
    """TURN_FAILED carries the turn's Problem, and its next step shows the turn."""
    await living.agent("broken", "Broken")
    with pytest.raises(Refusal) as refused:
        await living.call("agents.ask", AskInput(name="broken"), request_id="r1")
    problem = refused.value.problem
    assert problem.reason == "TURN_FAILED"
    assert problem.metadata["problem"]["reason"] == "HANDLER_ERROR"
    assert "it can not do that" in problem.detail
    shown = problem.next[0]
    turn = await living.call(shown.operation, TurnInput(**shown.arguments))
    assert (turn.outcome, turn.problem["reason"]) == ("failed", "HANDLER_ERROR")
    with pytest.raises(Refusal) as again:
        await living.call("agents.ask", AskInput(name="broken"), request_id="r1")
    assert again.value.problem.metadata["message_id"] == problem.metadata["message_id"]
    inside = await living.call("agents.inspect", Named(name="broken"))
    assert [letter.message_id for letter in inside.dead_letters] == [problem.metadata["message_id"]]


async def test_one_request_id_is_one_message(living: Living) -> None:
    """Sending again under the same id puts nothing into the inbox, also after it was handled."""
    await living.agent("keeper", "Keeper")
    given = SendInput(name="keeper", data="once")
    sent = [await living.call("agents.send", given, request_id="r1") for _ in range(3)]
    answer = await living.call("agents.ask", AskInput(name="keeper", data="what?"))
    sent.append(await living.call("agents.send", given, request_id="r1"))
    again = await living.call("agents.ask", AskInput(name="keeper", data="what?"))
    assert len({one.message_id for one in sent}) == 1
    assert answer.reply == again.reply == ["once"]


async def test_order_is_kept(living: Living) -> None:
    """An inbox is handled in the order in which it was acknowledged."""
    await living.agent("keeper", "Keeper")
    for n in range(20):
        await living.call("agents.send", SendInput(name="keeper", data=n))
    answer = await living.call("agents.ask", AskInput(name="keeper", data="what?"))
    assert answer.reply == list(range(20))


async def test_a_suspended_agent_is_a_row_and_is_woken_by_a_message(living: Living) -> None:
    """Suspending lets go of the host and is told; nothing keeps it awake; a message finds it with its state."""
    await living.agent("keeper", "Keeper")
    await living.call("agents.send", SendInput(name="keeper", data=1))
    await living.call("agents.ask", AskInput(name="keeper", data="what?"))
    awake = await living.call("agents.inspect", Named(name="keeper"))
    assert awake.host == "host_living"
    assert awake.why_awake is not None
    agent = await living.call("agents.suspend", NamedAct(name="keeper"), principal=world.operator("ops"))
    assert agent.metadata.name == "keeper"

    async def suspended() -> bool:
        return (await living.call("agents.inspect", Named(name="keeper"))).host is None

    await living.until(suspended)
    asleep = await living.call("agents.inspect", Named(name="keeper"))
    assert (asleep.why_awake, asleep.state, asleep.epoch) == (None, {"got": [1]}, awake.epoch)
    answer = await living.call("agents.ask", AskInput(name="keeper", data="what?"))
    assert answer.reply == [1]
    events = await living.store.read(lambda s: s.exec(select(EventRow.type, EventRow.principal)).all())
    assert ("agent.suspended", "ops") in [tuple(event) for event in events]


async def test_a_stopped_agent_keeps_its_messages_until_it_is_woken(living: Living) -> None:
    """It answers nothing while stopped, everything after; the condition says so each time."""
    await living.agent("keeper", "Keeper")
    stopped = await living.call("agents.stop", NamedAct(name="keeper"))
    assert condition(stopped, "Stopped").status == "true"
    await living.call("agents.send", SendInput(name="keeper", data=1))
    patience = AskInput(name="keeper", data="what?", timeout_s=0.5)
    assert (await living.call("agents.ask", patience, request_id="r1")).answered is False
    assert (await living.call("agents.inspect", Named(name="keeper"))).inbox == 2
    woken = await living.call("agents.wake", NamedAct(name="keeper"))
    assert condition(woken, "Stopped").status == "false"
    answer = await living.call("agents.ask", patience.model_copy(update={"timeout_s": 10}), request_id="r1")
    assert answer.reply == [1]


async def test_a_parked_agent_says_what_it_waits_on(living: Living) -> None:
    """Inspecting shows the await, since when and until when, and the turn that is open."""
    await living.agent("slow", "Slow")
    await living.call("agents.send", SendInput(name="slow"))

    async def parked() -> Any:
        seen = await living.call("agents.inspect", Named(name="slow"))
        return seen if seen.waiting_on else None

    seen = await living.until(parked)
    (wait,) = seen.waiting_on
    assert (wait.kind, wait.until > wait.since) == ("sleep", True)
    assert seen.running is not None


@pytest.mark.parametrize("operation", ["agents.send", "agents.ask", "agents.suspend", "agents.wake", "agents.stop"])
async def test_a_dry_run_does_nothing_and_refuses_what_would_be_refused(living: Living, operation: str) -> None:
    """Every check runs; nothing is sent, no record moves."""
    uid = await living.agent("echo", "Echo")
    given = {"agents.send": SendInput, "agents.ask": AskInput}.get(operation, NamedAct)
    preview = await living.call(operation, given(name="echo", dry_run=True), dry_run=True)
    assert preview.would
    assert preview.operation == operation
    with pytest.raises(Refusal) as refused:
        await living.call(operation, given(name="nobody", dry_run=True), dry_run=True)
    assert refused.value.problem.reason == "NOT_FOUND"
    seen = await living.call("agents.inspect", Named(name="echo"))
    assert (seen.uid, seen.inbox, seen.turns, seen.epoch) == (uid, 0, 0, 0)


async def test_a_full_inbox_is_refused_alike_in_earnest_and_in_a_dry_run(living: Living) -> None:
    """BACKLOG_FULL, with a time to wait; nothing that was acknowledged is lost."""
    uid = await living.agent("keeper", "Keeper")
    await living.call("agents.stop", NamedAct(name="keeper"))
    reasons: list[str] = []
    for n in range(INBOX_MAX + 5):
        try:
            await living.call("agents.send", SendInput(name="keeper", data=n))
        except Refusal as refusal:
            reasons.append(refusal.problem.reason)
    with pytest.raises(Refusal) as dry:
        await living.call("agents.send", SendInput(name="keeper", dry_run=True), dry_run=True)
    waiting = await living.store.read(lambda s: s.exec(select(InboxRow.seq).where(InboxRow.agent == uid)).all())
    assert len(waiting) == INBOX_MAX
    assert [*reasons, dry.value.problem.reason] == ["BACKLOG_FULL"] * 6


async def test_what_is_in_a_full_inbox_may_be_said_again(living: Living) -> None:
    """The same question is waited for again, and the same message is known, however full it is; it is there once."""
    uid = await living.agent("keeper", "Keeper")
    await living.call("agents.stop", NamedAct(name="keeper"))
    question = AskInput(name="keeper", data="what?", timeout_s=0.05)
    asked = await living.call("agents.ask", question, request_id="r-ask")
    sent = await living.call("agents.send", SendInput(name="keeper", data=0), request_id="r-send")
    for n in range(INBOX_MAX - 2):
        await living.call("agents.send", SendInput(name="keeper", data=n))
    again = await living.call("agents.ask", question, request_id="r-ask")
    assert (again.message_id, again.answered) == (asked.message_id, False)
    assert await living.call("agents.send", SendInput(name="keeper", data=0), request_id="r-send") == sent
    with pytest.raises(Refusal, match="which is the most"):
        await living.call("agents.send", SendInput(name="keeper", data=0), request_id="r-other")
    waiting = await living.store.read(lambda s: s.exec(select(InboxRow.seq).where(InboxRow.agent == uid)).all())
    assert len(waiting) == INBOX_MAX


@pytest.mark.parametrize(
    ("data", "reason"),
    [(2**64, "INVALID_VALUE"), ("\ud800", "INVALID_VALUE"), ("x" * 1_048_577, "TOO_LARGE")],
)
async def test_data_that_can_not_be_carried_is_refused(living: Living, data: Any, reason: str) -> None:
    """At /data, before anything is sent."""
    await living.agent("echo", "Echo")
    with pytest.raises(Refusal) as refused:
        await living.call("agents.send", SendInput(name="echo", data=data))
    assert (refused.value.problem.reason, refused.value.problem.field) == (reason, "/data")


async def test_many_ask_at_once(living: Living) -> None:
    """Each gets its own answer."""
    await living.agent("echo", "Echo")
    answers = await asyncio.gather(
        *(living.call("agents.ask", AskInput(name="echo", data=n)) for n in range(INBOX_MAX // 2))
    )
    assert [answer.reply for answer in answers] == list(range(INBOX_MAX // 2))
