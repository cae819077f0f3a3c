"""Turns that take longer than they may: what their host says of its loop is a hint, and never an excuse.

A host ends such a turn by itself at its next step. One whose loop is held can not, and says so by its lag. One that
says nothing of the kind has a while longer, for a slow machine and for who else held its loop; then it lies.
"""

from controlplane.effects.placing import Host
from controlplane.effects.slots import Slot


def overdue(host: Host, holder: Slot | None, now: float) -> Slot | None:
    """The turn that holds the loop, if it should long be over; where nobody says which it is, the oldest one."""
    if host.holding and holder is None:
        return None  # one that is over holds it, or is run again: `holdups` ends that, and nobody here is to blame
    running = [it for it in host.slots if it.state == "running" and not it.effects and holder in (None, it)]
    first = min(running, key=lambda it: it.started, default=None)
    return first if first is not None and now - first.started > first.turn_s_left else None


def overtime(host: Host, now: float, late_s_max: float) -> Slot | None:
    """A turn that waits for nothing, and has been over its time for so long."""
    found = None
    for slot in host.slots:
        works = slot.state == "running" and not slot.effects - slot.held
        if not works or now - slot.started <= slot.turn_s_left:
            slot.late_since = None
        elif slot.late_since is None:
            slot.late_since = now
        elif now - slot.late_since > late_s_max:
            found = slot
    return found
