"""Cron expressions and time zones: what is taken, and refused where it is written.

Five fields (minute, hour, day of month, month, day of week), or six with the second first. A zone is a
name of the IANA database, as the pinned package `tzdata` has it, so that it is known without a network.
"""

from datetime import UTC, datetime
from functools import lru_cache
from importlib.resources import files
from typing import Annotated, Literal

from cronsim import CronSim, CronSimError
from pydantic import AfterValidator, StringConstraints

CRON_PATTERN = r"^([0-9A-Za-z*,/#-]+ ){4,5}[0-9A-Za-z*,/#-]+$"
ZONE_PATTERN = r"^[A-Za-z][A-Za-z0-9_+-]*(/[A-Za-z0-9_+-]+){0,2}$"
CRON_CHARS_MAX, ZONE_CHARS_MAX = 200, 64
_A_LEAP_YEAR = datetime(2024, 1, 1, tzinfo=UTC)


@lru_cache(maxsize=1)
def zones() -> frozenset[str]:
    """Every name of a time zone."""
    return frozenset(files("tzdata").joinpath("zones").read_text().split())


def require_cron(text: str) -> str:
    """The expression, if it is one, and is ever due; else a ValueError."""
    try:
        due = next(CronSim(text, _A_LEAP_YEAR), None)
    except CronSimError as error:
        raise ValueError(f"it is no cron expression: {str(error).lower()}") from None
    if due is None:
        raise ValueError("it is a cron expression that is never due")
    return text


def require_zone(name: str) -> str:
    """The name, if it is a time zone's; else a ValueError."""
    if name not in zones():
        raise ValueError("it is no time zone of the IANA database, as Europe/Berlin is")
    return name


Cron = Annotated[str, StringConstraints(pattern=CRON_PATTERN, max_length=CRON_CHARS_MAX), AfterValidator(require_cron)]
Zone = Annotated[str, StringConstraints(pattern=ZONE_PATTERN, max_length=ZONE_CHARS_MAX), AfterValidator(require_zone)]
Missed = Literal["fire_once", "skip", "all"]
