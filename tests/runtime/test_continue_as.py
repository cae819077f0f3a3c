"""`turn.continue_as` in a test of an agent: the last thing of a handler, and nothing beside it."""

from typing import Any

import pytest

from ray_runtime import Agent, Envelope, Refusal, Turn
from ray_runtime.testing import run_turn


def agent(handler: Any, hook: str = "on_message") -> type[Agent]:
    """An agent whose hook is the function."""
    return type("Made", (Agent,), {hook: handler})


async def _counts(self: Agent, turn: Turn, envelope: Envelope) -> Any:
    self.state["seen"] = self.state.get("seen", 0) + 1
    turn.send("other", envelope.data)
    if envelope.data:
        return turn.continue_as(envelope.data - 1)
    return "end"


def test_a_turn_goes_on_as_another() -> None:
    """Its state and effects are its own; the last entry says what the next turn gets."""
    ran = run_turn(agent(_counts), 3)
    assert (ran.reply, ran.state, ran.did[-1]) == (None, {"seen": 1}, ("continue", {"data": 2}))
    assert run_turn(agent(_counts), 0).reply == "end"


def test_a_batch_goes_on_with_envelopes() -> None:
    """Those that are left; what is none is refused."""

    async def some(self: Agent, turn: Turn, envelopes: list[Envelope]) -> None:
        turn.continue_as(envelopes[1:] if envelopes[0].data else [1])

    ran = run_turn(agent(some, "on_batch"), [1, 2, 3], trigger="batch")
    assert [it["data"] for it in ran.of("continue")[0]["data"]] == [2, 3]
    for given in ([0, 1], [1]):  # no envelopes, and none at all
        refused = run_turn(agent(some, "on_batch"), given, trigger="batch")
        assert refused.problem is not None
        assert (refused.problem.reason, refused.problem.field) == ("INVALID_VALUE", "/data")


async def _sends(self: Agent, turn: Turn, envelope: Envelope) -> None:
    turn.continue_as(1)
    turn.send("other", 1)


async def _asks(self: Agent, turn: Turn, envelope: Envelope) -> None:
    turn.continue_as(1)
    await turn.ask("other")


async def _twice(self: Agent, turn: Turn, envelope: Envelope) -> None:
    turn.continue_as(1)
    turn.continue_as(2)


async def _swallows(self: Agent, turn: Turn, envelope: Envelope) -> None:
    turn.continue_as(1)
    try:
        turn.send("other", 1)
    except Refusal:
        self.state["swallowed"] = True


async def _answers(self: Agent, turn: Turn, envelope: Envelope) -> int:
    turn.continue_as(1)
    return 2


@pytest.mark.parametrize("handler", [_sends, _asks, _twice, _swallows, _answers])
def test_nothing_comes_after_it(handler: Any) -> None:
    """Neither an effect nor an answer, whatever the handler makes of the exception: the turn fails."""
    ran = run_turn(agent(handler))
    assert ran.problem is not None
    assert ran.problem.reason == "HANDLER_ERROR"
    assert "continue_as" in ran.problem.detail


def test_it_is_no_promise() -> None:
    """It can not be gathered."""

    async def gathers(self: Agent, turn: Turn, envelope: Envelope) -> None:
        await turn.gather(turn.sleep(1), turn.continue_as(1))  # type: ignore[func-returns-value, arg-type]

    ran = run_turn(agent(gathers))
    assert ran.problem is not None
    assert ran.problem.reason in ("HANDLER_ERROR", "INVALID_VALUE")


def test_a_start_has_nothing_to_go_on_with() -> None:
    """`on_start` has no message."""

    async def starts(self: Agent, turn: Turn) -> None:
        turn.continue_as(1)

    ran = run_turn(agent(starts, "on_start"), trigger="start")
    assert ran.problem is not None
    assert (ran.problem.reason, ran.problem.metadata["hook"]) == ("INVALID_VALUE", "on_start")
