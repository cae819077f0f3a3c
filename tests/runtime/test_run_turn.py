"""`run_turn`, what users test their agents with."""

from typing import Any

import pytest
from pydantic import BaseModel

from ray_runtime import Agent, Envelope, Refusal, Turn
from ray_runtime.testing import run_turn
from schemas.problem import Problem

DENIED = Problem(type="urn:x", title="x", status=403, detail="no", reason="NOT_GRANTED", recovery="escalate")


class Count(BaseModel):
    n: int = 0


class Curious(Agent):
    """Reads, asks, sleeps, tells."""

    state: Count

    async def on_start(self, turn: Turn) -> None:
        turn.timer("tick", every_s=5)

    async def on_timer(self, turn: Turn, timer: Envelope) -> None:
        self.state.n += 100 if timer.subject == "tick" else 0

    async def on_message(self, turn: Turn, envelope: Envelope) -> Any:
        self.state.n += 1
        try:
            read = await turn.perform("machine.read", what="cpu")
        except Refusal as refusal:
            return {"refused": refusal.problem.reason}
        began = turn.now()
        answer = await turn.ask("diagnoser", {"read": read, **self.config})
        await turn.sleep(30)
        turn.publish("reports", {"said": answer["said"]})
        return {"slept": (turn.now() - began).total_seconds() > 30, "id": turn.uuid()}


def test_a_turn_does_what_its_handler_says() -> None:
    """Reply, state, and everything it did, in order; answers may be functions of what was asked."""
    answers = {"machine.read": {"cpu": 9}, "default/diagnoser": lambda asked: {"said": f"{asked['read']['cpu']}"}}
    ran = run_turn(Curious, {"text": "go"}, state={"n": 4}, config={"k": 1}, answers=answers)
    assert ran.problem is None
    assert ran.state == Count(n=5)
    assert ran.reply["slept"] is True
    assert [kind for kind, _ in ran.did] == ["effect", "ask", "sleep", "publish"]
    assert ran.of("publish")[0]["data"] == {"said": "9"}
    assert ran.of("ask")[0]["data"] == {"read": {"cpu": 9}, "k": 1}


def test_other_triggers_run_their_hooks() -> None:
    """on_start and on_timer, with the envelope that the test gives."""
    assert [timer["name"] for timer in run_turn(Curious, trigger="start").of("timer")] == ["tick"]
    assert run_turn(Curious, trigger="timer", state=Count(n=1), subject="tick").state == Count(n=101)


def test_a_refusal_is_a_failure_of_the_effect() -> None:
    """Given, or raised by a function."""

    def deny(_: Any) -> None:
        raise Refusal(DENIED)

    for answer in (Refusal(DENIED), deny):
        assert run_turn(Curious, answers={"machine.read": answer}).reply == {"refused": "NOT_GRANTED"}


def test_what_nobody_answers_fails_the_test() -> None:
    """It says which answer is missing."""
    with pytest.raises(AssertionError, match=r"machine\.read"):
        run_turn(Curious)


def test_a_handler_that_can_not_be_replayed_fails_the_test() -> None:
    """What comes from outside the turn is different the second time."""
    outside = iter(range(10))

    class Unsteady(Agent):
        async def on_message(self, turn: Turn, envelope: Envelope) -> int:
            return next(outside)

    with pytest.raises(AssertionError, match="replay"):
        run_turn(Unsteady)


def test_a_turn_that_raises_has_a_problem_and_no_state() -> None:
    """As it would be told in the feedback log."""

    class Failing(Agent):
        async def on_message(self, turn: Turn, envelope: Envelope) -> None:
            raise ValueError("no such luck")

    ran = run_turn(Failing)
    assert ran.problem is not None
    assert ran.problem.reason == "HANDLER_ERROR"
    assert ran.state is None


def doubled(number: int) -> int:
    return number * 2


def test_a_function_is_called_in_the_tests_own_process_unless_it_has_an_answer() -> None:
    """What it raises, and arguments that may not be, are Problems as they are on a cluster."""

    class Thinker(Agent):
        async def on_message(self, turn: Turn, envelope: Envelope) -> Any:
            return await turn.gather(turn.compute(f"{__name__}:doubled", envelope.data), turn.compute("jobs:train"))

    assert run_turn(Thinker, 4, answers={"jobs:train": {"loss": 0}}).reply == [8, {"loss": 0}]
    assert run_turn(Thinker, None, answers={"compute.run": 1}).reply == [1, 1]
    failed = run_turn(Thinker, None, answers={"jobs:train": 1})
    assert failed.problem is not None
    assert (failed.problem.reason, failed.problem.metadata["type"]) == ("COMPUTE_FAILED", "TypeError")

    class Wrong(Agent):
        async def on_message(self, turn: Turn, envelope: Envelope) -> Any:
            return await turn.compute("jobs:train", resources={"num_gpu": 1})

    wrong = run_turn(Wrong)
    assert wrong.problem is not None
    assert (wrong.problem.reason, wrong.problem.field) == ("INVALID_VALUE", "/resources/num_gpu")
