"""Statements of scopes, the same on both databases: children that end together."""

OPEN = (
    "INSERT INTO scope (scope_id, owner, namespace, name, kind, opened_at) VALUES (?, ?, ?, ?, ?, ?)"
    " ON CONFLICT (scope_id) DO NOTHING"
)
GIVE = "UPDATE agent SET scope = ? WHERE uid = ?"
END = "UPDATE scope SET ended_at = ? WHERE scope_id = ? AND ended_at IS NULL"
END_OF_AGENT = "UPDATE scope SET ended_at = ? WHERE owner = ? AND ended_at IS NULL"
LEFT = (
    "SELECT s.scope_id, a.uid, a.namespace, a.name, r.labels, r.spec, r.generation FROM scope s"
    " CROSS JOIN agent a LEFT JOIN resource r ON r.uid = a.uid AND r.deleted_at IS NULL"
    " WHERE a.scope = s.scope_id AND s.ended_at IS NOT NULL AND s.cleared_at IS NULL LIMIT ?"
)
EMPTY = (
    "UPDATE scope SET cleared_at = ? WHERE ended_at IS NOT NULL AND cleared_at IS NULL"
    " AND NOT EXISTS (SELECT 1 FROM agent a WHERE a.scope = scope.scope_id)"
)
UNCLEARED = "SELECT 1 FROM scope WHERE ended_at IS NOT NULL AND cleared_at IS NULL LIMIT 1"
BURY = (
    "UPDATE resource SET deleted_at = ?, revision = revision + 1, updated_at = ? WHERE uid = ? AND deleted_at IS NULL"
)
UNLABEL = "DELETE FROM label WHERE kind = 'Agent' AND namespace = ? AND name = ? AND key = ? AND value = ?"
CLEARED = (
    "DELETE FROM scope WHERE scope_id IN (SELECT scope_id FROM scope WHERE cleared_at IS NOT NULL AND cleared_at < ?"
    " LIMIT ?)"
)
