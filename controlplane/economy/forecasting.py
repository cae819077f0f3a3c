"""What a window will come to, judged by those before it. Pure.

A band, not a number: of past windows that are over, four in five lay within it. Of fewer than `LEAST`
nothing is said, and a window without any use counts as one of zero, once there was any.
"""

from collections.abc import Sequence
from statistics import median, quantiles
from typing import NamedTuple

LEAST = 8
MOST = 60
TENTHS = 10


class Band(NamedTuple):
    """What is to be expected, and between what."""

    low: float
    expected: float
    high: float


def band(past: Sequence[float]) -> Band | None:
    """The band of the past windows' sums; None where there are too few."""
    if len(past) < LEAST:
        return None
    tenths = quantiles(past, n=TENTHS, method="inclusive")
    return Band(tenths[0], median(past), tenths[-1])
