"""Statements about code that a replay in the background found not to come to the same, as in `statements`."""

# Behind the commit of the turn that they are of, so they are not among those of which many go in one call.
MARK = (
    "INSERT INTO divergence (namespace, digest, kind, agent, turn_id, problem, at)"
    " SELECT a.namespace, t.digest, ?, a.name, t.turn_id, ?, ? FROM turn t JOIN agent a ON a.uid = t.agent"
    " WHERE t.turn_id = ? AND t.digest = ? AND a.namespace = ? AND t.outcome = 'committed'"
    " ON CONFLICT (digest, namespace, kind) DO NOTHING"
)
TELL = (
    "INSERT INTO event (type, time, kind, namespace, name, turn_id, data)"
    " SELECT 'code.diverged', ?, 'Agent', namespace, agent, turn_id, ? FROM divergence"
    " WHERE namespace = ? AND digest = ? AND kind = ?"
)
MARKED = "SELECT 1 FROM divergence WHERE namespace = ? AND digest = ? AND kind = ?"
TELLING = frozenset((TELL,))
