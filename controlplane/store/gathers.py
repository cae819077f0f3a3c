"""The statements of gatherings: awaits of several at once. As in `statements`.

A gathering is an await of kind `gather`, right behind its members in the journal. Whatever resolves a
member counts, in the same unit: when enough have answered, or all have settled, the gathering is
resolved, and what is still open of it is closed. These keep their place: they count what units before them did.
"""

from controlplane.store.batching import Many

_OF_GROUP = (
    "m.turn_id = awaiting.turn_id AND m.branch = awaiting.branch AND m.position < awaiting.position"
    " AND m.position >= awaiting.position - awaiting.members"
)
GATHER = Many(
    "INSERT INTO awaiting (await_id, agent, turn_id, branch, position, kind, target, since, until, members, needs)"
    " VALUES (?, ?, ?, ?, ?, 'gather', ?, ?, ?, ?, ?)"
)
SETTLE = (
    "UPDATE awaiting SET outcome = 'gathered', result = 'null', resolved_at = ?"  # noqa: S608 - constants
    " WHERE await_id = ? AND kind = 'gather' AND resolved_at IS NULL AND ("
    f"needs <= (SELECT COUNT(*) FROM awaiting m WHERE {_OF_GROUP} AND m.outcome IN ('answered', 'slept'))"
    f" OR members <= (SELECT COUNT(*) FROM awaiting m WHERE {_OF_GROUP} AND m.resolved_at IS NOT NULL))"
)
_SETTLED = (
    "turn_id = (SELECT g.turn_id FROM awaiting g WHERE g.await_id = ? AND g.resolved_at IS NOT NULL)"
    " AND branch = (SELECT g.branch FROM awaiting g WHERE g.await_id = ?)"
    " AND position >= (SELECT g.position - g.members FROM awaiting g WHERE g.await_id = ?)"
    " AND position <= (SELECT g.position FROM awaiting g WHERE g.await_id = ?)"
)
CLOSE = f"UPDATE awaiting SET outcome = 'cancelled', resolved_at = ? WHERE resolved_at IS NULL AND {_SETTLED}"  # noqa: S608 - constants
JOURNAL = (
    "UPDATE journal SET outcome = CASE WHEN kind = 'gather' THEN 'gathered' ELSE 'cancelled' END,"  # noqa: S608 - constants
    f" result = 'null', finished_at = ? WHERE outcome IS NULL AND {_SETTLED}"
)
MEMBERS = (
    "SELECT j.position, j.outcome, j.result, j.finished_at FROM awaiting g JOIN journal j ON j.turn_id = g.turn_id"
    " AND j.branch = g.branch AND j.position >= g.position - g.members AND j.position < g.position"
    " WHERE g.await_id = ? ORDER BY j.position"
)
