"""Several promises open at once: the turn parks once for all of them, and hears what came, when, in which order.

Each member takes a position of its own, as if it were awaited alone, and the gathering takes the one
behind them; all of it is one segment. What the members came to is in the journal, with the time at
which it came, so a replay sees the same answers in the same order. Only `ask`, `ask_human` and `sleep`
are gathered so; what else is gathered needs branches (`branching`).
"""

from collections.abc import Callable, Generator, Sequence
from typing import Any, NamedTuple, TypeVar

import msgspec
import orjson

from ray_runtime.arguments import json_bytes
from ray_runtime.awaits import Promise, outcome_of
from ray_runtime.journal import Answer, Journal
from ray_runtime.problems import refuse
from schemas.envelope import Envelope
from schemas.problem import Problem, Refusal

MEMBERS = frozenset({"ask", "sleep", "question"})
T = TypeVar("T", covariant=True)


class Settled(NamedTuple):
    """What came of one member: `answer` is None while, or because, it was not needed any more."""

    position: int
    promise: Promise[Any]
    answer: Answer | None

    @property
    def order(self) -> tuple[float, int]:
        return (self.answer.at if self.answer is not None else 0.0), self.position


class Replies(NamedTuple):
    """The answers to a question that was asked of several, in the order in which they came.

    `failures` says by address why somebody did not answer; `open` are those whose answer was not needed any more.
    """

    answers: list[Envelope]
    failures: dict[str, Problem]
    open: list[str]


class Gathering(Promise[T]):
    """A promise of several others. Await it, once, instead of them."""

    __slots__ = ("members", "needs", "of")

    def __init__(
        self,
        journal: Journal,
        members: Sequence[Promise[Any]],
        needs: int,
        of: Callable[[list[Settled]], T],
        said: str,
    ) -> None:
        for it in members:
            _require_member(it, journal, said)
        named = {id(it) for it in members}
        if len(named) < len(members):
            raise refuse("INVALID_VALUE", f"{said}: a promise can be gathered once", what=said)
        super().__init__(journal, "gather", json_bytes(said, {"members": len(members), "needs": needs}), _nothing, said)
        self.members = list(members)
        self.needs = needs
        self.of = of
        journal.promises[:] = [it for it in journal.promises if id(it) not in named]  # it speaks for them

    def __await__(self) -> Generator["Promise[T]", Answer, T]:
        if self.position >= 0 or any(it.position >= 0 for it in self.members):
            raise refuse("NONDETERMINISTIC", f"{self.said} was awaited twice", what=self.said)
        self.branch = self.journal.branch
        if self.members:
            last = self.journal.position + len(self.members)
            for it in self.members:
                it.branch, it.position = self.branch, self.journal.record(it.kind, _within(it.body, last))
            self.position = self.journal.record(self.kind, self.body)
            yield self
        else:
            self.position = self.journal.position  # nothing to wait for, and nothing to record
        return self.of([Settled(it.position, it, self.journal.member(it.place)) for it in self.members])


def came(result: bytes) -> list[tuple[int, Answer]]:
    """The members of a gathering that settled while its turn was parked, as the gate tells of them."""
    found = msgspec.json.decode(result, type=list[tuple[int, str, msgspec.Raw, float]])
    return [(position, Answer(outcome, bytes(it), at)) for position, outcome, it, at in found]


def all_of(settled: list[Settled]) -> list[Any]:
    """The results in the order of the promises; raises what came first of the failures."""
    found = {it.position: _result(it) for it in sorted(settled, key=lambda it: it.order)}
    return [found[it.position] for it in settled]


def each_of(settled: list[Settled]) -> list[Any]:
    """The results in the order of the promises, a Refusal where one failed."""
    return [_result_or_refusal(it) for it in settled]


def replies(addresses: Sequence[str]) -> Callable[[list[Settled]], Replies]:
    """What those of these addresses answered, who were asked in this order."""

    def of(settled: list[Settled]) -> Replies:
        found = Replies([], {}, [])
        for address, it in sorted(zip(addresses, settled, strict=True), key=lambda pair: pair[1].order):
            if it.answer is None:
                found.open.append(address)
            elif isinstance(value := _result_or_refusal(it), Refusal):
                found.failures[address] = value.problem
            else:
                found.answers.append(value)
        return found

    return of


def _result(it: Settled) -> Any:
    assert it.answer is not None, "whatever all are waited for was settled"
    return it.promise.read(outcome_of(it.answer))


def _result_or_refusal(it: Settled) -> Any:
    try:
        return _result(it)
    except Refusal as refusal:
        return refusal


def _nothing(_: bytes) -> Any:
    return None


def _within(body: bytes, gathering: int) -> bytes:
    return json_bytes("gather", {**orjson.loads(body), "group": gathering})


def _require_member(it: Any, journal: Journal, said: str) -> None:
    if isinstance(it, Promise) and it.journal is journal and it.kind in MEMBERS:
        return
    what = it.said if isinstance(it, Promise) else type(it).__name__
    detail = f"{said}: {what} can not be gathered: give what turn.ask, turn.ask_human and turn.sleep answer"
    raise refuse("INVALID_VALUE", detail, what=what)
