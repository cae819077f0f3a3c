"""The statements of what is used. As in `statements`."""

from collections.abc import Sequence

from controlplane.store.batching import Many

ADD = Many(
    "INSERT INTO usage (namespace, agent, hour, effect, connection, meter, chain, fleet, amount)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
    " ON CONFLICT (namespace, agent, hour, effect, connection, meter, chain, fleet)"
    " DO UPDATE SET amount = usage.amount + excluded.amount"
)
BUDGETS = (
    "SELECT namespace, name, generation, spec FROM resource WHERE kind = 'Budget' AND deleted_at IS NULL"
    " ORDER BY namespace, name"
)
OF_AGENT = " AND agent = ?"
OF_FLEET = " AND fleet = ?"
LABELLED = (
    " AND EXISTS (SELECT 1 FROM label l WHERE l.kind = 'Agent' AND l.key = ? AND l.value = ?"
    " AND l.namespace = usage.namespace AND l.name = usage.agent)"
)


def sums(conditions: Sequence[str] = ()) -> str:
    """What was used in a namespace since an hour, under conditions of the above."""
    parts = ("SELECT effect, connection, meter, SUM(amount) FROM usage WHERE namespace = ? AND hour >= ?", *conditions)
    return "".join((*parts, " GROUP BY effect, connection, meter"))


SUMS = sums()
