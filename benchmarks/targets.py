"""What figures are to reach, and which of them did; where one did not and it is known why, that is said."""

from dataclasses import dataclass
from typing import Literal

from benchmarks.timing import table


@dataclass(frozen=True)
class Target:
    """A figure beside its bound; `why` is what a profile says about a miss."""

    name: str
    figure: float
    sign: Literal["≤", "≥"]
    bound: float
    why: str = ""

    @property
    def met(self) -> bool:
        return self.figure <= self.bound if self.sign == "≤" else self.figure >= self.bound

    @property
    def cell(self) -> str:
        """The bound, as a cell of a table."""
        return f"{self.sign} {self.bound:g}" + ("" if self.met else " **missed**")

    @property
    def said(self) -> str:
        """Met, or missed and why."""
        return "met" if self.met else "**missed**" + (f": {self.why}" if self.why else "")


_MEASURED: list[Target] = []


def at_most(name: str, figure: float, bound: float, why: str = "") -> Target:
    """Keep a figure that is to be no more."""
    _MEASURED.append(Target(name, figure, "≤", bound, why))
    return _MEASURED[-1]


def at_least(name: str, figure: float, bound: float, why: str = "") -> Target:
    """Keep a figure that is to be no less."""
    _MEASURED.append(Target(name, figure, "≥", bound, why))
    return _MEASURED[-1]


def taken() -> list[Target]:
    """Those kept since the last time."""
    found = _MEASURED.copy()
    _MEASURED.clear()
    return found


def summary(found: list[Target]) -> str:
    """All of them in one table."""
    rows = [[it.name, f"{it.figure:.2f}", f"{it.sign} {it.bound:g}", it.said] for it in found]
    return table(["target", "measured", "bound", ""], rows)
