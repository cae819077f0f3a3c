"""The accounts of chains: what a message and all the work because of it may use, within that of the message before.

Work counts in its own chain and in all that this one lies within, so a hop can narrow what is above it and
never widen it. A chain's sums are those of the usage records of itself and of all below it, read when it is
first asked for; what is not asked for any more is forgotten. It has no window, so nothing in it ever waits
for a next one: what is used up is refused.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal

import orjson

from controlplane.economy.accounts import Account, Excess, Rows, Work, grow, limit_of
from controlplane.economy.meters import MICRO, TURN, What, Who, most_of_turn
from controlplane.economy.rating import ZERO
from controlplane.economy.windows import FOREVER, Window
from controlplane.store import chains as sql
from schemas.budget import MONEY, BudgetSpec

KNOWN_MAX = 10_000
NOTHING = {"turns": 0.0, "effects": 0.0}  # of a chain whose record is gone: it is as old as usage is kept
Priced = Callable[[Work], dict[str, Decimal]]


@dataclass
class Within(Account):
    """The account of one chain, and the chain that it lies within."""

    parent: str | None = None


@dataclass(frozen=True)
class Room:
    """For how long a turn may be active, and what lets it not begin: for good, or until open work has ended."""

    turn_s: float
    excess: Excess | None = None
    for_good: bool = False
    narrowed: Excess | None = None  # the limit that leaves it less than its agent's limits do


class Chains:
    """The chains that work is open in, or was lately."""

    def __init__(self, rows: Rows, priced: Priced) -> None:
        self._rows = rows
        self._priced = priced
        self._known: dict[str, Within] = {}

    def within(self, chain_id: str) -> list[Within]:
        """The accounts that work of a chain counts in, the innermost first."""
        return [account for account, _ in self._path(chain_id)]

    def counted(self, chain_id: str) -> list[Within]:
        """The same, but for those that were read just now, and so hold what was committed just now."""
        return [account for account, new in self._path(chain_id) if not new]

    def limits(self, chain_id: str) -> tuple[int, Mapping[str, float]]:
        """How many budgets a chain lies within, and the least that they allow of each meter."""
        path, found = self.within(chain_id), dict[str, float]()
        for account in path:
            for meter, most in account.spec.limits.items():
                found[meter] = min(most, found.get(meter, most))
        return len(path), found

    def lacks(self, work: Work) -> Excess | None:
        """The first limit that has no room for an effect."""
        asked = self._priced(work) if work.who.chain else {}
        return next((it for account in self.within(work.who.chain) if (it := account.lacks(asked))), None)

    def room(self, chain_id: str, turn_s_max: float, *, begins: bool, gpus: float = 0.0) -> Room:
        """What a turn may use that `begins`, or goes on, with so many GPUs of its host's own."""
        room = Room(turn_s_max)
        a_second = self._priced(Work(Who("", ""), {}, TURN, most_of_turn(1.0, gpus) | {"turns": 0}))
        for account in self.within(chain_id):
            for meter, most in account.spec.limits.items():
                limit, used = limit_of(meter, most), account.used.get(meter, ZERO)
                left = limit - used
                free = left - account.reserved.get(meter, ZERO)
                needs = Decimal(MICRO) if meter == "turns" and begins else ZERO
                seconds = _seconds(meter, free, left, a_second)
                excess = account.excess(meter, limit, used, left - free, needs)
                if needs > left or (seconds is not None and left <= 0):
                    return Room(0.0, excess, for_good=True)
                if needs > free or (seconds is not None and seconds <= 0):
                    room = Room(0.0, room.excess or excess)
                elif seconds is not None and room.excess is None and seconds < room.turn_s:
                    room = Room(float(seconds), narrowed=excess)
        return room

    def _path(self, chain_id: str) -> Iterator[tuple[Within, bool]]:
        at: str | None = chain_id or None
        while at is not None:
            account = self._known.pop(at, None)
            new = account is None
            account = account or self._read(at)
            self._known[at] = account  # the last that is to be forgotten
            yield account, new
            at = account.parent

    def _read(self, chain_id: str) -> Within:
        if len(self._known) >= KNOWN_MAX:
            self._forget()
        row = next(iter(self._rows(sql.ONE, chain_id)), (None, None, ""))
        limits = NOTHING if row[1] is None else orjson.loads(row[1])
        spec = BudgetSpec.model_construct(limits=limits, window="total", action="deny")
        account = Within(row[2], chain_id, 0, spec, Window(0, FOREVER), chain=True, parent=row[0])
        for effect, connection, meter, amount in self._rows(sql.SUMS, chain_id):
            work = Work(Who(account.namespace, ""), {}, What(effect, connection), {meter: int(amount)})
            grow(account.used, self._priced(work), 1)
        return account

    def _forget(self) -> None:
        """Half of those that nothing is open in, the longest unasked first. Above one that is open, all are."""
        idle = [name for name, it in self._known.items() if not any(it.reserved.values())]
        for name in idle[: max(1, len(idle) // 2)]:
            del self._known[name]


def _seconds(meter: str, free: Decimal, left: Decimal, a_second: Mapping[str, Decimal]) -> Decimal | None:
    """For how many seconds of a turn there is room; None where a limit does not bound them."""
    if meter == "active_s":
        return free / MICRO
    if meter == "cpu_s" and left <= 0:  # what is left of it bounds no turn: most of one is waiting
        return left
    if meter in (MONEY, "gpu_s") and a_second.get(meter, ZERO) > 0:
        return free / a_second[meter]
    return None
