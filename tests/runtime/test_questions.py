"""Questions to people in a test of an agent: what a turn may ask, and how a test answers."""

from typing import Any

import pytest

from ray_runtime import Agent, Envelope, Turn
from ray_runtime.testing import run_turn


class Person(Agent):
    """Asks as its message says."""

    async def on_message(self, turn: Turn, envelope: Envelope) -> Any:
        return await turn.ask_human(**envelope.data)


def test_a_question_is_answered_by_the_test() -> None:
    """With any JSON; a function gets what was asked, and with choices another answer fails the test."""
    assert run_turn(Person, {"question": "?"}, answers={"ask_human": {"n": 1}}).reply == {"n": 1}
    given: dict[str, Any] = {"question": "?", "choices": ["a", "b"]}
    ran = run_turn(Person, given, answers={"ask_human": lambda asked: asked["choices"][1]})
    assert ran.reply == "b"
    assert ran.of("question") == [{**given, "deadline_s": 86_400.0}]
    with pytest.raises(AssertionError, match="one of"):
        run_turn(Person, given, answers={"ask_human": "c"})


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"question": ""}, "/question"),
        ({"question": "x" * 4001}, "/question"),
        ({"question": "?", "choices": []}, "/choices"),
        ({"question": "?", "choices": ["a"] * 2}, "/choices"),
        ({"question": "?", "choices": [str(it) for it in range(21)]}, "/choices"),
        ({"question": "?", "choices": ["x" * 201]}, "/choices/0"),
        ({"question": "?", "choices": "ab"}, "/choices"),
        ({"question": "?", "deadline_s": -1}, None),
    ],
)
def test_what_can_not_be_asked_is_refused_at_the_call(given: dict[str, Any], field: str | None) -> None:
    """Nothing is recorded, and the Problem names the argument."""
    ran = run_turn(Person, given)
    assert ran.problem is not None
    assert (ran.problem.reason, ran.problem.field) == ("INVALID_VALUE", field)
    assert ran.did == []
