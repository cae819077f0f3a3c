"""The report sums what the commits kept, in whole groups, within what a principal may see."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from sqlmodel import select

from controlplane.economy import meters
from controlplane.economy.meters import HOUR_S, MICRO, What, Who
from controlplane.economy.rating import RateCard
from controlplane.operations.living import usage
from controlplane.store.retention import Retention
from controlplane.store.store import Store
from controlplane.store.tables import CommonUsageRow, UsageRow
from controlplane.store.unit import Unit
from schemas.problem import Refusal
from schemas.usage import UsageReport, UsageReportInput
from tests.living import world

pytestmark = pytest.mark.anyio
HOUR = int(world.NOW) // HOUR_S
CARD = RateCard("EUR", {"tokens_in": Decimal("0.000003"), "llm.request@dear:tokens_in": Decimal("0.03")})


async def _used(store: Store, agent: str, meter: str, amount: float, hour: int = HOUR, **more: Any) -> None:
    row = {"namespace": "default", "effect": "", "connection": "", "fleet": "", **more}
    await world.add(store, UsageRow, agent=agent, meter=meter, amount=round(amount * MICRO), hour=hour, **row)


async def _report(store: Store, principal: Any = world.ADMIN, **given: Any) -> UsageReport:
    handler = usage.handlers(store, CARD)["usage.report"]
    answered = await handler(world.call("usage.report", principal), UsageReportInput(**given))
    assert isinstance(answered, UsageReport)
    return answered


async def test_what_an_agent_used_stays_with_the_fleet_that_it_was_of(store: Store) -> None:
    """Within one hour, too: nobody's bill takes over what was another's."""
    for fleet, seconds in (("a", 2.0), ("b", 3.0), ("a", 1.0)):
        used = meters.rows(Who("default", "echo", fleet), meters.TURN, {"active_s": meters.micro(seconds)}, world.NOW)
        assert await store.write(Unit().raw(used[0][0], used[0][1], used[0][2]))
    assert (await _report(store, fleet="a")).meters == {"active_s": 3.0}
    assert (await _report(store, fleet="b")).meters == {"active_s": 3.0}


async def test_pages_hold_whole_groups_and_the_total_of_all(store: Store) -> None:
    """Every agent comes once with all its meters; each page says the same total."""
    for n in range(5):
        await _used(store, f"a{n}", "turns", n + 1)
        await _used(store, f"a{n}", "turns", 1, HOUR - 1)
        await _used(store, f"a{n}", "tokens_in", 1000, effect="llm.request", connection="cheap")
    seen, page, pages = [], None, 0
    while pages == 0 or page is not None:
        found = await _report(store, limit=2, page=page)
        assert (found.meters, found.money) == ({"tokens_in": 5000.0, "turns": 20.0}, "0.015")
        seen += [(it.agent, it.meters, it.money) for it in found.items]
        page, pages = found.next_page, pages + 1
    assert seen == [(f"a{n}", {"tokens_in": 1000.0, "turns": n + 2.0}, "0.003") for n in range(5)]
    assert pages == 3


@pytest.mark.parametrize("by", ["namespace", "agent", "fleet", "effect", "meter", "hour", "day"])
async def test_every_grouping_adds_up(store: Store, by: Any) -> None:
    """Whatever it is grouped by, its groups are all of the total, and the narrowest rate counts."""
    await _used(store, "echo", "tokens_in", 10, effect="llm.request", connection="dear", fleet="echoes")
    await _used(store, "echo", "tokens_in", 10, effect="llm.request", connection="cheap")
    await _used(store, "other", "turns", 3, HOUR - 2)
    found = await _report(store, by=by)
    assert found.meters == {"tokens_in": 20.0, "turns": 3.0}
    assert found.money == "0.30003"
    assert sum((Decimal(it.money) for it in found.items), Decimal(0)) == Decimal(found.money)
    assert sum(sum(it.meters.values()) for it in found.items) == 23.0


async def test_hours_of_other_times_and_namespaces_are_left_out(store: Store) -> None:
    """Only whole hours of the window count, and only what the principal reaches."""
    await _used(store, "echo", "turns", 1, HOUR - 24)
    await _used(store, "echo", "turns", 2, HOUR - 25)
    await _used(store, "echo", "turns", 4, namespace="elsewhere")
    await _used(store, "echo", "turns", 8)
    assert (await _report(store)).meters == {"turns": 13.0}
    assert (await _report(store, world.ELSEWHERE)).meters == {"turns": 4.0}
    assert (await _report(store, namespace="default", fleet="echoes")).items == []
    since, until = (datetime.fromtimestamp((HOUR + n) * HOUR_S, UTC) for n in (-25, -24))
    exact = await _report(store, namespace="default", since=since, until=until)
    assert (exact.meters, exact.since, exact.until) == ({"turns": 2.0}, since, until)


async def test_a_window_that_ends_before_it_begins_is_refused(quick_store: Store) -> None:
    """It is OUT_OF_RANGE at /since."""
    since = datetime.fromtimestamp(world.NOW + 2 * HOUR_S, UTC)
    with pytest.raises(Refusal) as refused:
        await _report(quick_store, since=since)
    assert (refused.value.problem.reason, refused.value.problem.field) == ("OUT_OF_RANGE", "/since")


async def test_old_sums_are_swept(store: Store) -> None:
    """What is older than is kept goes, hour by hour; the rest stays."""
    await _used(store, "echo", "turns", 1, HOUR - 3)
    await _used(store, "echo", "turns", 1)
    for hour in (HOUR - 3, HOUR):
        key = {"namespace": "default", "effect": "", "connection": "", "fleet": ""}
        await world.add(store, CommonUsageRow, agent="echo", hour=hour, turns=MICRO, cpu_s=MICRO, **key)
    assert (await _report(store)).meters == {"cpu_s": 2, "turns": 4}
    await Retention(store, 60.0, 60.0, usage_retention_s=2.0 * HOUR_S).sweep(world.NOW)
    for table in (UsageRow, CommonUsageRow):
        assert await store.read(lambda session, table=table: session.exec(select(table.hour)).all()) == [HOUR]


def test_rates_are_exact() -> None:
    """A third of a millionth, a billion times, loses nothing: money is decimal all the way."""
    card = RateCard("EUR", {"x": Decimal("0.000000333333")})
    assert card.total([(What(), "x", MICRO)] * 3) == Decimal("0.000000999999")
    assert card.money(What(), "x", 10**9 * MICRO) == Decimal("333.333")
    assert card.money(What(), "y", 10**9) == 0
