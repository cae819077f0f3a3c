"""The process that judges and transforms for routes: bounded, made anew after a question that it did not survive."""

from collections.abc import Iterator

import pytest

from ray_runtime.route.evaluating import Evaluator
from ray_runtime.route.expressions import Unfit


@pytest.fixture
def evaluator() -> Iterator[Evaluator]:
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


def test_it_ends_with_whoever_asks(evaluator: Evaluator) -> None:
    """The other side of its socket is gone: so is it, without being told."""
    evaluator.ask(1, None, "$")
    process = evaluator._process
    assert process is not None
    assert evaluator._stream is not None
    evaluator._stream.close()
    assert process.wait(20) == 0
