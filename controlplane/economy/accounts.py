"""Accounts: what was used of a limit, what open work may still use, and what there is no room for. Pure.

An account acts before its limit is passed: work is let in only if what was used, what open work has
reserved and the most that the new work may use stay within.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any

from controlplane.economy.meters import MICRO, Amounts, What, Who, micro
from controlplane.economy.rating import EXACT, ZERO, shown
from controlplane.economy.windows import Window
from schemas.budget import MONEY, BudgetSpec

Rows = Callable[..., list[tuple[Any, ...]]]
Labels = Mapping[str, str]


@dataclass(frozen=True)
class Work:
    """Some work of an agent, and how much it uses, or may use at most."""

    who: Who
    labels: Labels
    what: What
    amounts: Amounts


@dataclass(frozen=True)
class Excess:
    """The limit that some work could pass."""

    namespace: str
    budget: str
    action: str
    meter: str
    limit: str
    used: str
    reserved: str
    asked: str
    until: float | None
    chain: bool = False
    alone: bool = False  # it is more than the whole limit: no window has room for it


@dataclass
class Account:
    """One budget within its window. Amounts are millionths, those of money decimals."""

    namespace: str
    name: str
    generation: int
    spec: BudgetSpec
    window: Window
    used: dict[str, Decimal] = field(default_factory=dict)
    reserved: dict[str, Decimal] = field(default_factory=dict)
    chain: bool = False
    unread: bool = False  # whether what was used is to be read again: of other agents, by their labels
    foreign: str = ""  # the currency of its money, where the rate card has come to have another one

    def covers(self, who: Who, labels: Labels) -> bool:
        scope = self.spec.scope
        return (
            who.namespace == self.namespace
            and scope.agent in (None, who.agent)
            and scope.fleet in (None, who.fleet)
            and all(labels.get(key) == value for key, value in scope.labels.items())
        )

    def lacks(self, asked: Mapping[str, Decimal]) -> Excess | None:
        """The first limit that has no room for so much more."""
        for meter, most in self.spec.limits.items():
            more, limit = asked.get(meter, ZERO), limit_of(meter, most)
            used, reserved = self.used.get(meter, ZERO), self.reserved.get(meter, ZERO)
            if more > 0 and self.foreign and meter == MONEY:  # nobody can say how much that is: it is not let in
                found = self.excess(meter, limit, ZERO, ZERO, more)
                return replace(found, limit=f"{found.limit} {self.foreign}")
            if more > 0 and used + reserved + more > limit:
                return self.excess(meter, limit, used, reserved, more)
        return None

    def spent(self) -> Excess | None:
        """The first limit of which all is used."""
        for meter, most in self.spec.limits.items():
            limit, used = limit_of(meter, most), self.used.get(meter, ZERO)
            if used >= limit and not (self.foreign and meter == MONEY):
                return self.excess(meter, limit, used, self.reserved.get(meter, ZERO), ZERO)
        return None

    def excess(self, meter: str, limit: Decimal, used: Decimal, reserved: Decimal, more: Decimal) -> Excess:
        def said(amount: Decimal) -> str:
            return shown(amount if meter == MONEY else amount / MICRO)

        return Excess(
            self.namespace, self.name, self.spec.action, meter,
            said(limit), said(used), said(reserved), said(more), self.window.ends, self.chain, more > limit,
        )  # fmt: skip


def grow(sums: dict[str, Decimal], amounts: Mapping[str, Decimal], sign: int) -> None:
    for meter, amount in amounts.items():
        sums[meter] = EXACT.add(sums.get(meter, ZERO), sign * amount)


def limit_of(meter: str, most: float) -> Decimal:
    """The most of a meter, in millionths, or in money."""
    return Decimal(str(most)) if meter == MONEY else Decimal(micro(most))
