"""Inputs and outputs about what was used, and what it costs."""

from typing import Annotated, Literal

from pydantic import Field

from schemas.base import Frozen, Identifier, Name, Output, Text, Time
from schemas.budget import MONEY, Meter
from schemas.calls import Limit, Page

By = Literal["namespace", "agent", "fleet", "effect", "meter", "hour", "day"]
Money = Annotated[Text, Field(description="A decimal number, as text, so that nothing of it is lost.")]


class UsageReportInput(Frozen):
    """What was used, by agent or whatever else; whole hours, the last 24 unless said otherwise."""

    namespace: Name | None = None
    agent: Name | None = None
    fleet: Name | None = None
    chain: Identifier | None = Field(
        default=None, description="A chain with all that lies within it, by the id of the message that it begins with."
    )
    since: Time | None = Field(
        default=None, description="From the beginning of this hour; 24 hours before `until`, of a chain 400 days."
    )
    until: Time | None = Field(default=None, description="To the end of this hour; now, when absent.")
    by: By = "agent"
    limit: Limit = 100
    page: Page | None = None


class UsageItem(Output):
    """What one agent, fleet, effect, meter or hour used: those of its names that it was grouped by are set."""

    namespace: str
    agent: str | None = None
    fleet: str | None = None
    effect: str | None = None
    meter: str | None = None
    since: Time | None = None
    meters: dict[str, float]
    money: Money


class UsageReport(Output):
    """A page of what was used, and the total of all pages."""

    since: Time
    until: Time
    by: By
    currency: str
    items: list[UsageItem]
    meters: dict[str, float] = Field(description="The total, over all pages.")
    money: Money
    next_page: str | None = None


Calendar = Literal["hour", "day", "month"]


class InvoiceInput(Frozen):
    """What a namespace costs in one window of the calendar, in UTC."""

    namespace: Name = "default"
    fleet: Name | None = None
    agent: Name | None = None
    window: Calendar = "month"
    at: Time | None = Field(default=None, description="A moment within the window; now, when absent.")


class InvoiceLine(Output):
    """One meter of one agent: amount times rate, exactly, and in cents."""

    agent: str
    effect: str | None = None
    connection: str | None = None
    meter: str
    amount: Money
    rate: Money
    exact: Money
    money: Money


class InvoiceAgent(Output):
    """An agent's lines, added up."""

    agent: str
    money: Money


class Invoice(Output):
    """Lines add up to agents, and agents to the total, to the cent."""

    namespace: str
    since: Time
    until: Time
    final: bool = Field(description="Whether the window is over.")
    currency: str
    money: Money
    agents: list[InvoiceAgent]
    lines: list[InvoiceLine]


class ForecastInput(Frozen):
    """What a window will come to, judged by those before it."""

    namespace: Name = "default"
    fleet: Name | None = None
    agent: Name | None = None
    window: Calendar = "day"
    meter: Meter = Field(default=MONEY, description="A meter, or `money`.")
    at: Time | None = Field(default=None, description="A moment within the window; now, when absent.")


class Forecast(Output):
    """Of past windows, four in five lie between `low` and `high`; all three are null where too few are known."""

    namespace: str
    since: Time
    until: Time
    meter: str
    known: bool
    windows: int = Field(description="Past windows that this rests on, from the first one with any use.")
    windows_min: int = Field(description="Under which nothing is said.")
    used: float = Field(description="What was used in the window so far.")
    low: float | None = None
    expected: float | None = None
    high: float | None = None
