"""Statements of questions whose message expires before a turn has begun with it. As in `statements`.

An await that is noted so is looked at when that time comes, whatever the agent does that was asked: the message is in
its inbox still, no attempt of it counted and no turn of it on record, or it is begun and the await has its deadline
alone from then on.
"""

from controlplane.store.batching import Many

NOTE = Many("UPDATE awaiting SET expires_at = ? WHERE await_id = ? AND resolved_at IS NULL")
EXPIRED = (
    "SELECT w.await_id, w.target, w.target_agent, a.namespace, a.name FROM awaiting w JOIN agent a"
    " ON a.uid = w.target_agent WHERE w.expires_at <= ? AND w.resolved_at IS NULL ORDER BY w.expires_at LIMIT 500"
)
NEXT_EXPIRED = (
    "SELECT expires_at FROM awaiting WHERE expires_at IS NOT NULL AND resolved_at IS NULL ORDER BY expires_at LIMIT 1"
)
BEGUN = "UPDATE awaiting SET expires_at = NULL WHERE await_id = ?"
HAS_TURN = (
    "SELECT 1 FROM turn WHERE turn_id = ?"
    " UNION ALL SELECT 1 FROM inbox WHERE agent = ? AND message_id = ? AND attempts > 0"
)
OVER = (  # a turn that did not begin remembers that it is done, for whoever sends it again; none where there is one
    "INSERT INTO turn (turn_id, agent, message_id, trigger, message, outcome, attempts, epoch, digest, started_at,"
    " finished_at, cpu_ns, entries, problem) SELECT ?, i.agent, i.message_id, i.trigger, i.body, 'failed', 0, a.epoch,"
    " '', ?, ?, 0, 0, ? FROM inbox i JOIN agent a ON a.uid = i.agent WHERE i.agent = ? AND i.message_id = ?"
    " AND i.attempts = 0 AND NOT EXISTS (SELECT 1 FROM turn t WHERE t.turn_id = ?)"
)
LETTER = (
    "INSERT INTO dead_letter (agent, namespace, name, message_id, body, reason, detail, turn_id, at, trigger, channel)"
    " SELECT i.agent, ?, ?, i.message_id, i.body, 'EXPIRED', ?, ?, ?, i.trigger, NULL FROM inbox i"
    " WHERE i.agent = ? AND i.message_id = ?"
)
