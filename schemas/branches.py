"""Branches of a turn: lines of one handler that go on side by side, each with positions of its own.

`0` is the handler itself; what it gathers is `0.1`, `0.2`, …, what that gathers `0.1.1`, and so on. In which order
answers reached them stands in the journal, as entries of a branch that is nobody's, `order`.
"""

import re

FORMAT = 2  # of journals, as they are written: 2 has conclusions, and a hash of the state at each wait
FORMATS_READ = (1, 2)  # what this release replays: its own, and the one before
ROOT = "0"
ORDER = "order"
BRANCHES_MAX = 100  # of a turn, at once
DEPTH_MAX = 8
HELD = "held"  # told of an effect that lasts, or waits for an operator: its branch waits as at an await

Place = tuple[str, int]  # a branch, and a position of it
_NAME = re.compile(rf"0(\.[1-9][0-9]{{0,6}}){{0,{DEPTH_MAX}}}")


def is_branch(name: str) -> bool:
    """Whether a turn may have a branch of this name."""
    return _NAME.fullmatch(name) is not None
