"""The statements of what is used. As in `statements`."""

from collections.abc import Sequence

from controlplane.store.batching import Many

ADD = Many(
    "INSERT INTO usage (namespace, agent, hour, effect, connection, meter, chain, fleet, amount)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
    " ON CONFLICT (namespace, agent, hour, effect, connection, meter, chain, fleet)"
    " DO UPDATE SET amount = usage.amount + excluded.amount"
)
ADD_TURN = Many(
    "INSERT INTO usage_common (namespace, agent, hour, effect, connection, fleet, turns, active_s, cpu_s)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
    " ON CONFLICT (namespace, agent, hour, effect, connection, fleet) DO UPDATE SET"
    " turns = usage_common.turns + excluded.turns, active_s = usage_common.active_s + excluded.active_s,"
    " cpu_s = usage_common.cpu_s + excluded.cpu_s"
)
ADD_EFFECT = Many(
    "INSERT INTO usage_common (namespace, agent, hour, effect, connection, fleet, effects, bytes_out, bytes_in)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
    " ON CONFLICT (namespace, agent, hour, effect, connection, fleet) DO UPDATE SET"
    " effects = usage_common.effects + excluded.effects, bytes_out = usage_common.bytes_out + excluded.bytes_out,"
    " bytes_in = usage_common.bytes_in + excluded.bytes_in"
)
BUDGETS = (
    "SELECT namespace, name, generation, spec FROM resource WHERE kind = 'Budget' AND deleted_at IS NULL"
    " ORDER BY namespace, name"
)
OF_AGENT = " AND agent = ?"
OF_FLEET = " AND fleet = ?"
LABELLED = (  # a deleted agent has those that it had at last: as JSON, where a label is found as it is written there
    " AND (EXISTS (SELECT 1 FROM label l WHERE l.kind = 'Agent' AND l.key = ? AND l.value = ?"
    " AND l.namespace = used.namespace AND l.name = used.agent)"
    " OR EXISTS (SELECT 1 FROM resource r WHERE r.kind = 'Agent' AND r.namespace = used.namespace"
    " AND r.name = used.agent AND r.deleted_at IS NOT NULL AND REPLACE(r.labels, ?, '') <> r.labels))"
)


def sums(conditions: Sequence[str] = ()) -> str:
    """What was used in a namespace since an hour, under conditions of the above."""
    parts = ("SELECT effect, connection, meter, SUM(amount) FROM used WHERE namespace = ? AND hour >= ?", *conditions)
    return "".join((*parts, " GROUP BY effect, connection, meter"))


SUMS = sums()
