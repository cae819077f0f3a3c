"""Branches of a turn: effects and coroutines of a handler that go on side by side.

Each member of a gathering is a branch with positions of its own. Branches never run at once: one is stepped until
it waits, then the next, and an answer lets that one branch go on which waits for it. So what a turn does follows
from the order in which answers reached it, and a replay is given them in the order that the journal holds.
"""

from collections import deque
from collections.abc import Generator, Sequence
from inspect import iscoroutine
from typing import Any, NamedTuple

from ray_runtime.awaits import EffectPromise, Promise
from ray_runtime.gathering import Gathering, came
from ray_runtime.journal import Answer, Journal
from ray_runtime.problems import problem, refuse
from schemas.branches import BRANCHES_MAX, DEPTH_MAX, ROOT, Place


class Ended(NamedTuple):
    """What a branch came to, and as which of its gathering."""

    value: Any
    error: Exception | None
    order: int


class Branching(Promise[list[Any]]):
    """Members that go on side by side. Await it, once; it ends when the last of them has."""

    __slots__ = ("ended", "every", "members")

    def __init__(self, journal: Journal, members: Sequence[Any], *, every: bool) -> None:
        said = "turn.gather()"
        faults = [it for it in members if not _is_member(it, journal)]
        if faults or len({id(it) for it in members}) < len(members):
            _close(members)
            raise _refused(said, faults)
        super().__init__(journal, "branches", b"{}", _nothing, said)
        self.members = members
        self.every = every
        self.ended: dict[int, Ended] = {}
        named = {id(it) for it in members}
        journal.promises[:] = [it for it in journal.promises if id(it) not in named]  # it speaks for them

    def __await__(self) -> Generator["Promise[list[Any]]", Answer, list[Any]]:
        if self.position >= 0:
            raise refuse("NONDETERMINISTIC", f"{self.said} was awaited twice", what=self.said)
        self.branch, self.position = self.journal.branch, 0
        self._demand_room()
        yield self
        found = [self.ended[place] for place in range(len(self.members))]
        if self.every:
            return [it.error or it.value for it in found]
        for it in sorted(found, key=lambda it: it.order):
            if it.error is not None:
                raise it.error
        return [it.value for it in found]

    def close(self) -> None:
        """Nobody will await its coroutines."""
        _close(self.members)

    def _demand_room(self) -> None:
        journal, depth = self.journal, self.branch.count(".") + 1
        if journal.open_branches + len(self.members) > BRANCHES_MAX:
            self.close()
            detail = f"a turn has at most {BRANCHES_MAX} branches at once"
            raise journal.end(problem("LIMIT_REACHED", detail, limit="branches_max", max=BRANCHES_MAX))
        if depth > DEPTH_MAX:
            self.close()
            detail = f"branches of a turn are at most {DEPTH_MAX} deep"
            raise journal.end(problem("LIMIT_REACHED", detail, limit="branches_depth_max", max=DEPTH_MAX))


class Branch:
    """One line of a handler."""

    __slots__ = ("children", "coroutine", "name", "of", "parent", "place")

    def __init__(self, name: str, coroutine: Any, parent: "Branch | None", of: Branching | None, place: int) -> None:
        self.name = name
        self.coroutine = coroutine
        self.parent = parent
        self.of = of
        self.place = place
        self.children = 0


