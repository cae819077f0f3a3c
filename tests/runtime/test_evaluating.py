"""The process that judges and transforms for routes: bounded, made anew after a question that it did not survive."""

import subprocess
import time
from collections.abc import Iterator
from typing import Any

import pytest

from ray_runtime import Agent, Envelope, Turn
from ray_runtime.problems import Unanswered
from ray_runtime.replaying import replay_of
from ray_runtime.route import evaluating
from ray_runtime.route.evaluating import Evaluator
from ray_runtime.route.expressions import Unfit
from schemas.problem import Problem
from schemas.wire import Failed
from tests.runtime.scripted import ScriptedTurn, load
from tests.runtime.test_gathering import agent
from tests.runtime.test_replaying import ended


@pytest.fixture
def evaluator(monkeypatch: pytest.MonkeyPatch) -> Iterator[Evaluator]:
    monkeypatch.setattr(evaluating, "ANSWER_S_MAX", 60.0)  # the machine is busy
    found = Evaluator()
    found.serve()
    yield found
    found.end()


def test_it_judges_and_transforms(evaluator: Evaluator) -> None:
    """As the expressions say; what can not be judged is told in words."""
    about = {"type": "steward.message"}
    assert evaluator.ask({"n": 2}, "data.n > 1", "n + 1", envelope=about) == (True, 3)
    assert evaluator.ask({"n": 1}, "data.n > 1", "n + 1", envelope=about) == (False, None)
    assert evaluator.ask({"status": 200}, accept="result.status < 300") == (True, None)
    assert evaluator.ask(7, None, "$envelope.type", envelope=about) == (True, "steward.message")
    for given in (({"m": 1}, "data.n > 1"), ({"n": 1}, "data.n"), ({"n": 1}, None, "n.$error('no')")):
        with pytest.raises(Unfit):
            evaluator.ask(*given)


GREEDY = [
    ("a" * 99 + "!", None, "$contains($, /^(a+)+$/)"),
    (2_000_000_000, None, '$pad("x", $)'),
    (40, None, '($f := function($n, $s){ $n = 0 ? $s : $f($n - 1, $s & $s) }; $f($, "xy"))'),
    (list(range(20_000)), "data.all(a, data.all(b, data.all(c, a + b + c >= 0)))", None),
]


@pytest.mark.parametrize("greedy", GREEDY, ids=["regex", "pad", "doubling", "cubic"])
def test_what_takes_too_much_ends_it_and_nothing_else(evaluator: Evaluator, greedy: tuple[object, ...]) -> None:
    """It is unfit, and the next question is answered."""
    with pytest.raises(Unfit):
        evaluator.ask(*greedy)
    assert evaluator.ask(1, None, "$ + 1") == (True, 2)


STRANGE = [
    ({"ts": 1e20}, None, '{"at": $fromMillis(ts)}'),
    ({"a": "12"}, None, '$parseInteger(a, "#")'),
    ({"a": "2018"}, None, '$toMillis(a, "[W]")'),
    (1, None, '$error("\\ud800")'),
]


@pytest.mark.parametrize("strange", STRANGE, ids=["year", "integer", "picture", "surrogate"])
def test_data_that_an_expression_breaks_on_is_unfit_and_ends_nothing(
    evaluator: Evaluator, strange: tuple[object, ...]
) -> None:
    """Whatever is raised over it: the same process answers the next question, which may be another route's."""
    assert evaluator.ask(1, None, "$ + 1") == (True, 2)
    process = evaluator._process
    with pytest.raises(Unfit):
        evaluator.ask(*strange)
    assert evaluator.ask(1, None, "$ + 1") == (True, 2)
    assert evaluator._process is process


def test_it_ends_with_whoever_asks(evaluator: Evaluator) -> None:
    """The other side of its socket is gone: so is it, without being told."""
    evaluator.ask(1, None, "$")
    process = evaluator._process
    assert process is not None
    assert evaluator._stream is not None
    evaluator._stream.close()
    assert process.wait(20) == 0


def test_a_process_that_was_lost_says_nothing_about_the_message(evaluator: Evaluator) -> None:
    """Another one answers."""
    assert evaluator.ask(1, None, "$ + 1") == (True, 2)
    assert evaluator._process is not None
    evaluator._process.kill()
    assert evaluator.ask(2, None, "$ + 1") == (True, 3)


def test_where_none_can_be_made_it_is_no_fault_of_the_message(
    evaluator: Evaluator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is told so at once, and the next question is answered when there is room again."""

    def no_room(*_: Any, **__: Any) -> None:
        raise BlockingIOError("fork")

    with monkeypatch.context() as patched:
        patched.setattr(subprocess, "Popen", no_room)
        with pytest.raises(Unanswered):
            evaluator.ask(1, None, "$")
    assert evaluator.ask(2, None, "$ + 1") == (True, 3)


def test_nobody_waits_longer_than_a_loop_may_be_held(evaluator: Evaluator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor for a process that is slow to come, which is there for a later question."""
    monkeypatch.setattr(evaluating, "ANSWER_S_MAX", 0.01)
    began = time.monotonic()
    with pytest.raises(Unanswered):
        evaluator.ask(1, None, "$")
    assert time.monotonic() - began < 2
    monkeypatch.setattr(evaluating, "ANSWER_S_MAX", 60.0)
    assert evaluator.ask(2, None, "$ + 1") == (True, 3)


_room = {"there": True}


async def _asks_its_machine(self: Agent, turn: Turn, envelope: Envelope) -> Any:
    if not _room["there"]:
        raise Unanswered("no answer")


def test_a_turn_that_its_machine_did_not_answer_is_tried_again_and_its_replay_marks_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    turn = ended(_asks_its_machine)
    assert turn.activation is not None
    turn.activation.longest_s = 0.0
    monkeypatch.setitem(_room, "there", value=False)
    replay = replay_of(turn.activation, load(turn.agent))
    assert replay is not None
    while replay.step():
        pass
    assert replay.found() is None
    last = ScriptedTurn(agent(_asks_its_machine)).run()
    assert isinstance(last, Failed)
    assert (last.retry, Problem.model_validate_json(last.problem).reason) == (True, "INTERNAL")
