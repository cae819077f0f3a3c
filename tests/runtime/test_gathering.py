"""Several promises at once: what a handler may gather, what it hears, and that a replay hears the same."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ray_runtime import Agent, Envelope, Refusal, Turn
from ray_runtime.testing import run_turn
from schemas.problem import Problem

DENIED = Problem(type="urn:x", title="x", status=403, detail="no", reason="NOT_GRANTED", recovery="escalate")


def agent(handler: Any) -> type[Agent]:
    """An agent whose `on_message` is the function."""
    return type("Made", (Agent,), {"on_message": handler})


async def _both(self: Agent, turn: Turn, envelope: Envelope) -> Any:
    asks = [turn.ask(name, 1) for name in envelope.data]
    *answers, _ = await turn.gather(*asks, turn.sleep(5))
    turn.send("other", "after")
    return [it.data for it in answers], turn.now().isoformat()


def test_results_come_in_the_order_of_the_promises() -> None:
    """One segment holds the members and the gathering; what follows goes on behind it."""
    ran = run_turn(agent(_both), ["a", "b"], answers={"default/a": "A", "default/b": "B"})
    assert ran.reply[0] == ["A", "B"]
    assert [kind for kind, _ in ran.did] == ["ask", "ask", "sleep", "gather", "send"]
    assert {it["group"] for _, it in ran.did[:3]} == {3}
    assert ran.did[3][1] == {"members": 3, "needs": 3}


def test_the_first_failure_is_raised_when_all_have_settled() -> None:
    """Or stands in its place, where that is asked for."""

    async def kept(self: Agent, turn: Turn, envelope: Envelope) -> Any:
        found = await turn.gather(turn.ask("a"), turn.ask("b"), return_exceptions=True)
        return [it.problem.reason if isinstance(it, Refusal) else it.data for it in found]

    answers = {"default/a": Refusal(DENIED), "default/b": "B"}
    assert run_turn(agent(kept), answers=answers).reply == ["NOT_GRANTED", "B"]
    failed = run_turn(agent(_both), ["a", "b"], answers=answers)
    assert failed.problem is not None
    assert failed.problem.reason == "NOT_GRANTED"


@pytest.mark.parametrize(
    ("how", "answers", "failures", "left"),
    [
        ({}, ["A", "C"], ["default/b"], []),
        ({"first": True}, ["A"], [], ["default/b", "default/c"]),
        ({"quorum": 2}, ["A", "C"], ["default/b"], []),
    ],
)
def test_several_are_asked_one_question(how: Any, answers: Any, failures: Any, left: Any) -> None:
    """All, the first, or a quorum; who failed says why, and who was not needed is named."""

    async def asks(self: Agent, turn: Turn, envelope: Envelope) -> Any:
        found = await turn.ask_all(["a", "b", "c"], {"q": 1}, **how)
        return [it.data for it in found.answers], {k: v.reason for k, v in found.failures.items()}, found.open

    given_ = {"default/a": "A", "default/b": Refusal(DENIED), "default/c": "C"}
    ran = run_turn(agent(asks), answers=given_)
    assert ran.reply == [answers, dict.fromkeys(failures, "NOT_GRANTED"), left]
    assert [it["data"] for it in ran.of("ask")] == [{"q": 1}] * 3


def test_nothing_to_wait_for_is_no_wait() -> None:
    """An empty gathering answers at once, and is not recorded."""

    async def none(self: Agent, turn: Turn, envelope: Envelope) -> Any:
        return [await turn.gather(), list((await turn.ask_all([])).answers)]

    ran = run_turn(agent(none))
    assert (ran.reply, ran.did) == ([[], []], [])


async def _no_promise(self: Agent, turn: Turn, envelope: Envelope) -> Any:
    await turn.gather(turn.send("other"), turn.sleep(1))


async def _same_twice(self: Agent, turn: Turn, envelope: Envelope) -> Any:
    one = turn.sleep(1)
    await turn.gather(one, one)


async def _too_many(self: Agent, turn: Turn, envelope: Envelope) -> Any:
    await turn.ask_all(["a"], quorum=2)


async def _both_ways(self: Agent, turn: Turn, envelope: Envelope) -> Any:
    await turn.ask_all(["a", "b"], quorum=1, first=True)


@pytest.mark.parametrize("handler", [_no_promise, _same_twice, _too_many, _both_ways])
def test_what_can_not_be_gathered_is_refused_with_a_way_out(handler: Any) -> None:
    """At the call, with words on what to write."""
    ran = run_turn(agent(handler))
    assert ran.problem is not None
    assert ran.problem.reason == "INVALID_VALUE"


@pytest.mark.parametrize("twice", [True, False])
def test_a_gathering_is_awaited_once(twice: bool) -> None:
    """Not twice, and not never; and what it holds is not awaited beside it."""

    async def handler(self: Agent, turn: Turn, envelope: Envelope) -> Any:
        one = turn.sleep(1)
        gathering = turn.gather(one)
        if twice:
            await gathering
            await one

    ran = run_turn(agent(handler))
    assert ran.problem is not None
    assert ran.problem.reason == ("NONDETERMINISTIC" if twice else "HANDLER_ERROR")
    assert "turn.gather()" in ran.problem.detail or twice


@given(st.lists(st.sampled_from(["a", "b", "c", "sleep"]), max_size=6), st.integers(1, 6))
def test_a_replay_hears_the_same(members: list[str], needs: int) -> None:
    """Whatever is gathered, and however few answers are enough: `run_turn` runs each turn again from its journal."""

    async def handler(self: Agent, turn: Turn, envelope: Envelope) -> Any:
        found = await turn.gather(*(turn.sleep(2) if it == "sleep" else turn.ask(it) for it in members))
        names = sorted({it for it in members if it != "sleep"})
        replied = await turn.ask_all(names, quorum=min(needs, len(names)) or None)
        return [it if it is None else it.data for it in found], [it.data for it in replied.answers], turn.random()

    ran = run_turn(agent(handler), answers={f"default/{it}": it.upper() for it in "abc"})
    assert ran.problem is None, ran.problem
    assert ran.reply[0] == [None if it == "sleep" else it.upper() for it in members]
