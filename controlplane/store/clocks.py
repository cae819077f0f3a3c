"""The time of day, which somebody may move, and the steady clock, which nobody can.

What lasts (leases, turns that hold a loop, claims that wait) is measured by the steady clock. What is
stamped or due at a time of day goes by a clock that follows the machine's forwards and never goes back:
where the machine's did, ours runs a little slower until both are one again, so that no timer stops, none
fires twice, and what ends later is stamped later. What is thrown away by age waits after a jump.
"""

from schemas.ports import Clock

TICK_S = 1e-6
SLOWER = 0.9  # of the steady clock's pace, while ours is ahead
JUMP_S = 1.0
SETTLED_S = 3_600.0


class ForwardClock:
    """Never says the same moment twice, nor goes back; never stands still."""

    def __init__(self, wall: Clock, steady: Clock) -> None:
        self._wall = wall
        self._steady = steady
        self._last, self._at = 0.0, steady()

    def __call__(self) -> float:
        steady = self._steady()
        # asked several times a turn: no calls that can be saved
        since, wall = (steady - self._at) * SLOWER, self._wall()
        slow = self._last + (since if since > TICK_S else TICK_S)
        self._last, self._at = wall if wall > slow else slow, steady
        return self._last

    def ahead(self) -> float:
        """By how much the machine's clock went back and we did not: what it calls a moment is later here."""
        return max(0.0, self() - self._wall())

    def not_before(self, moment: float) -> None:
        """Go on from what was stamped before a restart."""
        self._last = max(self._last, moment)


class Jumps:
    """Notices that the machine's clock was moved: against the steady one."""

    def __init__(self, wall: Clock, steady: Clock) -> None:
        self._wall = wall
        self._steady = steady
        self._apart = wall() - steady()
        self._jumped_at: float | None = None
        self._untold = 0.0
        self.last_s = 0.0

    def look(self) -> float:
        """By how many seconds it was moved since the last look; 0 when it was not."""
        apart = self._wall() - self._steady()
        moved, self._apart = apart - self._apart, apart
        if abs(moved) < JUMP_S:
            return 0.0
        self._jumped_at, self.last_s = self._steady(), moved
        self._untold += moved
        return moved

    def untold(self) -> float:
        """What was found since this was asked before."""
        self.look()
        found, self._untold = self._untold, 0.0
        return found

    def settled(self) -> bool:
        """Whether the clock can be trusted with what is thrown away by age."""
        self.look()
        return self._jumped_at is None or self._steady() - self._jumped_at > SETTLED_S
