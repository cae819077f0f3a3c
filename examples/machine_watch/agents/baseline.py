"""What is usual for one measure: the median of a bounded window, and how far readings lie from it.

Median and median absolute deviation are robust: a few wild readings in the window move neither. A
reading is high when it lies further above the median than four deviations, and further than a floor
that the measure brings, so that a measure which never moves does not call every wobble unusual. A
measure that has a top (a percentage) also brings a ceiling, so that a restless past does not put the
bound where no reading can ever come. Plain values in, plain values out: nothing here knows of turns.
"""

from math import inf
from statistics import median

from pydantic import BaseModel, Field

WINDOW = 60  # readings that are remembered
WARM_UP = 6  # readings before anything can be called unusual
DEVIATIONS = 4.0
SIGMA = 1.4826  # makes the median absolute deviation comparable to a standard deviation


class Baseline(BaseModel):
    """The usual of one measure, as an agent keeps it in its state."""

    values: list[float] = Field(default_factory=list)
    high: int = Field(default=0, description="How many readings in a row were high.")

    @property
    def usual(self) -> float:
        """The median of the window."""
        return median(self.values) if self.values else 0.0

    def bound(self, floor: float, ceiling: float = inf) -> float:
        """What a reading must pass to be high."""
        usual = self.usual
        spread = median(abs(value - usual) for value in self.values) if self.values else 0.0
        return max(usual + floor, min(usual + DEVIATIONS * SIGMA * spread, ceiling))

    def observe(self, value: float, floor: float, ceiling: float = inf) -> int:
        """Take a reading in; how many in a row were high, this one included."""
        high = len(self.values) >= WARM_UP and value > self.bound(floor, ceiling)
        self.high = self.high + 1 if high else 0
        self.values = [*self.values, round(value, 3)][-WINDOW:]
        return self.high
