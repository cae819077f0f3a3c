"""Places: how much of what is scarce may be held at once, and the share of it that one principal may hold.

Readers, calls in flight, bytes of bodies: each has one limit for the process. One principal may hold
four fifths of it, so that no token takes what all others need. Who finds no place is refused with
QUOTA before anything is kept for it, and told when to ask again.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from controlplane.resources.problems import refuse

SHARE = 0.8
RETRY_AFTER_S = 1.0


class Places:
    """A limited number of places. `name` is the limit's, as its setting is called."""

    def __init__(self, what: str, name: str, most: int) -> None:
        self.most = most
        self.share_max = max(1, int(most * SHARE))
        self.taken = 0
        self._what = what
        self._name = name
        self._of: dict[str, int] = {}

    def take(self, principal: str, places: int = 1) -> None:
        """Hold places until they are given back; raises QUOTA when there are not as many."""
        mine = self._of.get(principal, 0) + places
        if self.taken + places > self.most:
            raise refuse(
                "QUOTA",
                f"{self.most} {self._what} are the most at once ({self._name}), and all are taken",
                retry_after_s=RETRY_AFTER_S,
                limit=self._name,
                most=self.most,
                what=self._what,
            )
        if mine > self.share_max:
            raise refuse(
                "QUOTA",
                f"{principal} holds its share: {self.share_max} of {self.most} {self._what} ({self._name})",
                retry_after_s=RETRY_AFTER_S,
                limit=self._name,
                most=self.most,
                share_max=self.share_max,
                principal=principal,
                what=self._what,
            )
        self.taken += places
        self._of[principal] = mine

    def give_back(self, principal: str, places: int = 1) -> None:
        self.taken -= places
        left = self._of[principal] - places
        if left > 0:
            self._of[principal] = left
        else:
            del self._of[principal]

    @contextmanager
    def held(self, principal: str) -> Iterator[None]:
        """One place, for as long as the block runs."""
        self.take(principal)
        try:
            yield
        finally:
            self.give_back(principal)
