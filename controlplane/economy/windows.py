"""The windows of budgets and invoices: whole hours in UTC, by the calendar. Pure."""

from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from controlplane.economy.meters import HOUR_S, hour_of
from schemas.budget import WindowKind

FOREVER = 1 << 40


class Window(NamedTuple):
    """Hours since 1970; the last one is not included."""

    first: int
    end: int

    @property
    def ends(self) -> float | None:
        """When it is over, in seconds since 1970; None of what never is."""
        return None if self.end >= FOREVER else float(self.end * HOUR_S)

    def holds(self, hour: int) -> bool:
        return self.first <= hour < self.end


def window_at(kind: WindowKind, now: float) -> Window:
    """The window that a moment lies in."""
    if kind == "total":
        return Window(0, FOREVER)
    if kind == "hour":
        return Window(hour_of(now), hour_of(now) + 1)
    at = datetime.fromtimestamp(now, UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    if kind == "day":
        return Window(_hour(at), _hour(at + timedelta(days=1)))
    first = at.replace(day=1)
    return Window(_hour(first), _hour((first + timedelta(days=32)).replace(day=1)))


def _hour(at: datetime) -> int:
    return hour_of(at.timestamp())
