"""Statements of what agents are found by, the same on both databases."""

TRAIT = "INSERT INTO trait (kind, namespace, value, name) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING"
UNTRAIT = "DELETE FROM trait WHERE kind = ? AND namespace = ? AND value = ? AND name = ?"
TRAIT_SPAWNED = (
    "INSERT INTO trait (kind, namespace, value, name) SELECT ?, namespace, ?, name FROM resource WHERE uid = ?"
    " ON CONFLICT DO NOTHING"
)
MEANING = "INSERT INTO meaning (namespace, mark, vector, at) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING"
UNUSED_MEANINGS = (
    "DELETE FROM meaning WHERE (namespace, mark) IN (SELECT m.namespace, m.mark FROM meaning m WHERE m.at < ?"
    " AND NOT EXISTS (SELECT 1 FROM trait t WHERE t.kind = 'meaning' AND t.namespace = m.namespace"
    " AND t.value = m.mark) AND NOT EXISTS (SELECT 1 FROM member b WHERE b.namespace = m.namespace"
    " AND b.meaning = m.mark) LIMIT ?)"
)
