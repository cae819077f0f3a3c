"""`usage.report`: sums of what was used, from the records that the commits themselves kept.

A page holds whole groups, found first and then summed, so that no group is cut in two; the total is that
of all pages. A principal sees the namespaces that it reaches. Reads only.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, func, select, tuple_
from sqlmodel import Session

from controlplane.economy.meters import HOUR_S, MICRO, What, hour_of
from controlplane.economy.rating import ZERO, RateCard, shown
from controlplane.operations.living import paging
from controlplane.operations.living.chains import below
from controlplane.operations.living.envelopes import moment
from controlplane.resources.problems import refuse
from controlplane.store.store import Store
from controlplane.store.usage_tables import OF_CHAINS, USED
from schemas.ports import Handler
from schemas.principal import Call, Principal
from schemas.usage import By, UsageItem, UsageReport, UsageReportInput

DEFAULT_S = timedelta(hours=24)
CHAIN_S = timedelta(days=400)  # a chain is as long as it is
HOURS_OF_DAY = 24
FIRST_YEAR, LAST_YEAR = 2000, 2999
Sum = tuple[What, str, int]


class Window(NamedTuple):
    """Whole hours, the last one not included."""

    first: int
    end: int


def handlers(store: Store, card: RateCard) -> dict[str, Handler]:
    """The handler of `usage.report`."""

    async def report(call: Call, given: UsageReportInput) -> UsageReport:
        window = window_of(given, call.now)
        of = USED if given.chain is None else OF_CHAINS
        keys = _keys(of, given.by)
        after = None if given.page is None else paging.decode(given.page, _types(given.by))
        where = _where(of, given, window, call.principal)

        def query(session: Session) -> tuple[Sequence[Any], list[Any], list[Any]]:
            found = _groups(session, keys, where, after, given.limit + 1)
            shown_groups = found[: given.limit]
            sums = _sums(session, of, keys, where, shown_groups) if shown_groups else []
            return found, sums, _sums(session, of, (), where, ())

        groups, sums, total = await store.read(query)
        used = [(What(*row[-4:-2]), row[-2], int(row[-1])) for row in total]
        last = groups[given.limit - 1] if len(groups) > given.limit else None
        return UsageReport(
            since=moment(window.first * HOUR_S),
            until=moment(window.end * HOUR_S),
            by=given.by,
            currency=card.currency,
            items=[_item(given.by, key, of_key, card) for key, of_key in _by_key(sums, len(keys)).items()],
            meters=amounts(used),
            money=shown(card.total(used)),
            next_page=None if last is None else paging.encode(list(last)),
        )

    return {"usage.report": report}


def window_of(given: UsageReportInput, now: float) -> Window:
    """The hours that are asked for; raises OUT_OF_RANGE."""
    until = moment(now) if given.until is None else within_reach(given.until, "/until")
    by_default = until - (DEFAULT_S if given.chain is None else CHAIN_S)
    since = by_default if given.since is None else within_reach(given.since, "/since")
    if since > until:
        detail = f"since ({since.isoformat()}) lies after until ({until.isoformat()})"
        raise refuse("OUT_OF_RANGE", detail, field="/since", since=since.isoformat(), until=until.isoformat())
    last = hour_of(until.timestamp())
    return Window(hour_of(since.timestamp()), last if until.timestamp() == last * HOUR_S else last + 1)


def within_reach(at: datetime, field: str) -> datetime:
    """The moment, if calendars of ours hold it and its neighbours; raises OUT_OF_RANGE."""
    if FIRST_YEAR <= at.year <= LAST_YEAR:
        return at
    detail = f"the year {at.year} does not lie between {FIRST_YEAR} and {LAST_YEAR}"
    raise refuse("OUT_OF_RANGE", detail, field=field, year=at.year, min=FIRST_YEAR, max=LAST_YEAR)


def amounts(used: Iterable[Sum]) -> dict[str, float]:
    """The amount of each meter, in the order of their names."""
    found: dict[str, int] = {}
    for _, meter, amount in used:
        found[meter] = found.get(meter, 0) + amount
    return {meter: found[meter] / MICRO for meter in sorted(found)}


def _keys(of: Any, by: By) -> tuple[Any, ...]:
    if by == "namespace":
        return (of.namespace,)
    return (of.namespace, of.hour - of.hour % HOURS_OF_DAY if by == "day" else of[by])


def _types(by: By) -> tuple[type, ...]:
    return (str,) if by == "namespace" else (str, int if by in ("hour", "day") else str)


def _where(of: Any, given: UsageReportInput, window: Window, principal: Principal) -> list[ColumnElement[bool]]:
    where = [of.hour >= window.first, of.hour < window.end]
    if given.namespace is not None:
        where.append(of.namespace == given.namespace)
    elif "*" not in principal.namespaces:
        where.append(of.namespace.in_(principal.namespaces))
    if given.agent is not None:
        where.append(of.agent == given.agent)
    if given.fleet is not None:
        where.append(of.fleet == given.fleet)
    if given.chain is not None:
        where.append(of.chain.in_(below(given.chain)))
    return where


def _groups(session: Session, keys: Any, where: Any, after: list[Any] | None, limit: int) -> list[Any]:
    query = select(*keys).where(*where).distinct().order_by(*keys).limit(limit)
    if after is not None:
        query = query.where(tuple_(*keys) > tuple_(*after))
    return [tuple(row) for row in session.connection().execute(query)]


def _sums(session: Session, of: Any, keys: Any, where: Any, within: Sequence[Any]) -> list[Any]:
    """Sums by key, effect, connection and meter, of the groups from the first to the last of those given."""
    by = (*keys, of.effect, of.connection, of.meter)
    query = select(*by, func.sum(of.amount)).where(*where).group_by(*by).order_by(*by)
    if within:
        query = query.where(tuple_(*keys) >= tuple_(*within[0]), tuple_(*keys) <= tuple_(*within[-1]))
    return [tuple(row) for row in session.connection().execute(query)]


def _by_key(sums: Iterable[Any], width: int) -> dict[Any, list[Sum]]:
    found: dict[Any, list[Sum]] = {}
    for row in sums:
        found.setdefault(row[:width], []).append((What(*row[width : width + 2]), row[width + 2], int(row[-1])))
    return found


def _item(by: By, key: Any, used: Sequence[Sum], card: RateCard) -> UsageItem:
    named: dict[str, Any] = {}
    if by in ("hour", "day"):
        named["since"] = moment(key[1] * HOUR_S)
    elif by != "namespace":
        named[by] = key[1] or None
    money = card.total(used) if used else ZERO
    return UsageItem(namespace=key[0], **named, meters=amounts(used), money=shown(money))
