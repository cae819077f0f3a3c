"""What figures are to reach, and which of them did: a run that misses one says so, and ends with an error."""

from dataclasses import dataclass
from typing import Literal

from benchmarks.timing import table


@dataclass(frozen=True)
class Target:
    """A figure beside its bound."""

    name: str
    figure: float
    sign: Literal["≤", "≥"]
    bound: float

    @property
    def met(self) -> bool:
        return self.figure <= self.bound if self.sign == "≤" else self.figure >= self.bound

    @property
    def cell(self) -> str:
        """The bound, as a cell of a table."""
        return f"{self.sign} {self.bound:g}" + ("" if self.met else " **missed**")


MEASURED: list[Target] = []


def at_most(name: str, figure: float, bound: float) -> Target:
    """Keep a figure that is to be no more."""
    MEASURED.append(Target(name, figure, "≤", bound))
    return MEASURED[-1]


def at_least(name: str, figure: float, bound: float) -> Target:
    """Keep a figure that is to be no less."""
    MEASURED.append(Target(name, figure, "≥", bound))
    return MEASURED[-1]


def summary() -> str:
    """All of them in one table."""
    rows = [[it.name, f"{it.figure:.2f}", it.cell] for it in MEASURED]
    return table(["target", "measured", "bound"], rows)


def missed() -> list[str]:
    return [it.name for it in MEASURED if not it.met]
