"""Which fault befalls whom, and when: a timetable that a seed decides. Pure; `acting.py` carries it out."""

import random
from typing import NamedTuple

WEIGHTS = {
    "kill host": 5,
    "stop host": 4,  # SIGSTOP, and SIGCONT within its lease or long after it
    "block host": 3,  # a handler that holds the event loop, up to beyond what is borne
    "kill gate": 4,
    "stop gate": 2,
    "end gate": 1,  # SIGTERM: in good order, under load
    "cut plane": 2,  # its connection to the gate, with calls on their way
    "points": 6,  # of gate, host and store: death, delay, a full disk, at named places
    "say again": 4,  # what was acknowledged long ago
    "ring again": 3,  # notifications that are doubled, and some about nothing
    "move agent": 2,
    "pause agent": 2,  # `stop`, and `wake` after a while
    "lose answer": 3,  # the far side acts, and breaks off
    "restart database": 2,
}
STACK_WEIGHTS = {  # on a whole installation, of two nodes
    "kill host": 4,
    "stop host": 3,
    "block host": 2,
    "kill gate": 3,
    "stop gate": 2,
    "end gate": 1,
    "kill plane": 2,
    "stop plane": 1,
    "kill placer": 2,
    "kill gcs_server": 1,
    "stop gcs_server": 1,  # what asks Ray meanwhile waits for as long
    "kill raylet": 1,  # of the gate's node
    "kill head": 1,  # the parent of all that Ray is on that node
    "kill node": 2,  # all of the other one at once, as the loss of a machine
    "hang node": 2,  # all of it stands still, and goes on
    "points": 2,
    "say again": 2,
    "ring again": 2,
    "move agent": 2,
    "pause agent": 1,
    "lose answer": 2,
    "restart database": 1,
}
MESH_WEIGHTS = {  # what befalls those who share a queue, and read a broadcast
    "kill host": 4,
    "stop host": 3,
    "block host": 1,
    "kill gate": 4,
    "stop gate": 2,
    "end gate": 1,
    "cut plane": 3,
    "points": 4,
    "ring again": 2,
    "move agent": 1,
    "pause agent": 3,
    "restart database": 2,
}
GAP_S = (0.05, 0.7)
STACK_GAP_S = (0.2, 3.4)
LONG_S = 2.2  # for the tests' lease of 1.5 s: a stop that is beyond it, and one in two is far below
SHORT_S = 0.6


class Act(NamedTuple):
    """What happens `at` seconds from the beginning, for so long, to whom (a number, taken modulo those there are)."""

    at: float
    what: str
    seconds: float
    whom: int


def timetable(seed: int, seconds: float, *, restarts: bool) -> list[Act]:
    """The same for the same seed; a longer one begins as a shorter one."""
    chance = random.Random(f"{seed} timetable")
    return _acts(chance, seconds, _weights(WEIGHTS, restarts=restarts), GAP_S, [])


def stack_timetable(seed: int, seconds: float, *, restarts: bool) -> list[Act]:
    """As above, for a whole installation: each kind of act once, in an order by chance; then by their weights."""
    chance = random.Random(f"{seed} stack")
    weights = _weights(STACK_WEIGHTS, restarts=restarts)
    return _acts(chance, seconds, weights, STACK_GAP_S, chance.sample(sorted(weights), len(weights)))


def mesh_timetable(seed: int, seconds: float, *, restarts: bool) -> list[Act]:
    """As the first, for the mesh alone."""
    chance = random.Random(f"{seed} mesh")
    return _acts(chance, seconds, _weights(MESH_WEIGHTS, restarts=restarts), GAP_S, [])


def _weights(weights: dict[str, int], *, restarts: bool) -> dict[str, int]:
    return weights if restarts else {what: it for what, it in weights.items() if what != "restart database"}


def _acts(
    chance: random.Random, seconds: float, weights: dict[str, int], gap_s: tuple[float, float], first: list[str]
) -> list[Act]:
    acts, at, kinds = [], 0.0, iter(first)
    while (at := round(at + chance.uniform(*gap_s), 3)) < seconds:
        what = next(kinds, None) or chance.choices(list(weights), list(weights.values()))[0]
        longest = LONG_S if chance.random() < 0.5 else SHORT_S
        acts.append(Act(at, what, round(chance.uniform(0.02, longest), 3), chance.randrange(1_000_000)))
    return acts
