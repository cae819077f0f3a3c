"""What a turn says of a timer: checked at the call, and brought into the one form that is recorded.

What was not given does not stand in the record, so that turns which were recorded before there was
more to say replay as they were.
"""

from collections.abc import Callable
from typing import Any, get_args

from ray_runtime.arguments import Json, json_bytes, seconds, short_name
from ray_runtime.problems import refuse
from schemas.cron import CRON_CHARS_MAX, Missed, require_cron, require_zone
from schemas.entry import EVERY_S_MIN
from schemas.watch import TIMER_PREFIX

POLICIES = get_args(Missed)


def timer_bytes(
    name: str,
    after_s: float | None,
    every_s: float | None,
    data: Json,
    *,
    cron: str | None,
    zone: str | None,
    missed: str | None,
) -> bytes:
    """The record of a timer, or a Refusal that names the argument that is wrong."""
    if after_s is None and every_s is None and cron is None:
        raise refuse("INVALID_VALUE", "timer: give after_s, every_s, both, or cron", field="/after_s", name=name)
    if cron is not None and (after_s is not None or every_s is not None):
        raise refuse("INVALID_VALUE", "timer: cron says when it is due; give no seconds beside it", field="/cron")
    if zone is not None and cron is None:
        raise refuse("INVALID_VALUE", "timer: a zone is one of a cron expression", field="/zone", name=name)
    if missed is not None and (missed not in POLICIES or (every_s is None and cron is None)):
        detail = f"timer: missed is one of {', '.join(POLICIES)}, of a timer that repeats"
        raise refuse("INVALID_VALUE", detail, field="/missed", name=name, policies=list(POLICIES))
    body: dict[str, Any] = {
        "name": own_name(name),
        "after_s": None if after_s is None else seconds("timer: after_s", after_s),
        "every_s": None if every_s is None else seconds("timer: every_s", every_s, least=EVERY_S_MIN),
        "data": data,
    }
    if cron is not None:
        body["cron"] = _checked("cron", cron, require_cron)
        body["zone"] = _checked("zone", "UTC" if zone is None else zone, require_zone)
    if missed is not None:
        body["missed"] = missed
    return json_bytes("timer", body)


def own_name(name: str) -> str:
    """The name of a timer that a turn may set and cancel: not one of the spec's watches."""
    if short_name("timer", name).startswith(TIMER_PREFIX):
        detail = f"timer: names that begin with {TIMER_PREFIX} are those of spec.watches"
        raise refuse("INVALID_VALUE", detail, field="/name", name=name, prefix=TIMER_PREFIX)
    return name


def _checked(what: str, value: Any, require: Callable[[str], str]) -> str:
    if not isinstance(value, str) or len(value) > CRON_CHARS_MAX or not value.isascii():
        detail = f"timer: {what} is text of at most {CRON_CHARS_MAX} characters"
        raise refuse("INVALID_VALUE", detail, field=f"/{what}", what=what, most=CRON_CHARS_MAX)
    try:
        return require(value)
    except ValueError as error:
        raise refuse(
            "INVALID_VALUE", f"timer: {what}: {error}", field=f"/{what}", what=what, fault=str(error)
        ) from error
