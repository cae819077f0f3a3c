"""Rings of questions: agents that wait for each other, so that none of them ever answers.

Pure, but for the lookup that it is given. An agent may wait for several at once, so who waits for whom is
a graph and not a path. A ring is broken at one question, which fails; so its agents go on.
"""

from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple


class Waits(NamedTuple):
    """An open question of an agent."""

    agent: str
    target: str
    await_id: str
    since: float
    namespace: str
    name: str


def ring_through(start: str, target: str, asked: Callable[[str], Iterable[str]]) -> int:
    """How many agents wait for each other in the shortest ring over `start` and `target`; 0 when there is none.

    `asked` answers whom an agent waits for.
    """
    found, seen = deque([(target, 1)]), {target}
    while found:
        at, length = found.popleft()
        if at == start:
            return length
        for further in asked(at):
            if further not in seen:
                seen.add(further)
                found.append((further, length + 1))
    return 0


def rings(questions: Iterable[Waits]) -> Iterator[tuple[Waits, int]]:
    """One question of every ring, the newest, and how many agents the ring has; without these there is no ring."""
    out: dict[str, dict[str, Waits]] = defaultdict(dict)
    into: dict[str, list[Waits]] = defaultdict(list)
    for it in questions:
        out[it.agent][it.await_id] = it
        into[it.target].append(it)
    _peel(out, into, [it for it in into if it not in out])
    while out:
        ring = _walk(out)
        newest = max(ring, key=lambda it: it.since)
        yield newest, len(ring)
        del out[newest.agent][newest.await_id]
        if not out[newest.agent]:
            del out[newest.agent]
            _peel(out, into, [newest.agent])


def _peel(out: dict[str, dict[str, Waits]], into: dict[str, list[Waits]], ended: list[str]) -> None:
    """Take away whoever waits for nobody, and then whoever waited for them alone."""
    while ended:
        for it in into.pop(ended.pop(), ()):
            waits = out.get(it.agent)
            if waits is not None and waits.pop(it.await_id, None) is not None and not waits:
                del out[it.agent]
                ended.append(it.agent)


def _walk(out: dict[str, dict[str, Waits]]) -> list[Waits]:
    """From anybody to somebody they wait for, until somebody comes again: everybody here waits for somebody here."""
    path: dict[str, Waits] = {}
    at = next(iter(out))
    while at not in path:
        path[at] = next(iter(out[at].values()))
        at = path[at].target
    steps = list(path.values())
    return steps[list(path).index(at) :]
