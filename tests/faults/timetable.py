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
GAP_S = (0.05, 0.7)
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
    weights = WEIGHTS if restarts else {what: it for what, it in WEIGHTS.items() if what != "restart database"}
    acts, at = [], 0.0
    while (at := round(at + chance.uniform(*GAP_S), 3)) < seconds:
        what = chance.choices(list(weights), list(weights.values()))[0]
        longest = LONG_S if chance.random() < 0.5 else SHORT_S
        acts.append(Act(at, what, round(chance.uniform(0.02, longest), 3), chance.randrange(1_000_000)))
    return acts