class Branches:
    """The branches of one attempt at a turn, and which of them goes on next."""

    def __init__(self, journal: Journal) -> None:
        self.heard = 0
        self._journal = journal
        self._ready: deque[tuple[Branch, Any]] = deque()
        self._waiting: dict[Place, tuple[Branch, Promise[Any]]] = {}
        self._asked: set[Place] = set()
        self._held: set[Place] = set()
        self._open: list[Branch] = []

    @property
    def alone(self) -> bool:
        """Whether nothing is gathered."""
        return self._journal.open_branches == 0

    def begin(self, coroutine: Any) -> None:
        """The handler itself."""
        root = Branch(ROOT, coroutine, None, None, 0)
        self._open.append(root)
        self._ready.append((root, None))

    def next(self) -> tuple[Branch, Any] | None:
        """Who goes on, with what; None when all wait, or when the replay goes astray."""
        if self._ready:
            return self._ready.popleft()
        if (place := self._answered()) is None:
            return None
        answer = self._journal.known(place)
        assert answer is not None
        branch, _ = self._waiting.pop(place)
        self._held.discard(place)
        if branch.name != ROOT:
            self._journal.reached(place)
        self._journal.answered(place, answer)
        return branch, answer

    def _answered(self) -> Place | None:
        first = self._journal.first()
        if first is not None and not self.alone:
            if first not in self._waiting or self._journal.known(first) is None:
                self._journal.astray(first)
                return None
            return first
        known = [(it, place) for place in self._waiting if (it := self._journal.known(place)) is not None]
        return min(known, key=lambda it: (it[0].at, it[1]))[1] if known else None

    def waits(self, branch: Branch, promise: Promise[Any]) -> None:
        """A branch has come to a promise: an answer is needed, or others must end first."""
        if not isinstance(promise, Branching):
            self._waiting[promise.place] = branch, promise
            return
        if not promise.members:
            self._ready.append((branch, None))
        for place, member in enumerate(promise.members):
            branch.children += 1
            coroutine = member if iscoroutine(member) else _awaiting(member)
            child = Branch(f"{branch.name}.{branch.children}", coroutine, branch, promise, place)
            self._open.append(child)
            self._journal.open_branches += 1
            self._ready.append((child, None))

    def ended(self, branch: Branch, value: Any, error: Exception | None) -> None:
        """A branch is over; the last one of its gathering lets the gathering go on."""
        of, parent = branch.of, branch.parent
        assert of is not None
        assert parent is not None
        self._open.remove(branch)
        self._journal.open_branches -= 1
        of.ended[branch.place] = Ended(value, error, len(of.ended))
        if len(of.ended) == len(of.members):
            self._ready.append((parent, None))

    def close(self, run: Any) -> None:
        """End the coroutines, the innermost first."""
        while self._open:
            run(self._open.pop().coroutine.close)

    # What comes from the gate

    def performs(self, place: Place) -> bool:
        """Whether an effect is waited for there."""
        found = self._waiting.get(place)
        return found is not None and isinstance(found[1], EffectPromise)

    def came(self, place: Place, answer: Answer) -> None:
        """An answer; what the members of a gathering came to goes to their positions."""
        found = self._waiting.get(place)
        if found is None:
            return
        if isinstance(found[1], Gathering):
            for position, of_member in came(answer.result):
                self._journal.fill((place[0], position), of_member)
            answer = answer._replace(result=b"null")
        self._journal.fill(place, answer)

    def held(self, place: Place) -> None:
        """The effect waits for an operator, as an await does."""
        if place in self._waiting:
            self._held.add(place)

    # What the gate is to hear

    def unasked(self) -> list[EffectPromise]:
        """Effects that the gate was not asked for yet, in the order in which they were come to."""
        found = [it for place, it in self._effects() if place not in self._asked]
        self._asked.update(it.place for it in found)
        return found

    def on_their_way(self) -> bool:
        """Whether an effect is waited for that no operator must be asked about."""
        return any(place not in self._held for place, _ in self._effects())

    def _effects(self) -> list[tuple[Place, EffectPromise]]:
        return [(place, it) for place, (_, it) in self._waiting.items() if isinstance(it, EffectPromise)]

    def durable(self) -> list[Place]:
        """Where branches wait for what may take a month."""
        return [
            place
            for place, (_, it) in self._waiting.items()
            if place in self._held or not isinstance(it, EffectPromise)
        ]


async def _awaiting(promise: Promise[Any]) -> Any:
    return await promise


def _is_member(it: Any, journal: Journal) -> bool:
    return iscoroutine(it) or (isinstance(it, Promise) and it.journal is journal)


def _refused(said: str, faults: list[Any]) -> Exception:
    if not faults:
        return refuse("INVALID_VALUE", f"{said}: each thing can be gathered once", what=said)
    it = faults[0]
    what = it.said if isinstance(it, Promise) else type(it).__name__
    detail = (
        f"{said}: {what} can not be gathered: give coroutines of the handler, or what turn.perform, turn.compute, "
        "turn.ask, turn.ask_human, turn.sleep, turn.ask_all and turn.gather answer, without awaiting it first"
    )
    return refuse("INVALID_VALUE", detail, what=what)


def _close(members: Sequence[Any]) -> None:
    for it in members:
        if iscoroutine(it):
            it.close()  # one that nobody awaits would warn


def _nothing(_: bytes) -> Any:
    return None
