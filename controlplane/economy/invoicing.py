"""An invoice: what each agent's meters cost, in cents that add up. Pure.

The total is the exact sum, rounded once. Each line gets its cents rounded down, and the cents that are
then missing go to the lines that lost most by that: so lines add up to agents, and agents to the total.
All that a namespace used is rounded together, also where only a part of it is asked for: so parts add up, too.
"""

from collections.abc import Iterable, Sequence
from decimal import ROUND_FLOOR, ROUND_HALF_EVEN, Decimal
from typing import NamedTuple

from controlplane.economy.meters import What
from controlplane.economy.rating import EXACT, ZERO, RateCard, cost

CENT = Decimal("0.01")
NOTHING = Decimal("0.00")


class Line(NamedTuple):
    """One meter of one agent in one fleet: millionths, the rate for one, what that is exactly, and in cents."""

    agent: str
    fleet: str
    what: What
    meter: str
    amount: int
    rate: Decimal
    exact: Decimal
    money: Decimal


def lines(card: RateCard, used: Iterable[tuple[str, str, What, str, int]]) -> list[Line]:
    """The lines of what costs anything, their money in cents."""
    exact: list[Line] = []
    for agent, fleet, what, meter, amount in used:
        rate = card.rate(what, meter)
        if rate and amount:
            exact.append(Line(agent, fleet, what, meter, amount, rate, cost(amount, rate), ZERO))
    cents = rounded([it.exact for it in exact])
    return [it._replace(money=money) for it, money in zip(exact, cents, strict=True)]


def merged(found: Iterable[Line]) -> list[Line]:
    """One line for each meter of an agent, whatever fleets it was of."""
    sums: dict[tuple[str, What, str], Line] = {}
    for it in found:
        key = (it.agent, it.what, it.meter)
        known = sums.get(key, it._replace(amount=0, exact=ZERO, money=NOTHING))
        exact, money = EXACT.add(known.exact, it.exact), known.money + it.money
        sums[key] = known._replace(amount=known.amount + it.amount, exact=exact, money=money)
    return [sums[key] for key in sorted(sums)]


def rounded(amounts: Sequence[Decimal]) -> list[Decimal]:
    """The amounts in cents, whose sum is that of the amounts, rounded."""
    floors = [it.quantize(CENT, ROUND_FLOOR, EXACT) for it in amounts]
    missing = int((total(amounts) - sum(floors, ZERO)) / CENT)
    lost = sorted(range(len(amounts)), key=lambda n: (floors[n] - amounts[n], n))
    for n in lost[:missing]:
        floors[n] += CENT
    return floors


def total(amounts: Iterable[Decimal]) -> Decimal:
    """The exact sum, in cents."""
    found = ZERO
    for amount in amounts:
        found = EXACT.add(found, amount)
    return found.quantize(CENT, ROUND_HALF_EVEN, EXACT)
