"""`usage.invoice` and `usage.forecast`: one window of the calendar, priced, and judged by those before it.

Both read the sums that commits kept; the arithmetic is the economy's. Reads only.
"""

from collections.abc import Iterable
from decimal import Decimal
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, func, select
from sqlmodel import Session

from controlplane.economy import forecasting, invoicing
from controlplane.economy.meters import HOUR_S, MICRO, What
from controlplane.economy.rating import ZERO, RateCard, shown
from controlplane.economy.windows import Window, window_at
from controlplane.operations.living.envelopes import moment
from controlplane.operations.living.usage import within_reach
from controlplane.resources.problems import refuse
from controlplane.store.store import Store
from controlplane.store.usage_tables import USED
from schemas.budget import MONEY
from schemas.ports import Handler
from schemas.principal import Call
from schemas.problem import Next
from schemas.usage import Forecast, ForecastInput, Invoice, InvoiceAgent, InvoiceInput, InvoiceLine

LINES_MAX = 5_000
ROUNDED_MAX = 100_000  # lines of a namespace that are rounded together
_LINE = (USED.agent, USED.fleet, USED.effect, USED.connection, USED.meter)
_HOURLY = (USED.hour, USED.effect, USED.connection, USED.meter)
_AMOUNT = func.sum(USED.amount)


class Hourly(NamedTuple):
    """What was used of a meter within an hour."""

    hour: int
    what: What
    meter: str
    amount: int


def handlers(store: Store, card: RateCard) -> dict[str, Handler]:
    """The handlers of `usage.invoice` and `usage.forecast`."""

    async def invoice(call: Call, given: InvoiceInput) -> Invoice:
        window = _window(given, call.now)
        rows = await store.read(lambda session: _sums(session, _LINE, _within(given, window), ROUNDED_MAX + 1))
        if len(rows) > ROUNDED_MAX:
            raise _too_many(given, f"the namespace has more than {ROUNDED_MAX} lines in it; ask for less time")
        all_lines = invoicing.lines(card, [(*row[:2], What(*row[2:4]), row[4], int(row[5])) for row in rows])
        lines = invoicing.merged(
            it for it in all_lines if given.agent in (None, it.agent) and given.fleet in (None, it.fleet)
        )
        if len(lines) > LINES_MAX:
            raise _too_many(given, f"it has more than {LINES_MAX} lines; ask by agent or fleet, or for less time")
        return Invoice(
            namespace=given.namespace,
            since=moment(window.first * HOUR_S),
            until=moment(window.end * HOUR_S),
            final=window.end * HOUR_S <= call.now,
            currency=card.currency,
            money=str(sum((it.money for it in lines), invoicing.NOTHING)),
            agents=[InvoiceAgent(agent=agent, money=str(money)) for agent, money in _by_agent(lines).items()],
            lines=[_line(it) for it in lines],
        )

    async def forecast(call: Call, given: ForecastInput) -> Forecast:
        window = _window(given, call.now)
        windows = _before(given, window)
        where = _where(given, Window(windows[-1].first, window.end))
        if given.meter != MONEY:
            where.append(USED.meter == given.meter)
        rows = await store.read(lambda session: _sums(session, _HOURLY, where))
        used = [Hourly(row[0], What(row[1], row[2]), row[3], int(row[4])) for row in rows]
        first = min((it.hour for it in used), default=window.first)
        past = [_sum(card, given.meter, it, used) for it in windows if it.end > first]
        found = forecasting.band(past)
        return Forecast(
            namespace=given.namespace,
            since=moment(window.first * HOUR_S),
            until=moment(window.end * HOUR_S),
            meter=given.meter,
            known=found is not None,
            windows=len(past),
            windows_min=forecasting.LEAST,
            used=_sum(card, given.meter, window, used),
            **({} if found is None else found._asdict()),
        )

    return {"usage.invoice": invoice, "usage.forecast": forecast}


def _window(given: InvoiceInput | ForecastInput, now: float) -> Window:
    return window_at(given.window, now if given.at is None else within_reach(given.at, "/at").timestamp())


def _before(given: ForecastInput, window: Window) -> list[Window]:
    """The windows before one, the latest first."""
    found: list[Window] = []
    while len(found) < forecasting.MOST:
        window = window_at(given.window, (window.first - 1) * HOUR_S)
        found.append(window)
    return found


def _within(given: InvoiceInput | ForecastInput, window: Window) -> list[ColumnElement[bool]]:
    return [USED.namespace == given.namespace, USED.hour >= window.first, USED.hour < window.end]


def _where(given: ForecastInput, window: Window) -> list[ColumnElement[bool]]:
    where = _within(given, window)
    if given.agent is not None:
        where.append(USED.agent == given.agent)
    if given.fleet is not None:
        where.append(USED.fleet == given.fleet)
    return where


def _sums(session: Session, by: Any, where: Any, limit: int | None = None) -> list[Any]:
    query = select(*by, _AMOUNT).where(*where).group_by(*by).order_by(*by).limit(limit)
    return [tuple(row) for row in session.connection().execute(query)]


def _sum(card: RateCard, meter: str, window: Window, used: Iterable[Hourly]) -> float:
    within = [it for it in used if window.holds(it.hour)]
    if meter == MONEY:
        return float(card.total((it.what, it.meter, it.amount) for it in within))
    return sum(it.amount for it in within) / MICRO


def _by_agent(lines: Iterable[invoicing.Line]) -> dict[str, Decimal]:
    found: dict[str, Decimal] = {}
    for line in lines:
        found[line.agent] = found.get(line.agent, ZERO) + line.money
    return found


def _line(it: invoicing.Line) -> InvoiceLine:
    return InvoiceLine(
        agent=it.agent,
        effect=it.what.effect or None,
        connection=it.what.connection or None,
        meter=it.meter,
        amount=shown(Decimal(it.amount) / MICRO),
        rate=format(it.rate.normalize(), "f"),
        exact=format(it.exact.normalize(), "f"),
        money=str(it.money),
    )


def _too_many(given: InvoiceInput, detail: str) -> Exception:
    arguments = {"namespace": given.namespace, "by": "agent"}
    step = Next(operation="usage.report", arguments=arguments, why="shows the same by pages, without cents that add up")
    return refuse("TOO_MANY_LINES", detail, field="/window", next=[step], max=LINES_MAX, window=given.window)
