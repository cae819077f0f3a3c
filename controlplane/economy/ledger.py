"""The gate's accounts of budgets: what was used, what open work may still use, and what there is no room for.

An account acts before its limit is passed: work is let in only if what was used, what open work has
reserved and the most that the new work may use stay within. Sums are read once for each window, and then
grown by what the gate commits; read while a commit is on its way they may hold too much, never too little.
What was open before a budget was made counts when it ends; labels count as they are, so sums by them are read again.

A chain has an account like a budget, of what is done because of one message; it lies within that of the
message before, and work of it counts in all of them (`chains`).
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from decimal import Decimal
from typing import Any

import orjson

from controlplane.economy.accounts import Account, Excess, Labels, Rows, Work, grow
from controlplane.economy.chains import Chains
from controlplane.economy.meters import What, Who, hour_of
from controlplane.economy.rating import RateCard
from controlplane.economy.windows import window_at
from controlplane.store import usage as sql
from schemas.budget import MONEY, BudgetSpec


class Ledger:
    """Every budget of the installation, the chains that are open, and the work that is."""

    def __init__(self, rows: Rows, card: RateCard) -> None:
        self._rows = rows
        self._card = card
        self._accounts: dict[str, list[Account]] = {}
        self._open: dict[Any, Work] = {}
        self._stale = True
        self.chains = Chains(rows, self.priced)

    def moved(self) -> None:
        """Budgets may have been written: they are read again with the next question."""
        self._stale = True

    def relabelled(self, namespace: str) -> None:
        """Labels have changed: what was used under them is another sum."""
        for account in self._accounts.get(namespace, ()):
            account.unread = account.unread or bool(account.spec.scope.labels)

    def known(self, namespace: str, now: float) -> bool:
        """Whether the namespace has any budget."""
        if self._stale:
            self._read(now)
        return namespace in self._accounts

    def lacks(self, work: Work, now: float) -> Excess | None:
        """Why there is no room for the work in a budget; None when there is."""
        for account in self._of(work.who, work.labels, now):
            if (found := account.lacks(self.priced(work))) is not None:
                return found
        return None

    def spent(self, who: Who, labels: Labels, now: float) -> Excess | None:
        """The budget that is all used, and lets its agents wait."""
        for account in self._of(who, labels, now):
            if account.spec.action == "pause" and (found := account.spent()) is not None:
                return found
        return None

    def holds(self, key: Any) -> bool:
        """Whether something is reserved for it."""
        return key in self._open

    def reserve(self, key: Any, work: Work) -> None:
        """Open work: what it may use at most is no longer there for others."""
        self.release(key)
        self._open[key] = work
        self._count(work, 1)

    def release(self, key: Any) -> None:
        """The work is over, or was given up."""
        if (work := self._open.pop(key, None)) is not None:
            self._count(work, -1)

    @contextmanager
    def without(self, keys: Iterable[Any]) -> Iterator[None]:
        """For as long as it is looked at, what these have reserved is free."""
        aside = {key: work for key in keys if (work := self._open.get(key)) is not None}
        for key in aside:
            self.release(key)
        try:
            yield
        finally:
            for key, work in aside.items():
                self.reserve(key, work)

    def add(self, work: Work, now: float) -> None:
        """What was used, once it is committed."""
        for account in self._accounts.get(work.who.namespace, ()):
            if account.window.holds(hour_of(now)) and account.covers(work.who, work.labels):
                grow(account.used, self.priced(work), 1)
        for account in self.chains.counted(work.who.chain):
            grow(account.used, self.priced(work), 1)

    def _count(self, work: Work, sign: int) -> None:
        covering = (it for it in self._accounts.get(work.who.namespace, ()) if it.covers(work.who, work.labels))
        for account in (*covering, *self.chains.within(work.who.chain)):
            grow(account.reserved, self.priced(work), sign)

    def priced(self, work: Work) -> dict[str, Decimal]:
        """What the work uses of each meter, and what that costs."""
        priced = {meter: Decimal(amount) for meter, amount in work.amounts.items()}
        priced[MONEY] = self._card.total((work.what, meter, amount) for meter, amount in work.amounts.items())
        return priced

    # What is declared, and what was used of it

    def _of(self, who: Who, labels: Labels, now: float) -> Iterable[Account]:
        if not self.known(who.namespace, now):
            return
        for account in self._accounts[who.namespace]:
            if account.unread or not account.window.holds(hour_of(now)):
                account.window = window_at(account.spec.window, now)
                account.used, account.unread = self._sums(account), False
            if account.covers(who, labels):
                yield account

    def _read(self, now: float) -> None:
        known = {(it.namespace, it.name, it.generation): it for of in self._accounts.values() for it in of}
        found: dict[str, list[Account]] = {}
        for namespace, name, generation, text in self._rows(sql.BUDGETS):
            account = known.get((namespace, name, generation))
            if account is None:
                spec = BudgetSpec.model_validate(orjson.loads(text))
                account = Account(namespace, name, generation, spec, window_at(spec.window, now))
                account.foreign = spec.currency if spec.currency not in (None, self._card.currency) else ""
                account.used = self._sums(account)
                for work in self._open.values():
                    if account.covers(work.who, work.labels):
                        grow(account.reserved, self.priced(work), 1)
            found.setdefault(namespace, []).append(account)
        self._accounts, self._stale = found, False

    def _sums(self, account: Account) -> dict[str, Decimal]:
        scope = account.spec.scope
        conditions: list[str] = []
        given: list[Any] = [account.namespace, account.window.first]
        for condition, value in ((sql.OF_AGENT, scope.agent), (sql.OF_FLEET, scope.fleet)):
            if value is not None:
                conditions, given = [*conditions, condition], [*given, value]
        for pair in scope.labels.items():
            written = orjson.dumps(dict([pair])).decode()[1:-1]
            conditions, given = [*conditions, sql.LABELLED], [*given, *pair, written]
        used: dict[str, Decimal] = {}
        for effect, connection, meter, amount in self._rows(sql.sums(conditions), *given):
            work = Work(Who(account.namespace, ""), {}, What(effect, connection), {meter: int(amount)})
            grow(used, self.priced(work), 1)
        return used
