"""What is metered, and the rows that a unit of the gate carries for it. Pure.

A turn meters itself in the transaction that commits its segment, an effect in that of its receipt: what
is done again after a crash commits once, and so counts once. What is lost uncommitted is not counted.
Sums are kept by agent and hour, in millionths, so that no row is written for each effect.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from controlplane.store import usage as sql
from schemas.budget import MONEY

MICRO = 1_000_000
HOUR_S = 3600
AMOUNT_MAX = 1e9  # of one meter of one effect: sums of these stay within 64 bits for as long as they are kept
METERS_MAX = 16
TURN_METERS = ("turns", "active_s", "cpu_s")
EFFECT_METERS = ("effects", "bytes_out", "bytes_in")

_COMMON = (("active_s", TURN_METERS, sql.ADD_TURN), ("effects", EFFECT_METERS, sql.ADD_EFFECT))

Row = tuple[str, tuple[Any, ...], int]
Amounts = dict[str, int]  # meter to millionths


class Who(NamedTuple):
    """Whose work it is, and within which chain."""

    namespace: str
    agent: str
    fleet: str = ""
    chain: str = ""


class What(NamedTuple):
    """What did it: an effect and its connection, or the turn itself."""

    effect: str = ""
    connection: str = ""


TURN = What()


def micro(amount: float) -> int:
    """Millionths, to the nearest."""
    return round(amount * MICRO)


def hour_of(now: float) -> int:
    return int(now // HOUR_S)


def of_turn(active_s: float, cpu_ns: int, *, ended: bool, gpus: float = 0.0) -> Amounts:
    """What a segment of a turn used, on a host that has GPUs of its own; a turn counts when it ends."""
    found = {"active_s": micro(max(0.0, active_s)), "cpu_s": max(0, cpu_ns) // 1000}
    if gpus:
        found["gpu_s"] = micro(max(0.0, active_s) * gpus)
    return {"turns": MICRO, **found} if ended else found


def most_of_turn(turn_s: float, gpus: float) -> Amounts:
    """What a turn may use that is active for so long at most."""
    return of_turn(turn_s, round(turn_s * 1e9), ended=True, gpus=gpus)


def of_effect(bytes_out: int, bytes_in: int, used: Mapping[str, float] | None = None) -> Amounts:
    """What an effect used: itself, its bytes, and what its effector says."""
    found = {"effects": MICRO, "bytes_out": bytes_out * MICRO, "bytes_in": bytes_in * MICRO}
    return {name: amount for name, amount in (fitting(used or {}) | found).items() if amount}


def fitting(used: Mapping[str, float]) -> Amounts:
    """Of what an effector says that it used, what can be counted."""
    kept = list(used.items())[:METERS_MAX] if isinstance(used, Mapping) else ()
    return {name: micro(amount) for name, amount in kept if _counts(name, amount)}


def _counts(name: Any, amount: Any) -> bool:
    """Strangers say what they like: only a number under a name is one."""
    named = isinstance(name, str) and name.isprintable() and name != MONEY
    return named and isinstance(amount, int | float) and 0 <= amount <= AMOUNT_MAX


def bounded(most: Mapping[str, float]) -> dict[str, float]:
    """Amounts, of which none is more than what can be counted."""
    return {name: min(amount, AMOUNT_MAX) for name, amount in most.items()}


def rows(who: Who, what: What, amounts: Amounts, now: float) -> list[Row]:
    """The rows that add to the sums of this hour: a single one for what all turns use, or all effects, of no chain."""
    by = (who.namespace, who.agent, hour_of(now), *what)
    found: list[Row] = []
    for mark, meters, statement in () if who.chain else _COMMON:
        if mark in amounts:
            found.append((statement, (*by, who.fleet, *(amounts.get(it, 0) for it in meters)), 1))
            amounts = {meter: amount for meter, amount in amounts.items() if meter not in meters}
    return found + [(sql.ADD, (*by, it, who.chain, who.fleet, amount), 1) for it, amount in amounts.items()]
