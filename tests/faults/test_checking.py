"""The checker of histories, fed with wrong ones: it refuses each, and says why."""

import copy
from collections.abc import Callable

import pytest

from tests.faults.checking import Answer, Effect, History, Hold, Pile, Stream, Turn, broken

GOOD = History(
    acknowledged=[("a", "m1"), ("a", "m2"), ("b", "q1")],
    turns=[Turn("a", "m1", "committed", 1), Turn("a", "m2", "committed", 2), Turn("b", "q1", "committed", 1)],
    epochs={"a": 3, "b": 1},
    owners=[("a", 1, "h1"), ("a", 2, "h2"), ("b", 1, "h1"), ("a", 3, "h1")],
    balances={"x": (3, 3), "y": (-3, -3)},
    streams=[Stream("ledger", {"s": [0, 1, 2], "t": [0]}, [("s", 0), ("t", 0), ("s", 1), ("s", 2)])],
    piles=[Pile("bell", [1, 2], [2, 1])],
    answers=[Answer("q1", [7, "ASK_TIMEOUT"], "answered", 7, [7])],
    holds=[Hold("k", 0, "a", 1.0, 2.0), Hold("k", 1, "b", 2.0, 3.0), Hold("j", 0, "a", 2.0, 3.0)],
    effects=[
        Effect("e1", {"status": 200}, "succeeded", 1),
        Effect("e2", "IN_DOUBT", "in_doubt", 0),
        Effect("e3", "IN_DOUBT", "in_doubt", 1),
        Effect("e4", "EFFECT_FAILED", "failed", 0),
    ],
)


def test_a_good_history_is_accepted() -> None:
    """And so is an empty one."""
    assert broken(GOOD) == broken(History()) == []


def _stream(*got: tuple[str, int]) -> Callable[[History], None]:
    return lambda it: it.streams.__setitem__(0, it.streams[0]._replace(got=list(got)))


def _answer(**changed: object) -> Callable[[History], None]:
    return lambda it: it.answers.__setitem__(0, it.answers[0]._replace(**changed))  # type: ignore[arg-type]


def _effect(*row: object) -> Callable[[History], None]:
    return lambda it: it.effects.append(Effect(*row))  # type: ignore[arg-type]


WRONG: dict[str, tuple[Callable[[History], object], str]] = {
    "lost": (lambda it: it.turns.pop(1), "lost: m2 to a"),
    "two turns": (lambda it: it.turns.append(it.turns[0]), "twice: m1 of a"),
    "failed": (lambda it: it.turns.append(Turn("a", "m3", "failed", 1)), "failed: m3 of a: without an error"),
    "two owners": (lambda it: it.owners.append(("a", 3, "h2")), "owners: a had ['h1', 'h2'] in epoch 3"),
    "epoch goes back": (lambda it: it.owners.append(("a", 2, "h2")), "owners: epochs of a go back"),
    "epoch to come": (lambda it: it.epochs.update(a=1), "owners: m2 of a ended in epoch 2"),
    "balance": (lambda it: it.balances.update(x=(3, 2)), "balance: x has 2"),
    "sum": (lambda it: it.balances.update(z=(1, 1)), "balance: all together have 1"),
    "missing": (_stream(("s", 0), ("t", 0), ("s", 2)), "order: ledger got of s too few of ['1']"),
    "doubled": (
        _stream(("s", 0), ("t", 0), ("s", 1), ("s", 1), ("s", 2)),
        "order: ledger got of s too few of [], too many of ['1']",
    ),
    "two holders": (lambda it: it.holds.append(Hold("k", 2, "a", 2.5, 4.0)), "holder: k was held by b (1) and a (2)"),
    "order": (_stream(("s", 0), ("t", 0), ("s", 2), ("s", 1)), "order: ledger got of s [2, 1] at 1"),
    "stranger": (_stream(*GOOD.streams[0].got, ("u", 0)), "order: ledger got something of ['u']"),
    "timer twice": (lambda it: it.piles[0].got.append(1), "once: bell has too few of [], too many of ['1']"),
    "timer lost": (lambda it: it.piles[0].got.pop(), "once: bell has too few of ['1']"),
    "no answer": (_answer(outcome=None, result=None), "answer: q1 was never answered"),
    "wrong answer": (_answer(result=8), "answer: q1 was answered with 8"),
    "two answers": (_answer(kept=["ASK_TIMEOUT", 7]), "answer: q1 was answered 7, and its agent has said"),
    "no receipt": (_effect("e", None, None, 0), "effect: e has no receipt"),
    "done twice": (_effect("e", "IN_DOUBT", "in_doubt", 2), "effect: e was done 2 times"),
    "not done": (_effect("e", {}, "succeeded", 0), "effect: e has succeeded, and was done 0 times"),
    "failed, and done": (_effect("e", "EFFECT_FAILED", "failed", 1), "effect: e has failed, and was done"),
    "told otherwise": (_effect("e", {}, "in_doubt", 1), "effect: the receipt of e says in_doubt"),
    "unended": (lambda it: it.unended.append("turn t1 running"), "no end: turn t1 running"),
    "orphan": (lambda it: it.orphans.append("a is owned by h9"), "orphan: a is owned by h9"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_history_is_refused(wrong: str) -> None:
    """Each law by itself, and nothing that is not broken."""
    history = copy.deepcopy(GOOD)
    spoil, says = WRONG[wrong]
    spoil(history)
    found = broken(history)
    assert any(says in it for it in found), found
    assert len({it.partition(":")[0] for it in found}) == 1, found
