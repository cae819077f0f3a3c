"""What time takes away: answers past their days, plans nobody committed, values that died with them.

A plan stays a while after it expired, so that its commit can say so. Ciphertext that no commit has
bound dies with its plan; what a newer value replaced stays as long as a revert may want it back.
Feedback events go when their retention ends, a bounded number at a time. Pure.
"""

from controlplane.operations import repeating
from controlplane.store.unit import Unit

EXPIRED_KEPT_S = 7 * 86_400.0
EVENTS_AT_ONCE = 5_000
PLANS = "DELETE FROM plan WHERE change_id IS NULL AND expires_at < ?"
VALUES = "DELETE FROM secret_value WHERE expires_at < ?"
EVENTS = "DELETE FROM event WHERE time < ? AND cursor < (SELECT MIN(cursor) FROM event) + ?"


def unit(now: float, event_retention_s: float) -> Unit:
    """One round."""
    swept = repeating.sweep(now).raw(PLANS, [now - EXPIRED_KEPT_S]).raw(VALUES, [now])
    return swept.raw(EVENTS, [now - event_retention_s, EVENTS_AT_ONCE])
