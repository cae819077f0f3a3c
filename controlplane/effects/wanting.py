"""Which hosts are wanted, by id: each for whoever shares hosts, or kept for one agent.

Of a host that never comes another is asked for, less and less often, and by what it was wanted for: an
agent that wants more than there is delays nobody else. So it is by node of those that agents share: one that
dies with a host on its way delays no host elsewhere.
"""

import secrets
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from controlplane.effects.confining import apart_of, is_confined
from controlplane.effects.keys import SHARED
from schemas.frames import HostsWanted
from schemas.ports import Clock

BACKOFF_S, BACKOFF_S_MAX = 0.5, 15.0


class Wish(NamedTuple):
    """Since when a host is wanted, for whom, and on which node: Ray's id of it, empty for the gate's own."""

    since: float
    reserved: str
    node: str = ""
    uid: int = 0  # as whom it runs, where it is confined


@dataclass(slots=True)
class Setback:
    """How often no host came, when one is asked for again, and what was said last."""

    failures: int = 0
    again_at: float = 0.0
    why: str = ""


class Wishes:
    """The hosts that are wanted, those that are here among them."""

    def __init__(self, steady: Clock, uids: range) -> None:
        self._steady = steady
        self._uids = uids
        self._wishes: dict[str, Wish] = {}
        self._setbacks: dict[tuple[str, str], Setback] = {}  # by what it is for, and where a shared one shall be

    def __len__(self) -> int:
        return len(self._wishes)

    def __contains__(self, host_id: str) -> bool:
        return host_id in self._wishes

    def put(self, host_id: str, reserved: str = SHARED, node: str = "", uid: int = 0) -> None:
        self._wishes[host_id] = Wish(self._steady(), reserved, node, uid)

    def uid_of(self, host_id: str) -> int:
        """As whom a host was asked for; 0 where it has our uid, or was not asked for."""
        wish = self._wishes.get(host_id)
        return wish.uid if wish is not None else 0

    def address_of(self, host_id: str) -> str:
        """For whose own it was asked; empty where agents share it."""
        wish = self._wishes.get(host_id)
        apart = apart_of(wish.reserved) if wish is not None else None
        return apart.address if apart is not None else ""

    def on(self) -> Counter[str]:
        """How many are wanted on each node, here or on their way; a reserved one counts where it came to."""
        return Counter(it.node for it in self._wishes.values())

    def arrived(self, host_id: str, reserved: str, node: str) -> bool:
        """Whether it was asked for."""
        asked = host_id in self._wishes
        self.put(host_id, reserved, node, self.uid_of(host_id))
        self._setbacks.pop(_place(reserved, node), None)
        return asked

    def drop(self, host_id: str) -> None:
        self._wishes.pop(host_id, None)

    def failed(self, host_id: str, why: str) -> None:
        """It never came, and will not."""
        wish = self._wishes.pop(host_id, None)
        if wish is None:
            return
        setback = self._setbacks.setdefault(_place(wish.reserved, wish.node), Setback())
        setback.again_at = self._steady() + min(BACKOFF_S * 2**setback.failures, BACKOFF_S_MAX)
        setback.failures += 1
        setback.why = why

    def why_not(self, reserved: str) -> str:
        """What was said of the last host that never came; empty when none failed to."""
        if reserved:
            setback = self._setbacks.get(_place(reserved, ""))
            return "" if setback is None else setback.why
        found = [it for (of, _), it in self._setbacks.items() if not of]
        return max(found, key=lambda it: it.again_at).why if found else ""

    def too_early(self, reserved: str, node: str) -> bool:
        """Whether none is asked for again yet on this node."""
        setback = self._setbacks.get(_place(reserved, node))
        return setback is not None and self._steady() < setback.again_at

    def ask(self, reserved: str, node: str) -> bool:
        """One more on this node, unless it is too early to ask again."""
        if self.too_early(reserved, node):
            return False
        uid = self._free_uid() if is_confined(reserved) else 0
        self.put(f"h{secrets.token_hex(6)}", reserved, node, uid)
        return True

    def _free_uid(self) -> int:
        """One that no host has; by chance, so that one whose host is ending is hardly ever next. 0: there is none."""
        taken = {it.uid for it in self._wishes.values()}
        if len(taken) >= len(self._uids):
            return 0
        while (uid := secrets.choice(self._uids)) in taken:
            pass
        return uid

    def coming(self, here: set[str]) -> Counter[str]:
        """How many are on their way, by whom they are for."""
        return Counter(it.reserved for host_id, it in self._wishes.items() if host_id not in here)

    def shared_on_their_way(self, here: set[str]) -> Counter[str]:
        """How many of those that agents share are on their way to each node."""
        return Counter(it.node for host_id, it in self._wishes.items() if host_id not in here and not it.reserved)

    def overdue(self, here: set[str], appear_s: float) -> list[str]:
        """Those that were asked for so long ago and have not come."""
        due = self._steady() - appear_s
        return [host_id for host_id, it in self._wishes.items() if host_id not in here and it.since < due]

    def unneeded(self, here: set[str], needed: set[str]) -> list[str]:
        """Those on their way to an agent that wants none any more; setbacks of such agents are forgotten."""
        kept = needed | {SHARED}
        for place in [it for it in self._setbacks if it[0] not in kept]:
            del self._setbacks[place]
        gone = (it for it in self._wishes.items() if it[0] not in here and it[1].reserved)
        return [host_id for host_id, it in gone if it.reserved not in needed]

    def stranded(self, here: set[str], nodes: Sequence[str]) -> list[str]:
        """Those on their way to another node that takes none any more; setbacks there are forgotten."""
        for place in [it for it in self._setbacks if it[1] and it[1] not in nodes]:
            del self._setbacks[place]
        on_their_way = (it for it in self._wishes.items() if it[0] not in here and it[1].node)
        return [host_id for host_id, it in on_their_way if not it.reserved and it.node not in nodes]

    def said(self, avoid: Sequence[str]) -> HostsWanted:
        """What the placer is told; saying it twice changes nothing."""
        kept = {host_id: it.reserved for host_id, it in self._wishes.items() if it.reserved}
        there = {host_id: it.node for host_id, it in self._wishes.items() if it.node and not it.reserved}
        uids = {host_id: it.uid for host_id, it in self._wishes.items() if it.uid}
        return HostsWanted(
            sorted(self._wishes),
            dict(sorted(kept.items())),
            dict(sorted(there.items())),
            dict(sorted(uids.items())),
            list(avoid),
        )


def _place(reserved: str, node: str) -> tuple[str, str]:
    """What one setback is about: where a host of an agent's own comes to is the placer's choice."""
    return reserved, "" if reserved else node
