"""Invoices add up to the cent; bands come from enough windows or not at all. Pure."""

from decimal import Decimal
from math import ceil

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controlplane.economy.forecasting import LEAST, band
from controlplane.economy.invoicing import CENT, lines, rounded, total
from controlplane.economy.meters import MICRO, What
from controlplane.economy.rating import RateCard
from controlplane.economy.windows import window_at

MONEY = st.decimals(min_value=0, max_value=10**9, places=12, allow_nan=False, allow_infinity=False)


@settings(deadline=None, max_examples=200)
@given(st.lists(MONEY, max_size=30))
def test_rounded_lines_add_up_to_the_rounded_total(amounts: list[Decimal]) -> None:
    """Whatever the amounts: the cents' sum is the total's, and no line is a whole cent away from what it is."""
    found = rounded(amounts)
    assert sum(found, Decimal(0)) == total(amounts)
    assert all(abs(cents - exact) < CENT and cents % CENT == 0 for cents, exact in zip(found, amounts, strict=True))


def test_the_missing_cents_go_to_who_lost_most() -> None:
    """Three thirds of a cent are one cent, and of two that lost alike the first gets it."""
    assert rounded([Decimal("0.003"), Decimal("0.004"), Decimal("0.003")]) == [0, CENT, 0]
    assert rounded([Decimal("0.005")] * 2) == [CENT, 0]
    assert rounded([]) == []


def test_lines_say_what_they_are_made_of() -> None:
    """A line is amount times rate; what is free or was not used has none."""
    card = RateCard("EUR", {"tokens_in": Decimal("0.000003"), "free": Decimal(0)})
    used = [("echo", "", What("llm.request", "m"), it, 5_000_000 * MICRO) for it in ("tokens_in", "free", "turns")]
    (line,) = lines(card, used)
    assert (line.agent, line.meter, line.exact, line.money) == ("echo", "tokens_in", Decimal(15), Decimal("15.00"))


def test_a_band_holds_four_windows_in_five() -> None:
    """Too few say nothing; of many, a fifth at most lies outside."""
    assert band([1.0] * (LEAST - 1)) is None
    past = [float(n * n) for n in range(40)]
    found = band(past)
    assert found is not None
    outside = [it for it in past if not found.low <= it <= found.high]
    assert len(outside) <= ceil(len(past) / 5)
    assert found.low <= found.expected <= found.high


@pytest.mark.parametrize(
    ("kind", "first", "end"),
    [
        ("hour", "2026-12-31T23", "2027-01-01T00"),
        ("day", "2026-12-31T00", "2027-01-01T00"),
        ("month", "2026-12-01T00", "2027-01-01T00"),
    ],
)
def test_windows_go_by_the_calendar(kind: str, first: str, end: str) -> None:
    """The last moment of a year lies in its last hour, day and month."""
    from datetime import UTC, datetime

    def hour(text: str) -> int:
        return int(datetime.strptime(text, "%Y-%m-%dT%H").replace(tzinfo=UTC).timestamp()) // 3600

    last = datetime(2026, 12, 31, 23, 59, 59, tzinfo=UTC).timestamp()
    assert window_at(kind, last) == (hour(first), hour(end))  # type: ignore[arg-type]
    assert window_at("total", last).ends is None
