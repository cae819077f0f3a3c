"""Money for what was used, by the rate card of the installation. Pure, and exact: decimals, never floats.

A rate is for one of a meter. The narrowest one counts: of an effect over a connection, of the effect, of
the meter. What has no rate is free. The card is applied when usage is read, so what is shown is always
what today's card says.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Context, Decimal

from controlplane.economy.meters import MICRO, What

ZERO = Decimal(0)
EXACT = Context(prec=60)
PLACES = Decimal("0.000001")
Used = Iterable[tuple[What, str, int]]  # what did it, the meter, millionths


@dataclass(frozen=True)
class RateCard:
    """What one of each meter costs."""

    currency: str = "EUR"
    rates: Mapping[str, Decimal] = field(default_factory=dict)

    def rate(self, what: What, meter: str) -> Decimal:
        """The rate of a meter, zero where there is none."""
        for key in (f"{what.effect}@{what.connection}:{meter}", f"{what.effect}:{meter}", meter):
            if (found := self.rates.get(key)) is not None:
                return found
        return ZERO

    def money(self, what: What, meter: str, amount: int) -> Decimal:
        """What so many millionths of a meter cost."""
        return cost(amount, self.rate(what, meter))

    def total(self, used: Used) -> Decimal:
        """What all of it costs together."""
        found = ZERO
        for what, meter, amount in used:
            found = EXACT.add(found, self.money(what, meter, amount))
        return found


def cost(amount: int, rate: Decimal) -> Decimal:
    return EXACT.divide(EXACT.multiply(Decimal(amount), rate), Decimal(MICRO))


def shown(money: Decimal) -> str:
    """Money as it is answered: a decimal number as text, to the millionth, without zeros at its end."""
    text = format(EXACT.quantize(money, PLACES), "f")
    return text.rstrip("0").rstrip(".")
