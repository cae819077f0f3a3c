"""What a turn hands out: ids that are there at once, and promises that end a step.

A buffered effect is done when it is called; its id is a string that may be awaited, so that
`turn.send(...)` and `await turn.send(...)` are the same. A promise (ask, sleep, perform) takes its
position when it is awaited, once, inside its own turn; one that is never awaited ends the turn in a
Problem, because nothing would have happened.
"""

from collections.abc import Callable, Generator
from typing import Any, Generic, TypeVar

from ray_runtime.journal import Answer, Journal
from ray_runtime.problems import refuse
from schemas.branches import Place
from schemas.problem import Problem, Refusal

T = TypeVar("T", covariant=True)


class Done(str):
    """The id of a buffered effect. Awaiting it answers the id as a plain string."""

    __slots__ = ()

    def __await__(self) -> Generator[None, None, str]:
        return str(self)
        yield  # makes this a generator that ends at once


class Promise(Generic[T]):
    """Something that comes later. Await it, once."""

    __slots__ = ("body", "branch", "journal", "kind", "position", "read", "said")

    def __init__(self, journal: Journal, kind: str, body: bytes, read: Callable[[bytes], T], said: str) -> None:
        journal.demand_step(said)
        self.journal = journal
        self.kind = kind
        self.body = body
        self.read = read
        self.said = said
        self.branch = ""
        self.position = -1
        journal.promises.append(self)

    @property
    def place(self) -> Place:
        """Where it stands in the journal, once it is awaited."""
        return self.branch, self.position

    def __await__(self) -> Generator["Promise[T]", Answer, T]:
        if self.position >= 0:
            raise refuse("NONDETERMINISTIC", f"{self.said} was awaited twice", what=self.said)
        take = self.journal.intend if self.kind == "effect" else self.journal.record
        self.branch, self.position = self.journal.branch, take(self.kind, self.body)
        return self.read(outcome_of((yield self)))


def outcome_of(answer: Answer) -> bytes:
    """The JSON of an answer; raises the Refusal that it is."""
    if answer.outcome in ("failed", "timeout", "in_doubt"):
        raise Refusal(Problem.model_validate_json(answer.result))
    return answer.result


class EffectPromise(Promise[Any]):
    """An external effect: what the gate is asked, beside what the journal compares."""

    __slots__ = ("arguments", "connection", "effect", "purpose")

    effect: str
    connection: str
    arguments: bytes
    purpose: str
