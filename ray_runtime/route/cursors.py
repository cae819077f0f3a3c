"""Values of a poll's cursor: which may be one, which comes first, and whether rows can be in order. Pure.

They come as JSON: decimals, and what is too large for a number, as text, times as RFC 3339. So numbers are compared as
numbers and times as moments, however they are written. The order of other text is its collation's, which the database
alone knows: of that only what a poll needs is asked, that rows of one value stand together.
"""

import re
import unicodedata
from collections.abc import Callable, Sequence
from datetime import datetime
from decimal import Decimal
from itertools import groupby, pairwise
from typing import Any

Value = str | int | float
_NUMBER = re.compile(r"[+-]?[0-9]+(\.[0-9]+)?(E[+-]?[0-9]{1,6})?|[+-]?inf(inity)?|nan", re.IGNORECASE)
_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")


def alike(one: Value, other: Value) -> bool:
    """Whether a database may hold two values for one: 9.0 and 9.00, a moment in two zones, `a` and `A`."""
    return one == other or any((found := read(one)) is not None and found == read(other) for read in (*_READ, _plain))


def ordered(before: Value, after: Value) -> bool:
    """Whether a value does not lie behind another one; text that is neither number nor time goes by its characters."""
    for read in _READ:
        first, second = read(before), read(after)
        if first is not None and second is not None:
            return bool(first <= second)
    return isinstance(before, str) and isinstance(after, str) and before <= after


def in_order(values: Sequence[Value], kept: Value) -> bool:
    """Whether rows with these values can be in order, `kept` being the value that they were asked for from."""
    by_characters = all(isinstance(it, str) for it in values) and _ascend(values)
    for read in _READ:
        found = [read(it) for it in values]
        if None not in found:
            return _ascend(found) or by_characters
    return by_characters or _together([_plain(it) for it in (kept, *values)])


def _ascend(found: Sequence[Any]) -> bool:
    return all(before <= after for before, after in pairwise(found))


def _together(found: Sequence[Any]) -> bool:
    """Whether what is equal stands side by side."""
    groups = [it for it, _ in groupby(found)]
    return len(set(groups)) == len(groups)


def _number(value: Value) -> Any:
    """As databases order numbers: what is none comes last."""
    if isinstance(value, str) and not _NUMBER.fullmatch(value):
        return None
    found = Decimal(value)
    return (1, 0) if found.is_nan() else (0, found)


def _moment(value: Value) -> datetime | None:
    """A time with its offset."""
    found = _time(value)
    return found if found is not None and found.tzinfo is not None else None


def _local(value: Value) -> datetime | None:
    """A day, or a time that says no offset."""
    found = _time(value)
    return found if found is not None and found.tzinfo is None else None


def _time(value: Value) -> datetime | None:
    if not isinstance(value, str) or not _DAY.match(value):
        return None
    try:
        return datetime.fromisoformat(value)
    except ValueError:
        return None


def _plain(value: Value) -> Value:
    """Text as collations may see it, that tell neither case nor accents apart."""
    if not isinstance(value, str):
        return value
    return "".join(it for it in unicodedata.normalize("NFKD", value.casefold()) if not unicodedata.combining(it))


_READ: tuple[Callable[[Value], Any], ...] = (_number, _moment, _local)
