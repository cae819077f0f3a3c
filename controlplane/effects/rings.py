"""Rings of questions: agents that wait for each other, so that none of them ever answers.

Pure, but for the lookup that it is given. An agent waits for all that its turn has open: for a question alone, for
each of `turn.gather`, for as many of `turn.ask_all` as are enough. So it is stuck only if what it needs can not come
from anybody who is not: whoever waits for the first of two waits for neither of them alone. A ring of those who are
stuck is broken at one question, which fails, until somebody goes on.
"""

from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from controlplane.effects.gathers import gathering_of


class Waits(NamedTuple):
    """An open question of an agent; `lacks` is how many answers its gathering still needs, None of one alone."""

    agent: str
    target: str
    await_id: str
    since: float
    namespace: str
    name: str
    lacks: int | None = None


class _Group:
    """Questions of which so many answers are enough."""

    __slots__ = ("agent", "free", "lacks", "open")

    def __init__(self, agent: str, lacks: int) -> None:
        self.agent = agent
        self.lacks = lacks
        self.open: dict[str, Waits] = {}
        self.free = 0  # of the open ones, those whose target is not stuck

    @property
    def stuck(self) -> bool:
        return self.free < min(self.lacks, len(self.open))


def ring_through(start: str, target: str, asked: Callable[[str], Iterable[str]]) -> bool:
    """Whether `target` waits, over others, for `start`: then `start` may be stuck.

    `asked` answers whom an agent waits for.
    """
    found, seen = deque([target]), {target}
    while found:
        at = found.popleft()
        if at == start:
            return True
        for further in asked(at):
            if further not in seen:
                seen.add(further)
                found.append(further)
    return False


def reached(start: str, asked: Callable[[str], Iterable[Waits]]) -> list[Waits]:
    """The questions of an agent, and of all that it waits for."""
    found: list[Waits] = []
    agents, seen = deque([start]), {start}
    while agents:
        for it in asked(agents.popleft()):
            found.append(it)
            if it.target not in seen:
                seen.add(it.target)
                agents.append(it.target)
    return found


def rings(questions: Iterable[Waits]) -> Iterator[tuple[Waits, int]]:
    """Of every ring the newest question, and how many agents the ring has; when these fail, nobody is stuck."""
    groups: dict[str, _Group] = {}
    of_agent: dict[str, set[str]] = defaultdict(set)  # the groups in which an agent is stuck
    into: dict[str, list[Waits]] = defaultdict(list)
    for it in questions:
        name = gathering_of(it.await_id) or it.await_id
        group = groups.setdefault(name, _Group(it.agent, 1 if it.lacks is None else max(1, it.lacks)))
        group.open[it.await_id] = it
        of_agent[it.agent].add(name)
        into[it.target].append(it)
    _free(groups, of_agent, into, [it for it in into if it not in of_agent])
    while of_agent:
        ring = _walk(groups, of_agent)
        newest = max(ring, key=lambda it: it.since)
        yield newest, len(ring)
        name = gathering_of(newest.await_id) or newest.await_id
        del groups[name].open[newest.await_id]
        _free(groups, of_agent, into, _unstuck(groups, of_agent, name))


def _free(
    groups: dict[str, _Group], of_agent: dict[str, set[str]], into: dict[str, list[Waits]], free: list[str]
) -> None:
    """These are not stuck, so whoever needs no more than their answers is not, and so on."""
    while free:
        for it in into.pop(free.pop(), ()):
            name = gathering_of(it.await_id) or it.await_id
            if it.await_id in groups[name].open:
                groups[name].free += 1
                free += _unstuck(groups, of_agent, name)


def _unstuck(groups: dict[str, _Group], of_agent: dict[str, set[str]], name: str) -> list[str]:
    """The agent of a group, if it was the last one in which it is stuck."""
    group = groups[name]
    stuck = of_agent.get(group.agent)
    if group.stuck or stuck is None or name not in stuck:
        return []
    stuck.discard(name)
    if stuck:
        return []
    del of_agent[group.agent]
    return [group.agent]


def _walk(groups: dict[str, _Group], of_agent: dict[str, set[str]]) -> list[Waits]:
    """From anybody who is stuck to somebody stuck that they wait for, until somebody comes again."""
    path: dict[str, Waits] = {}
    at = next(iter(of_agent))
    while at not in path:
        name = next(iter(of_agent[at]))
        path[at] = next(it for it in groups[name].open.values() if it.target in of_agent)
        at = path[at].target
    steps = list(path.values())
    return steps[list(path).index(at) :]
