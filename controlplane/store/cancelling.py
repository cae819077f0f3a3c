"""Statements about questions that nobody waits for any more."""

from controlplane.store.batching import Many

OUTCOME = "SELECT outcome FROM awaiting WHERE await_id = ?"
ASKED_BY_TURN = (
    "SELECT target_agent, await_id FROM awaiting WHERE turn_id = ? AND resolved_at IS NULL"
    " AND kind IN ('ask', 'request') AND target_agent IS NOT NULL"
)
ASKED_BY_AGENT = (
    "SELECT target_agent, await_id FROM awaiting WHERE agent = ? AND resolved_at IS NULL"
    " AND kind IN ('ask', 'request') AND target_agent IS NOT NULL"
)
CANCELLED_MEMBERS = (
    "SELECT w.target_agent, w.await_id FROM awaiting g JOIN awaiting w ON w.turn_id = g.turn_id AND w.branch = g.branch"
    " AND w.position >= g.position - g.members AND w.position < g.position"
    " WHERE g.await_id = ? AND w.outcome = 'cancelled' AND w.kind = 'ask' AND w.target_agent IS NOT NULL"
)
CANCELLED_OPEN = (  # a question's message has the id of its await
    "SELECT t.agent, t.message_id FROM turn t JOIN awaiting w ON w.await_id = t.message_id"
    " WHERE t.finished_at IS NULL AND w.outcome = 'cancelled'"
)
CONTINUED_OPEN = (  # its message has an id of its own, and the question's stands within
    'SELECT agent, message FROM turn WHERE finished_at IS NULL AND message LIKE \'%"continues":"turn_%\''
)
CANCEL_OPERATOR = (
    "UPDATE awaiting SET outcome = 'cancelled', resolved_at = ?"
    " WHERE await_id = ? AND kind = 'operator' AND resolved_at IS NULL"
)
CANCEL_OF_AGENT = Many(
    "UPDATE awaiting SET outcome = 'cancelled', resolved_at = ? WHERE agent = ? AND resolved_at IS NULL"
    " AND kind IN ('ask', 'request', 'compute')"
)
