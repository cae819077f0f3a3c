"""Invoices and forecasts, as operations answer them from the sums that commits kept."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from controlplane.economy.forecasting import LEAST
from controlplane.economy.meters import HOUR_S, MICRO
from controlplane.economy.rating import RateCard
from controlplane.economy.windows import window_at
from controlplane.operations.living import invoices
from controlplane.store.store import Store
from controlplane.store.tables import UsageRow
from schemas.problem import Refusal
from schemas.usage import Forecast, ForecastInput, Invoice, InvoiceInput
from tests.living import world

pytestmark = pytest.mark.anyio
HOUR = int(world.NOW) // HOUR_S
CARD = RateCard("EUR", {"tokens_in": Decimal("0.000333"), "turns": Decimal("0.001")})


async def _used(store: Store, agent: str, meter: str, amount: float, hour: int = HOUR, fleet: str = "") -> None:
    row = {"namespace": "default", "effect": "", "connection": "", "fleet": fleet}
    await world.add(store, UsageRow, agent=agent, meter=meter, amount=round(amount * MICRO), hour=hour, **row)


async def _call(store: Store, name: str, given: Any) -> Any:
    return await invoices.handlers(store, CARD)[name](world.call(name), given)


async def test_an_invoice_adds_up_to_the_cent(store: Store) -> None:
    """Lines add up to their agents, and those to the total, which is the exact sum rounded once."""
    for n in range(7):
        await _used(store, f"a{n}", "tokens_in", 10 + n)
        await _used(store, f"a{n}", "turns", 3 * n)
        await _used(store, f"a{n}", "cpu_s", 1)
    await _used(store, "a0", "turns", 99, window_at("day", world.NOW).first - 1)
    found = await _call(store, "usage.invoice", InvoiceInput(window="day"))
    assert isinstance(found, Invoice)
    exact = sum((Decimal(it.amount) * Decimal(it.rate) for it in found.lines), Decimal(0))
    assert exact == sum((Decimal(it.exact) for it in found.lines), Decimal(0)) == Decimal("0.093303")
    assert sum((Decimal(it.money) for it in found.lines), Decimal(0)) == Decimal(found.money) == Decimal("0.09")
    assert sum((Decimal(it.money) for it in found.agents), Decimal(0)) == Decimal(found.money)
    assert {it.meter for it in found.lines} == {"tokens_in", "turns"}
    assert not found.final


async def test_invoices_of_parts_add_up(store: Store) -> None:
    """Those of each agent, and those of each fleet, come to the invoice of all, though each is less than a cent."""
    for n in range(3):
        await _used(store, f"a{n}", "turns", 4, fleet="old")
        await _used(store, f"a{n}", "turns", 3, fleet="new")
    whole = await _call(store, "usage.invoice", InvoiceInput(window="day"))
    assert (whole.money, [(it.agent, it.amount) for it in whole.lines]) == ("0.02", [(f"a{n}", "7") for n in range(3)])
    for parts in ([{"agent": f"a{n}"} for n in range(3)], [{"fleet": it} for it in ("old", "new")]):
        found = [await _call(store, "usage.invoice", InvoiceInput(window="day", **it)) for it in parts]
        assert sum(Decimal(it.money) for it in found) == Decimal("0.02")
        for it in found:
            assert sum(Decimal(line.money) for line in it.lines) == Decimal(it.money)


async def test_a_forecast_says_when_it_knows_too_little(store: Store) -> None:
    """Before enough windows with use are over it is unknown; after them it is a band around their middle."""
    for n in range(1, LEAST):
        await _used(store, "echo", "turns", 10 + n, HOUR - n)
    await _used(store, "echo", "turns", 4)
    found = await _call(store, "usage.forecast", ForecastInput(window="hour", meter="turns"))
    assert isinstance(found, Forecast)
    assert (found.known, found.windows, found.used, found.expected) == (False, LEAST - 1, 4.0, None)
    await _used(store, "echo", "turns", 10 + LEAST, HOUR - LEAST - 1)  # an hour of nothing lies between
    found = await _call(store, "usage.forecast", ForecastInput(window="hour", meter="turns"))
    assert (found.known, found.windows) == (True, LEAST + 1)
    assert found.low <= 14 == found.expected <= found.high
    money = await _call(store, "usage.forecast", ForecastInput(window="hour"))
    assert money.expected == pytest.approx(0.014)


async def test_years_beyond_the_calendar_are_refused(quick_store: Store) -> None:
    """It is OUT_OF_RANGE at /at, and the last year that is taken is answered."""
    with pytest.raises(Refusal) as refused:
        await _call(quick_store, "usage.invoice", InvoiceInput(at=datetime(9999, 12, 31, tzinfo=UTC)))
    assert (refused.value.problem.reason, refused.value.problem.field) == ("OUT_OF_RANGE", "/at")
    last = await _call(quick_store, "usage.invoice", InvoiceInput(at=datetime(2999, 12, 31, tzinfo=UTC)))
    assert (last.lines, last.money, last.until.year) == ([], "0.00", 3000)
